// The media of a turn after the tower: drawn and encoded part by part, or as a whole. Knows neither what is kept of them nor the conversation.

import { SparseVilaError } from '../errors';
import type { RgbImage } from '../image/decode';
import { canvasesOf, type MediumLayout, type PreparedMedium } from '../models/media';
import type { EncodedMedium, RowModel } from '../models/model';
import { type MediumPart, partsOf, rangesOf, type TokenRange } from '../models/parts';
import { type FrameMemory, frameMemory, type ReusedKeys } from '../models/tower_reuse';
import { joinNumbers } from '../ops/run';
import { start } from '../runtime/start';
import type { SparsityMethod } from '../sparsity/method';
import { encodedTokens, joinedSeen } from './encoded_tokens';
import { checkSelection } from './selection';
import { sliceRows } from './tensor_rows';
import { type StageTimes, timed } from './times';

export interface MediaContext {
  readonly model: RowModel;
  readonly method: SparsityMethod;
  readonly times: StageTimes;
  readonly signal: AbortSignal | undefined;
  readonly pace: () => Promise<void>;
}

/** A part of a medium after the tower, or all of it. */
export interface EncodedPart extends EncodedMedium {
  /** Index of the medium among those that are pruned together. */
  readonly medium: number;
  readonly ranges: MediumPart['tokens'];
}

/** The parts of a medium after the tower, each drawn and encoded when it is asked for. The caller disposes of them. */
export async function* encodedParts(
  { model, method, times, signal, pace }: MediaContext,
  prepared: PreparedMedium,
  medium: number,
): AsyncGenerator<EncodedPart> {
  const canvases = canvasesOf(prepared, signal);
  const memory = memoryOf(model, method, prepared.layout);
  try {
    for (const { layout, tokens } of partsOf(prepared.layout, model.plan.tower)) {
      const drawn: RgbImage[] = [];
      await timed(times, 'image', async () => {
        while (drawn.length < layout.canvases.length) drawn.push(await next(canvases));
      });
      const part = layout === prepared.layout && prepared.film === undefined ? prepared : { layout, canvases: drawn };
      const own = { ...part, made: prepared.made };
      const encoded = await timed(times, 'tower', () => {
        const wanted = encodedTokens(model, method, own);
        return model.encode(own, { ...method.prune?.taps, tokens: wanted, memory, pace });
      });
      yield { ...encoded, medium, ranges: tokens };
    }
  } finally {
    memory?.dispose();
    await canvases.return(undefined);
  }
}

/** What the tower remembers of the frames of a film, for a method that reuses it. */
function memoryOf(
  { family, plan }: RowModel,
  { name, reuse }: SparsityMethod,
  { kind }: MediumLayout,
): FrameMemory | undefined {
  if (reuse === undefined || kind === 'image') return undefined;
  const select = ({ layer, layers, rows, width, keys, reference }: ReusedKeys): Int32Array => {
    const view = { layer, layers, rows, keys: { data: keys, width }, reference: { data: reference, width } };
    return checkSelection(name, 'reuse', reuse.select(view), rows);
  };
  return frameMemory(family, plan.tower, { every: reuse.every, select });
}

async function next(canvases: AsyncGenerator<RgbImage>): Promise<RgbImage> {
  const { done, value } = await canvases.next();
  if (done !== true) return value;
  throw new SparseVilaError('ERR_VIDEO_CORRUPT', 'Expected as many frames as the video has had, received fewer.');
}

/** A medium after the tower, from its parts. The caller disposes of it. */
export async function encodedWhole(
  context: MediaContext,
  prepared: PreparedMedium,
  medium: number,
): Promise<EncodedPart> {
  const parts: EncodedPart[] = [];
  try {
    for await (const part of encodedParts(context, prepared, medium)) parts.push(part);
    const [only] = parts;
    if (only !== undefined && parts.length === 1) return parts.pop() as EncodedPart;
    return joined(prepared.layout, parts);
  } finally {
    for (const part of parts) part.dispose();
  }
}

/** The parts of a medium as one, its tokens in their order: grid after grid. */
function joined(layout: MediumLayout, parts: readonly EncodedPart[]): EncodedPart {
  const { tf } = start();
  const [first] = parts as [EncodedPart];
  const pieces = layout.grids.flatMap((_, grid) =>
    parts.map((part) => ({ part, ...(rangesOf(part.layout)[grid] as TokenRange) })),
  );
  const numbers = (of: (part: EncodedPart) => Float32Array): Float32Array =>
    joinNumbers(
      pieces.map(({ part, from, to }) => {
        const values = of(part);
        const each = values.length / part.tokens;
        return values.subarray(from * each, to * each);
      }),
    );
  const features = tf.tidy(() =>
    tf.concat(pieces.map(({ part, from, to }) => sliceRows(part.features, from, to - from))),
  );
  return {
    ...{ layout, features, medium: first.medium, ranges: rangesOf(layout), seen: joinedSeen(pieces) },
    tokens: parts.reduce((sum, { tokens }) => sum + tokens, 0),
    salience: first.salience.map((_, i) => numbers(({ salience }) => salience[i] as Float32Array)),
    keys: first.keys.map(({ width }, i) => ({ width, data: numbers(({ keys }) => keys[i]?.data as Float32Array) })),
    dispose: () => features.dispose(),
  };
}
