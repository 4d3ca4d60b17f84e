// The media of a turn: drawn, encoded with the tower, pruned, projected, as the decoder's rows are asked for. Makes rows for the decoder; does not
// know the conversation.

import { SparseVilaError } from '../errors';
import type { RgbImage } from '../image/decode';
import { canvasesOf, type Grid, type MediaInput, type MediumLayout, type PreparedMedium } from '../models/media';
import type { EncodedMedium, RowModel } from '../models/model';
import { type MediumPart, partsOf, rangesOf, type TokenRange } from '../models/parts';
import { float32, floats, int32, joinNumbers } from '../ops/run';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { Matrix, SparsityMethod, TowerView } from '../sparsity/method';
import { encodedTokens, joinedSeen, seenIn, seenOnly } from './encoded_tokens';
import { checkLists, checkMerged } from './selection';
import { type StageTimes, timed } from './times';

/** Consecutive tokens of a medium after pruning. */
export interface PrunedTokens extends TokenRange {
  /** Indices of the kept tokens in the medium, ascending. */
  readonly kept: Int32Array;
  /** f32 [tokens], of the first layer of `taps.salience`. */
  readonly salience: Float32Array | undefined;
  /** f32 [kept, d], with deepstack [kept, (1 + k) d]; undefined if no token is kept. */
  readonly rows: Tensor | undefined;
}

export interface MediaContext {
  readonly model: RowModel;
  readonly method: SparsityMethod;
  readonly times: StageTimes;
  readonly signal: AbortSignal | undefined;
  readonly pace: () => Promise<void>;
}

/** A part of a medium after the tower, or all of it. */
interface EncodedPart extends EncodedMedium {
  /** Index of the medium among those that are pruned together. */
  readonly medium: number;
  readonly ranges: MediumPart['tokens'];
}

/** The kept tokens of one grid, and the rows that replace them if the method merges. */
interface GridSelection {
  readonly kept: Int32Array;
  readonly rows?: Float32Array;
}

/** Decodes and lays out all media of a turn before any is encoded, so that an unreadable picture is refused before the tower runs. */
export function prepareMedia(
  { model, method, times, signal }: MediaContext,
  inputs: readonly MediaInput[],
): Promise<PreparedMedium[]> {
  return inputs.length === 0
    ? Promise.resolve([])
    : timed(times, 'image', () => model.prepare(inputs, signal, method.resize));
}

/**
 * Encodes, prunes and projects media that are pruned together, and yields their tokens as soon as they are: part by part of each, unless the method
 * chooses among all of them. The caller disposes of the rows.
 * @param question the ids of the turn's question
 */
export async function* seeMedia(
  context: MediaContext,
  media: readonly PreparedMedium[],
  question: readonly number[],
): AsyncGenerator<{ readonly medium: number; readonly tokens: PrunedTokens }> {
  const { prune } = context.method;
  if (prune === undefined || prune.scope === 'plane') {
    for (const [medium, prepared] of media.entries())
      for await (const part of encodedParts(context, prepared, medium)) yield* prunedTokens(context, [part], question);
    return;
  }
  const wholes: EncodedPart[] = [];
  try {
    for (const [medium, prepared] of media.entries()) wholes.push(await encodedWhole(context, prepared, medium));
    yield* prunedTokens(context, wholes, question);
  } finally {
    for (const whole of wholes) whole.dispose();
  }
}

/** The parts of a medium after the tower, each drawn and encoded when it is asked for. The caller disposes of them. */
async function* encodedParts(
  { model, method, times, signal, pace }: MediaContext,
  prepared: PreparedMedium,
  medium: number,
): AsyncGenerator<EncodedPart> {
  const canvases = canvasesOf(prepared, signal);
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
        return model.encode(own, { ...method.prune?.taps, tokens: wanted, pace });
      });
      yield { ...encoded, medium, ranges: tokens };
    }
  } finally {
    await canvases.return(undefined);
  }
}

async function next(canvases: AsyncGenerator<RgbImage>): Promise<RgbImage> {
  const { done, value } = await canvases.next();
  if (done !== true) return value;
  throw new SparseVilaError('ERR_VIDEO_CORRUPT', 'Expected as many frames as the video has had, received fewer.');
}

/** A medium after the tower, from its parts. The caller disposes of it. */
async function encodedWhole(context: MediaContext, prepared: PreparedMedium, medium: number): Promise<EncodedPart> {
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

/** Prunes and projects what was encoded, and disposes of it. */
async function* prunedTokens(
  context: MediaContext,
  encoded: readonly EncodedPart[],
  question: readonly number[],
): AsyncGenerator<{ readonly medium: number; readonly tokens: PrunedTokens }> {
  const { model, method, times, pace } = context;
  try {
    const selections = await timed(times, 'retrieve', () => prune(context, encoded, question));
    for (const [i, part] of encoded.entries()) {
      for (const [grid, own] of rangesOf(part.layout).entries()) {
        const { from, to } = part.ranges[grid] as TokenRange;
        if (from === to) continue;
        const selection = selections[i]?.[grid] as GridSelection;
        const rows = await timed(times, 'project', () => project(model, method, part, own, selection));
        const kept = selection.kept.map((token) => from + token);
        yield {
          medium: part.medium,
          tokens: { from, to, kept, salience: part.salience[0]?.slice(own.from, own.to), rows },
        };
        await pace();
      }
    }
  } finally {
    for (const part of encoded) part.dispose();
  }
}

/** For each part and each of its grids, the method's selection. */
function prune(
  { model, method }: MediaContext,
  encoded: readonly EncodedPart[],
  question: readonly number[],
): GridSelection[][] {
  const grids = encoded.flatMap((part, i) =>
    rangesOf(part.layout).flatMap((range, grid) => (range.from === range.to ? [] : [{ part, i, grid, range }])),
  );
  const views = grids.map(({ part, grid, range }) => towerView(model, method, part, { grid, range, question }));
  const lists =
    method.prune === undefined ? undefined : checkLists(method.name, method.prune.select(views), grids.length);
  const selections: GridSelection[][] = encoded.map(() => []);
  for (const [at, { part, i, grid, range }] of grids.entries()) {
    const n = range.to - range.from;
    const deepstack = model.plan.deepstack?.length ?? 0;
    const width =
      method.prune?.rows === 'projected'
        ? model.decoder.config.hiddenSize * (1 + deepstack)
        : (part.features.shape[1] as number);
    const all = { kept: Int32Array.from({ length: n }, (_, token) => token) };
    const own = lists && checkMerged(method.name, `prune, for grid ${at},`, lists[at], { n, width });
    (selections[i] as GridSelection[])[grid] =
      part.seen === undefined ? (own ?? all) : seenOnly(own ?? all, seenIn(part.seen, range.from, n));
  }
  return selections;
}

/** The view of a grid that `prune` receives. Its values are computed when they are read. */
function towerView(
  model: RowModel,
  method: SparsityMethod,
  part: EncodedPart,
  {
    grid: index,
    range: { from, to },
    question,
  }: { readonly grid: number; readonly range: TokenRange; readonly question: readonly number[] },
): TowerView {
  const { layout, features, medium } = part;
  const { t, h, w } = layout.grids[index] as Grid;
  const declared = <T>(values: readonly T[], i: number, what: string): T => {
    const value = values[i];
    if (value !== undefined) return value;
    throw new SparseVilaError(
      'ERR_METHOD',
      `Expected method ${JSON.stringify(method.name)} to name ${i + 1} layers in prune.taps.${what}, which its prune.select reads, ` +
        `received ${values.length}.`,
    );
  };
  const own = (values: Float32Array): Float32Array => {
    const each = values.length / part.tokens;
    // Copied, because the numbers may be shared with other sessions and become part of the statistics.
    return values.slice(from * each, to * each);
  };
  const rows = (): Tensor => sliceRows(features, from, to - from);
  return {
    ...{ medium, tokens: to - from, grid: { t, h, w }, share: layout.share ?? 1 },
    salience: (i = 0) => own(declared(part.salience, i, 'salience')),
    keys: (i = 0) => {
      const { data, width } = declared(part.keys, i, 'keys');
      return { data: own(data), width };
    },
    features: () => matrixOf(rows),
    projected: () => matrixOf(() => model.project(rows(), layout)),
    question: () => {
      if (method.prune?.question === true) return matrixOf(() => model.decoder.embed(question));
      throw new SparseVilaError(
        'ERR_METHOD',
        `Expected method ${JSON.stringify(method.name)} to set prune.question, since its prune.select reads the question.`,
      );
    },
  };
}

/** Calls `make`, copies the numbers of the tensor [n, width] that it returns, and frees the tensor. */
export function matrixOf(make: () => Tensor): Matrix {
  const tensor = start().tf.tidy(make);
  try {
    return matrix(tensor);
  } finally {
    tensor.dispose();
  }
}

/** A copy of the numbers of a tensor [n, width]. */
export function matrix(tensor: Tensor): Matrix {
  return { data: floats(tensor).slice(), width: tensor.shape[1] as number };
}

/** Rows for the decoder: the projected features of the kept tokens of a grid, or the rows into which the method merged them. */
function project(
  model: RowModel,
  { prune }: SparsityMethod,
  { features, layout, tokens }: EncodedPart,
  range: TokenRange,
  { kept, rows }: GridSelection,
): Tensor | undefined {
  if (kept.length === 0) return undefined;
  // In a scope, which frees intermediate tensors even if an op throws.
  return start().tf.tidy(() => {
    if (rows !== undefined) {
      const merged = float32(rows, [kept.length, rows.length / kept.length]);
      return prune?.rows === 'projected' ? merged : model.project(merged, layout);
    }
    const own = kept.map((token) => token + range.from);
    return model.project(own.length === tokens ? features : gatherRows(features, own), layout);
  });
}

/** Rows of a tensor [n, width]. */
export function gatherRows(x: Tensor, rows: Int32Array): Tensor {
  const { tf } = start();
  return tf.tidy(() => tf.gather(x, int32(rows)));
}

/** Rows begin … begin + count - 1 of a tensor [n, width]. */
export function sliceRows(x: Tensor, begin: number, count: number): Tensor {
  const [n, width] = x.shape as [number, number];
  return count === n ? x.clone() : start().tf.slice(x, [begin, 0], [count, width]);
}
