// LLaVA-PruMerge and PruMerge+ (Shang et al., arXiv 2403.15388): keeps the most attended tokens, in PruMerge+ also evenly spread ones.
// Each kept token absorbs its nearest tokens by keys, weighted by attention; one more token absorbs all pruned tokens.
// Stage: tower. Query-aware: no. Safe for later turns: yes, for what the kept tokens show.
// Differences: towers without a CLS token use the column mean over heads and rows, scaled to sum 1, instead of the CLS row, as one wide
// head; kept tokens are in raster order, the extra one in the place of the most attended pruned token.

import { checkOptions } from '../options';
import type { Selection, SparsityMethod, TowerView } from './method';
import { LAYER, PRUNING } from './options';
import { perPlane } from './planes';
import { budget, topK } from './top_k';
import { topAndSpread } from './uniform';
import { addRow, dot, everyIndex, quantile, takeRows, unitRows, without } from './vectors';

export interface PruMergeOptions {
  /** Share of visual tokens dropped after the tower. Default: keeps the outliers of attention, a > Q3 + 1.5 (Q3 - Q1). */
  readonly prefillSparsity?: number;
  /** Tower layer of attention and keys; default -1. */
  readonly layer?: number;
  readonly positions?: 'original' | 'compact';
}

/** Number of tokens that a kept token absorbs. */
const NEIGHBOURS = 32;

/** x_i' = x_i + sum over its 32 nearest t of a_t x_t; the extra token = sum over the pruned t of a_t x_t. */
export function pruMerge(options: PruMergeOptions = {}): SparsityMethod {
  return method('prumerge', options, 0);
}

/** PruMerge+: three evenly spread tokens for each most attended one. */
export function pruMergePlus(options: PruMergeOptions = {}): SparsityMethod {
  return method('prumerge+', options, 3);
}

function method(name: string, options: PruMergeOptions, spread: number): SparsityMethod {
  const given = checkOptions(name, options, { ...PRUNING, layer: LAYER });
  const { prefillSparsity, layer = -1, positions = 'original' } = given;
  const select = (plane: TowerView): Selection => {
    const sum = plane.salience().reduce((total, s) => total + s, 0);
    const a = plane.salience().map((s) => s / sum);
    const adaptive = Math.max(1, outliers(a)) * (1 + spread) + 1;
    const kept = Math.min(a.length, prefillSparsity === undefined ? adaptive : budget(a.length, prefillSparsity));
    if (kept === a.length) return everyIndex(kept);
    // For each most attended token `spread` others.
    const chosen = Math.max(1, kept - 1);
    const salient = Math.max(1, Math.round(chosen / (1 + spread)));
    return merge(plane, a, topAndSpread(a, salient, chosen - salient), kept);
  };
  return {
    name,
    positions,
    prune: { taps: { salience: [layer], keys: [layer] }, scope: 'plane', select: perPlane(select) },
  };
}

/** The chosen tokens with what they absorb, and the extra token if the budget has room for it. */
function merge(plane: TowerView, a: Float32Array, chosen: Int32Array, kept: number): Selection {
  const features = plane.features();
  const { data } = plane.keys();
  const keys = unitRows({ data, width: data.length / a.length });
  const pruned = without(a.length, chosen);
  const extra = pruned.reduce((best, t) => ((a[t] as number) > (a[best] as number) ? t : best));
  const indices = kept > chosen.length ? Int32Array.from([...chosen, extra]).sort() : chosen;
  const rows = takeRows(features, indices);
  for (const [at, i] of indices.entries()) {
    const likeness = a.map((_, t) => (t === i ? Number.NEGATIVE_INFINITY : dot(keys, i, t)));
    if (i === extra) rows.fill(0, at * features.width, (at + 1) * features.width);
    const taken = i === extra ? pruned : topK(likeness, Math.min(NEIGHBOURS, a.length - 1));
    for (const t of taken) addRow(rows, at, features, t, a[t] as number);
  }
  return { kept: indices, rows };
}

/** Number of values above Q3 + 1.5 (Q3 - Q1). */
function outliers(values: Float32Array): number {
  const [low, high] = [quantile(values, 1 / 4), quantile(values, 3 / 4)];
  return values.filter((value) => value > 2.5 * high - 1.5 * low).length;
}
