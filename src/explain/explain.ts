// What a conversation looked at, as a picture: for each image its salience and what was kept of it, for each turn the cells
// that it attended, per layer and combined. Knows no tensors and no models: statistics and pictures in, PNG bytes out.

import { coded, SparseVilaError } from '../errors';
import { type AllowUrls, type ImageInput, withImage } from '../image/decode';
import { signalOf } from '../options';
import type { LayerRelevance } from '../sparsity/observed';
import { checkExplain } from './check';
import { type Embedded, figure } from './figure';
import { type LookedAt, looksOf, planesOf } from './look';
import { embed, rasterize } from './render';

export type { LookedAt } from './look';

/** A turn as it was asked and answered. */
export interface ExplainedTurn {
  readonly question: string;
  readonly answer: string;
  /** The images that it was asked with. */
  readonly images?: readonly ImageInput[];
  /** `stats` of its answer. */
  readonly stats: LookedAt;
  /** Per layer, shown where all is attended: what `observed(method).takeRelevance()` gives after the turn. */
  readonly relevance?: readonly LayerRelevance[] | undefined;
}

export interface ExplainOptions {
  /** A line above the panels. */
  readonly title?: string;
  /** As of `load`: the images are decoded once more. */
  readonly maxPixels?: number;
  readonly allowUrls?: AllowUrls;
  readonly signal?: AbortSignal;
}

/**
 * Draws a conversation.
 * @example
 * const { method, takeRelevance } = observed(sparseVila());
 * const chat = vlm.session({ method });
 * const [question, images] = ['Where is the A?', ['a.png']];
 * const asked = chat.ask(question, { images });
 * const answer = await asked.text();
 * const png = await explain([{ question, answer, images, stats: asked.stats, relevance: takeRelevance() }]);
 * @param turns all turns of the conversation in order, none of them rewound
 * @returns the bytes of a PNG
 * @throws SparseVilaError `ERR_OPTION_INVALID` when there is no picture, or turns are missing; what decoding the images throws;
 *   `signal.reason`
 */
export async function explain(turns: readonly ExplainedTurn[], options?: ExplainOptions): Promise<Buffer> {
  try {
    return await draw(checkExplain(turns, options));
  } catch (error) {
    throw coded(error, signalOf(options));
  }
}

async function draw({
  turns,
  title = '',
  maxPixels,
  allowUrls,
  signal,
}: ReturnType<typeof checkExplain>): Promise<Buffer> {
  signal?.throwIfAborted();
  const looks = looksOf(turns);
  const pictures: Embedded[] = [];
  let [rows, media] = [0, 0];
  for (const { images = [], stats } of turns) {
    if (images.length !== stats.media.length)
      throw invalid(`the ${stats.media.length} images of each turn`, `${images.length}`);
    for (const [i, input] of images.entries()) {
      const seen = stats.media[i];
      if (seen === undefined) continue;
      const { width, height, ...embedded } = await withImage(
        input,
        { maxPixels, allowUrls, signal },
        async (image) => ({
          ...{ width: image.width, height: image.height },
          ...(await embed(image)),
        }),
      );
      for (const plane of planesOf(seen, media, rows))
        pictures.push({ ...plane, id: `picture-${pictures.length}`, width, height, ...embedded });
      rows += seen.kept.length;
      media++;
      signal?.throwIfAborted();
    }
  }
  if (pictures.length === 0) throw invalid('at least one image in a turn', 'none');
  const asked = turns.map(({ question, answer }, i) => ({ question, answer, looks: looks[i] ?? [] }));
  const png = await rasterize(figure(title, pictures, asked));
  signal?.throwIfAborted();
  return png;
}

function invalid(expected: string, received: string): SparseVilaError {
  return new SparseVilaError('ERR_OPTION_INVALID', `Expected ${expected} to explain, received ${received}.`);
}
