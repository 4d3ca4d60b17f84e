// Dropping visual rows between decoder layers: the layers at which a prefill stops, the rows whose attention the method sees, and the rows
// that stay. Runs no layer itself.

import { SparseVilaError } from '../errors';
import { type DecoderConfig, isStateLayer } from '../models/config';
import { float32 } from '../ops/run';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { DropView, SparsityMethod } from '../sparsity/method';
import type { DecoderRows } from './decoder_rows';
import { checkMerged, checkSelection } from './selection';
import { gatherRows, matrixOf } from './tensor_rows';

/** Layers from .. to - 1 of a prefill, all run over the same rows. */
export interface Stage {
  readonly from: number;
  readonly to: number;
  /** Rows of the turn, ascending, whose attention in this one-layer stage the method sees. */
  readonly scored: readonly number[];
  /** The point between layers at which rows may be dropped after this stage. */
  readonly drop?: Pick<DropView, 'stage' | 'starts' | 'layers'>;
  /** Whether the method sees the attention of the layer after this stage instead. */
  readonly looksAhead?: boolean;
}

/** The stages of a prefill through a decoder's layers: one stage if the method has no `drop` or the turn has no visual rows. */
export function dropStages(method: SparsityMethod, scored: readonly number[], config: DecoderDepth): Stage[] {
  const { layers } = config;
  const starts = method.drop === undefined || scored.length === 0 ? [] : seenStarts(method, config);
  const stages: Stage[] = [];
  let from = 0;
  for (const [stage, to] of starts.entries()) {
    if (method.drop?.scores === 'next') {
      stages.push({ from, to, scored: [], drop: { stage, starts, layers }, looksAhead: true });
      from = to;
      continue;
    }
    if (to - 1 > from) stages.push({ from, to: to - 1, scored: [] });
    stages.push({ from: to - 1, to, scored, drop: { stage, starts, layers } });
    from = to;
  }
  return [...stages, { from, to: layers, scored: [] }];
}

type DecoderDepth = Pick<DecoderConfig, 'layers' | 'layerTypes'>;

/**
 * `dropStarts`, moved on to layers that follow, or begin, one that attends all rows: the method sees its attention. Those that would then be the same
 * are one.
 */
function seenStarts(method: SparsityMethod, config: DecoderDepth): number[] {
  const seen = (at: number): number => (method.drop?.scores === 'next' ? at : at - 1);
  const starts = dropStarts(method, config.layers).flatMap((start) => {
    let at = start;
    while (at < config.layers && isStateLayer(config, seen(at))) at++;
    return at < config.layers ? [at] : [];
  });
  return [...new Set(starts)];
}

/** `drop.layers` as layer indices: shares of the depth are rounded, at least 1 and strictly ascending; those at or beyond the depth are left out. */
export function dropStarts({ name, drop }: SparsityMethod, layers: number): number[] {
  const given = drop?.layers ?? [];
  const starts: number[] = [];
  for (const layer of given) {
    const floor = (starts.at(-1) ?? 0) + 1;
    const isShare = layer > 0 && layer < 1;
    const at = isShare ? Math.max(floor, Math.round(layer * layers)) : layer < 0 ? layers + layer : layer;
    if (!Number.isInteger(at) || at < floor) {
      throw new SparseVilaError(
        'ERR_OPTION_INVALID',
        `${name}: expected ascending layers from 1, or shares of the depth between 0 and 1, to drop from, received ${given.join(', ')}.`,
      );
    }
    if (at < layers) starts.push(at);
  }
  return starts;
}

/** The rows of a turn whose attention `drop` sees: the last one, or the method's raters. Empty without visual rows. */
export function scoredRows(method: SparsityMethod, { x, visual, positions }: DecoderRows, question: number): number[] {
  const last = positions.length - 1;
  if (method.drop === undefined || visual.length === 0) return [];
  if (method.drop.raters === undefined) return [last];
  const rowsAt = (rows: readonly number[]) => matrixOf(() => gatherRows(x, Int32Array.from(rows)));
  const words = Array.from({ length: positions.length - question }, (_, i) => question + i);
  const given = method.drop.raters(rowsAt(words), rowsAt(visual));
  const raters = Array.from(checkSelection(method.name, 'raters', given, words.length), (i) => question + i);
  return raters.length === 0 ? [last] : raters;
}

/** The row indices at which runs of consecutive `scored` rows begin and end. */
export function flips(scored: readonly number[]): number[] {
  return scored.flatMap((row, i) => [
    ...(scored[i - 1] === row - 1 ? [] : [row]),
    ...(scored[i + 1] === row + 1 ? [] : [row + 1]),
  ]);
}

/** The rows that stay after a stage, and their hidden states; does not dispose of x. */
export function keptAfter(
  method: SparsityMethod,
  drop: Pick<DropView, 'stage' | 'starts' | 'layers'>,
  { x, kept, isVisual, scores }: { x: Tensor; kept: Int32Array; isVisual: Uint8Array; scores: Float32Array },
): { x: Tensor; kept: Int32Array } {
  // Indices of the visual rows, counted among the kept rows.
  const own = kept.map((_, i) => i).filter((i) => isVisual[kept[i] as number] === 1);
  const hidden = () => matrixOf(() => gatherRows(x, own));
  const total = isVisual.reduce((sum, one) => sum + one, 0);
  const selection = method.drop?.select({ ...drop, total, scores, hidden });
  const size = { n: own.length, width: x.shape[1] as number };
  const seam = `drop, from layer ${drop.starts[drop.stage]} on,`;
  const { kept: chosen, rows } = checkMerged(method.name, seam, selection, size);
  const stays = kept.map((row) => 1 - (isVisual[row] as number));
  for (const i of chosen) stays[own[i] as number] = 1;
  const at = stays.map((_, i) => i).filter((i) => stays[i] === 1);
  const left = at.map((i) => kept[i] as number);
  if (rows === undefined) return { x: gatherRows(x, at), kept: left };
  // Merged rows replace the hidden states of the visual rows.
  let next = left.length;
  const order = left.map((row, i) => (isVisual[row] === 1 ? next++ : i));
  const { tf } = start();
  const merged = tf.tidy(() =>
    gatherRows(tf.concat([gatherRows(x, at), float32(rows, [chosen.length, size.width])]), order),
  );
  return { x: merged, kept: left };
}
