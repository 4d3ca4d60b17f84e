// LLaVA-PruMerge and PruMerge+ (Shang et al., arXiv 2403.15388): keeps the most attended tokens, in PruMerge+ also evenly spread ones.
// Each kept token absorbs its nearest tokens by keys, weighted by attention; one more token absorbs all pruned tokens.
// Stage: tower. Query-aware: no. Safe for later turns: yes, for what the kept tokens show.
// Differences: towers without a CLS token use the column mean over heads and rows, scaled to sum 1, instead of the CLS row, as one wide
// head; kept tokens are in raster order, the extra one in the place of the most attended pruned token.

import { checkOptions } from '../options';
import type { Selection, SparsityMethod, TowerView } from './method';
import { LAYER, POSITIONS, SHARE } from './options';
import { perPlane } from './planes';
import { budget, topK } from './top_k';
import { strided } from './uniform';
import { addRow, dot, takeRows, unitRows, without } from './vectors';

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
  const given = checkOptions(name, options, { prefillSparsity: SHARE, layer: LAYER, positions: POSITIONS });
  const { prefillSparsity, layer = -1, positions = 'original' } = given;
  const select = (plane: TowerView): Selection => {
    const sum = plane.salience().reduce((total, s) => total + s, 0);
    const a = plane.salience().map((s) => s / sum);
    const adaptive = Math.max(1, outliers(a)) * (1 + spread) + 1;
    const kept = Math.min(a.length, prefillSparsity === undefined ? adaptive : budget(a.length, prefillSparsity));
    return kept === a.length ? without(kept, []) : merge(plane, a, choose(a, Math.max(1, kept - 1), spread), kept);
  };
  return {
    name,
    positions,
    prune: { taps: { salience: [layer], keys: [layer] }, scope: 'plane', select: perPlane(select) },
  };
}

/** The most attended tokens and, for each, `spread` evenly spaced others. */
function choose(a: Float32Array, count: number, spread: number): Int32Array {
  const salient = topK(a, Math.max(1, Math.round(count / (1 + spread))));
  const rest = without(a.length, salient);
  const even = strided(rest.length, count - salient.length).map((i) => rest[i] as number);
  return Int32Array.from([...salient, ...even]).sort();
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

/** Number of values above Q3 + 1.5 (Q3 - Q1); quartiles are interpolated. */
function outliers(values: Float32Array): number {
  const sorted = values.slice().sort();
  const quartile = (q: number): number => {
    const at = (q / 4) * (sorted.length - 1);
    const low = sorted[Math.floor(at)] as number;
    return low + ((sorted[Math.ceil(at)] as number) - low) * (at % 1);
  };
  return values.filter((value) => value > 2.5 * quartile(3) - 1.5 * quartile(1)).length;
}
