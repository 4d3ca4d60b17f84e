// The media of a turn: laid out, pruned after the tower and projected, as the decoder's rows are asked for. Makes rows for the decoder; does not know
// the conversation.

import { SparseVilaError } from '../errors';
import type { Grid, MediaInput, PreparedMedium } from '../models/media';
import type { RowModel } from '../models/model';
import { rangesOf, type TokenRange } from '../models/parts';
import { float32 } from '../ops/run';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { SparsityMethod, TowerView } from '../sparsity/method';
import { type EncodedPart, encodedParts, encodedWhole, type MediaContext } from './encoded_media';
import { seenIn, seenOnly } from './encoded_tokens';
import { checkLists, checkMerged } from './selection';
import { gatherRows, matrixOf, sliceRows } from './tensor_rows';
import { timed } from './times';

/** Consecutive tokens of a medium after pruning. */
export interface PrunedTokens extends TokenRange {
  /** Indices of the kept tokens in the medium, ascending. */
  readonly kept: Int32Array;
  /** f32 [tokens], of the first layer of `taps.salience`. */
  readonly salience: Float32Array | undefined;
  /** f32 [kept, d], with deepstack [kept, (1 + k) d]; undefined if no token is kept. */
  readonly rows: Tensor | undefined;
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
