// The media of a turn: decode, encode with the tower, prune, project. Makes rows for the decoder; does not know the conversation.

import { SparseVilaError } from '../errors';
import { type Grid, type MediaInput, type MediumLayout, type PreparedMedium, planeTokens } from '../models/media';
import type { EncodedMedium, RowModel } from '../models/model';
import { float32, floats, int32 } from '../ops/run';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { Matrix, SparsityMethod, TowerView } from '../sparsity/method';
import { checkLists, checkMerged } from './selection';
import { type StageTimes, timed } from './times';

/** A medium after pruning. */
export interface PrunedMedium {
  readonly layout: MediumLayout;
  /** Number of tokens before pruning. */
  readonly tokens: number;
  /** Indices of the kept tokens, ascending. */
  readonly kept: Int32Array;
  /** f32 [tokens], of the first layer of `taps.salience`. */
  readonly salience: Float32Array | undefined;
  /** f32 [kept, d] */
  readonly rows: Tensor;
}

export interface MediaContext {
  readonly model: RowModel;
  readonly method: SparsityMethod;
  readonly times: StageTimes;
  readonly signal: AbortSignal | undefined;
  readonly pace: () => Promise<void>;
}

/** The kept tokens of one grid, and the rows that replace them if the method merges. */
interface GridSelection {
  readonly kept: Int32Array;
  readonly rows?: Float32Array;
}

/** Decodes and draws all media of a turn before any is encoded, so that an unreadable picture is refused before the tower runs. */
export function prepareMedia(
  { model, times, signal }: MediaContext,
  inputs: readonly MediaInput[],
): Promise<PreparedMedium[]> {
  return inputs.length === 0 ? Promise.resolve([]) : timed(times, 'image', () => model.prepare(inputs, signal));
}

/** Encodes, prunes and projects the media of a turn, whose question has these ids. The caller disposes of the rows. */
export async function seeMedia(
  context: MediaContext,
  prepared: readonly PreparedMedium[],
  question: readonly number[],
): Promise<PrunedMedium[]> {
  const { model, method, times, pace } = context;
  if (prepared.length === 0) return [];
  const encoded: EncodedMedium[] = [];
  const seen: PrunedMedium[] = [];
  try {
    for (const medium of prepared)
      encoded.push(await timed(times, 'tower', () => model.encode(medium, { ...method.prune?.taps, pace })));
    const selections = await timed(times, 'retrieve', () => prune(context, encoded, question));
    for (const [i, medium] of encoded.entries()) {
      const { layout, tokens } = medium;
      const own = selections[i] as readonly GridSelection[];
      const firsts = firstTokens(layout);
      const kept = Int32Array.from(
        own.flatMap((one, grid) => Array.from(one.kept, (token) => token + firstOf(firsts, grid))),
      );
      const rows = await timed(times, 'project', () => project(model, method, medium, own));
      seen.push({ layout, tokens, kept, salience: medium.salience[0], rows });
      await pace();
    }
    return seen;
  } catch (error) {
    for (const { rows } of seen) rows.dispose();
    throw error;
  } finally {
    for (const medium of encoded) medium.dispose();
  }
}

/** For each grid of a medium, the index of its first token. */
export function firstTokens({ grids }: Pick<MediumLayout, 'grids'>): number[] {
  let first = 0;
  return grids.map((grid) => {
    const own = first;
    first += tokensIn(grid);
    return own;
  });
}

const firstOf = (firsts: readonly number[], grid: number): number => firsts[grid] as number;
const tokensIn = (grid: Grid): number => grid.t * planeTokens(grid);

/** For each medium and each of its grids, the method's selection. */
function prune(
  { model, method }: MediaContext,
  encoded: readonly EncodedMedium[],
  question: readonly number[],
): GridSelection[][] {
  const grids = encoded.flatMap((medium, i) => medium.layout.grids.map((_, grid) => ({ medium, i, grid })));
  const views = grids.map(({ medium, i, grid }) => towerView(model, method, medium, { medium: i, grid, question }));
  const lists =
    method.prune === undefined ? undefined : checkLists(method.name, method.prune.select(views), grids.length);
  const selections: GridSelection[][] = encoded.map(() => []);
  for (const [at, { medium, i, grid }] of grids.entries()) {
    const tokens = tokensIn(medium.layout.grids[grid] as Grid);
    const deepstack = model.plan.deepstack?.length ?? 0;
    const width =
      method.prune?.rows === 'projected'
        ? model.decoder.config.hiddenSize * (1 + deepstack)
        : (medium.features.shape[1] as number);
    const all = { kept: Int32Array.from({ length: tokens }, (_, token) => token) };
    const own = lists && checkMerged(method.name, `prune, for grid ${at},`, lists[at], { n: tokens, width });
    selections[i]?.push(own ?? all);
  }
  return selections;
}

/** The view of a grid that `prune` receives. Its values are computed when they are read. */
function towerView(
  model: RowModel,
  method: SparsityMethod,
  medium: EncodedMedium,
  at: { readonly medium: number; readonly grid: number; readonly question: readonly number[] },
): TowerView {
  const { layout, features } = medium;
  const grid = layout.grids[at.grid] as Grid;
  const tokens = tokensIn(grid);
  const first = firstOf(firstTokens(layout), at.grid);
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
    const each = values.length / medium.tokens;
    // Copied, because the numbers may be shared with other sessions and become part of the statistics.
    return values.slice(first * each, (first + tokens) * each);
  };
  const rows = (): Tensor => sliceRows(features, first, tokens);
  return {
    medium: at.medium,
    tokens,
    grid: { t: grid.t, h: grid.h, w: grid.w },
    salience: (i = 0) => own(declared(medium.salience, i, 'salience')),
    keys: (i = 0) => {
      const { data, width } = declared(medium.keys, i, 'keys');
      return { data: own(data), width };
    },
    features: () => matrixOf(rows),
    projected: () => matrixOf(() => model.project(rows(), layout)),
    question: () => {
      if (method.prune?.question === true) return matrixOf(() => model.decoder.embed(at.question));
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

/** Rows for the decoder: the projected features of the kept tokens, or the rows into which the method merged them. */
function project(
  model: RowModel,
  { prune }: SparsityMethod,
  { features, layout, tokens }: EncodedMedium,
  selections: readonly GridSelection[],
): Tensor {
  const { tf } = start();
  const firsts = firstTokens(layout);
  // In a scope, which frees intermediate tensors even if an op throws.
  return tf.tidy(() => {
    const parts = selections.map(({ kept, rows }, grid) => {
      if (rows !== undefined) {
        const merged = float32(rows, [kept.length, rows.length / Math.max(1, kept.length)]);
        return prune?.rows === 'projected' ? merged : model.project(merged, layout);
      }
      const own = kept.map((token) => token + firstOf(firsts, grid));
      return model.project(own.length === tokens ? features : gatherRows(features, own), layout);
    });
    return parts.length === 1 ? (parts[0] as Tensor) : tf.concat(parts);
  });
}

/** Rows of a tensor [n, width]. */
export function gatherRows(x: Tensor, rows: Int32Array): Tensor {
  const { tf } = start();
  return tf.tidy(() => tf.gather(x, int32(rows)));
}

function sliceRows(x: Tensor, begin: number, count: number): Tensor {
  const [n, width] = x.shape as [number, number];
  return count === n ? x.clone() : start().tf.slice(x, [begin, 0], [count, width]);
}
