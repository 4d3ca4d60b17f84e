// Draws the visual tokens of a conversation: for each image, and for up to eight frames of each video, its salience and kept cells; for each
// turn the attended cells, per layer and combined. The tiles of a picture are drawn together. Takes statistics and pictures; knows no models.

import { coded, SparseVilaError } from '../errors';
import { type AllowUrls, type ImageInput, withImage } from '../image/decode';
import { signalOf } from '../options';
import type { LayerRelevance } from '../sparsity/observed';
import { attendedOf, planesOf, type TurnReport } from './attended';
import { checkExplain } from './check';
import { type Embedded, figure } from './figure';
import { choiceLabel, imageLabel, videoLabel } from './labels';
import { embed, rasterize } from './render';
import { evenly, type Sheet, sheetAttention, sheetsOf } from './sheets';

export type { TurnReport } from './attended';

/** The frames of a video: a list, or their number and a way to read them in their order. */
export type ExplainedVideo =
  | { readonly frames: readonly ImageInput[] }
  | { readonly count: number; read(signal?: AbortSignal): AsyncIterable<ImageInput> };

/** A turn with its question, answer and media. */
export interface ExplainedTurn {
  readonly question: string;
  readonly answer: string;
  /** The images of the question. */
  readonly images?: readonly ImageInput[];
  /** The videos of the question: lists of frames, or the frames of film files (`model.frames(video)`). */
  readonly videos?: readonly ExplainedVideo[];
  /** `stats` of its answer. */
  readonly stats: TurnReport;
  /** Per layer, drawn if all visual tokens are attended: the result of `observed(method).takeRelevance()` after the turn. */
  readonly relevance?: readonly LayerRelevance[] | undefined;
}

export interface ExplainOptions {
  /** A line above the panels. */
  readonly title?: string;
  /** As for `load`: the images and frames are decoded again. */
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
 * @throws SparseVilaError `ERR_OPTION_INVALID` when there is no picture, or turns are missing; what decoding the pictures throws;
 *   `signal.reason`
 */
export async function explain(turns: readonly ExplainedTurn[], options?: ExplainOptions): Promise<Buffer> {
  try {
    return await draw(checkExplain(turns, options));
  } catch (error) {
    throw coded(error, signalOf(options));
  }
}

async function draw({ turns, title = '', ...options }: ReturnType<typeof checkExplain>): Promise<Buffer> {
  options.signal?.throwIfAborted();
  const attended = attendedOf(turns);
  const shown: Shown[] = [];
  for (const medium of mediaOf(turns)) shown.push(...(await shownOf(medium, options)));
  if (shown.length === 0) throw invalid('at least one image or video in a turn', 'none');
  const asked = turns.map(({ question, answer }, i) => {
    return { question, answer, attended: shown.map(({ sheet }) => sheetAttention(sheet, attended[i] ?? [])) };
  });
  const pictures = shown.map(({ picture }) => picture);
  const png = await rasterize(figure(title, pictures, asked));
  options.signal?.throwIfAborted();
  return png;
}

type DrawOptions = Omit<ExplainOptions, 'title'>;

/** A medium of the conversation and its pictures: one, or the frames of a video. */
interface Medium {
  readonly index: number;
  readonly name: string;
  readonly isVideo: boolean;
  readonly video: ExplainedVideo;
  readonly sheets: readonly Sheet[];
}

interface Shown {
  readonly sheet: Sheet;
  readonly picture: Embedded;
}

/** All media of a conversation. */
function mediaOf(turns: readonly ExplainedTurn[]): Medium[] {
  const media: Medium[] = [];
  let [planes, rows] = [0, 0];
  const counts = { image: 0, video: 0 };
  for (const { images = [], videos = [], stats } of turns) {
    const given = images.length + videos.length;
    if (given !== stats.media.length)
      throw invalid(`the ${stats.media.length} images and videos of each turn`, `${given}`);
    for (const [i, seen] of stats.media.entries()) {
      const isVideo = i >= images.length;
      const own = planesOf(seen, { media: media.length, planes, rows });
      planes += own.length;
      rows += seen.kept.length;
      media.push({
        ...{ index: media.length, isVideo, sheets: sheetsOf(own) },
        name: isVideo ? `Video ${++counts.video}` : `Image ${++counts.image}`,
        video: isVideo ? (videos[i - images.length] ?? { frames: [] }) : { frames: [images[i] as ImageInput] },
      });
    }
  }
  return media;
}

/** The sheets of a medium to draw, each with its picture: all of an image, at most eight of a video. */
async function shownOf({ index, name, isVideo, video, sheets }: Medium, options: DrawOptions): Promise<Shown[]> {
  const chosen = isVideo ? evenly(sheets) : sheets;
  // Sheets of one frame share its picture, which is embedded once.
  const pictures = new Map<number, Awaited<ReturnType<typeof embedded>>>();
  const count = 'frames' in video ? video.frames.length : video.count;
  for await (const { frame, image } of wantedFrames(
    video,
    new Set(chosen.map((sheet) => sheet.frame)),
    options.signal,
  )) {
    pictures.set(frame, await embedded(image, options));
    options.signal?.throwIfAborted();
  }
  return chosen.map((sheet, i) => {
    const picture = pictures.get(sheet.frame);
    if (picture === undefined) throw invalid(`frame ${sheet.frame} of ${name}`, `${count} frames`);
    const id = `picture-${index}-${sheet.frame}`;
    const label = isVideo
      ? videoLabel(name, sheets, sheet, count) + (i === 0 ? choiceLabel(chosen, sheets) : '')
      : imageLabel(name, sheets, sheet);
    return { sheet, picture: { ...picture, ...sheet, id, label } };
  });
}

/** Some frames of a video, in boxes, since those of a list may be anything; none behind the last of them is read. */
async function* wantedFrames(video: ExplainedVideo, wanted: Set<number>, signal: AbortSignal | undefined) {
  if ('frames' in video) {
    for (const [frame, image] of video.frames.entries()) if (wanted.has(frame)) yield { frame, image };
    return;
  }
  let at = 0;
  for await (const image of video.read(signal)) {
    const frame = at++;
    if (wanted.delete(frame)) yield { frame, image };
    if (wanted.size === 0) return;
  }
}

/** A picture for the figure, with its size in pixels. */
async function embedded(input: ImageInput, options: DrawOptions) {
  return await withImage(input, options, async (image) => ({
    ...{ width: image.width, height: image.height },
    ...(await embed(image)),
  }));
}

function invalid(expected: string, received: string): SparseVilaError {
  return new SparseVilaError('ERR_OPTION_INVALID', `Expected ${expected} to explain, received ${received}.`);
}
