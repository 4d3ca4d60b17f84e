// InfiniPot-V (Kim et al., arXiv 2506.15745): while a film is read, its rows in the KV cache shrink to a budget after every block of frames. Half of the budget
// goes to TaR, temporal-axis redundancy: all rows of the newest frames, and the older ones whose keys differ most from the newest at their place. The rest
// goes to VaN, value norm: the rows of largest values.
// Stage: prefill. Query-aware: no. Safe for later turns: yes, it never looks at a question.
// Differences: a layer keeps the same rows for all KV heads (scores are means over heads), where InfiniPot-V chooses per head; VaN is not pooled over neighbors; and
// "newest" counts the frames that are left. Rotated keys and original positions, as there.

import { COUNT, checkOptions } from '../options';
import type { BoundView, SparsityMethod } from './method';
import { SHARE } from './options';
import { roundHalfEven, topK } from './top_k';
import { dot, mean, meansOf, product, unitRows } from './vectors';

export interface InfiniPotVOptions {
  /** Frames of a film after which its rows shrink; default 32. */
  readonly block?: number;
  /** Frames whose number of rows is left; default 24. */
  readonly frames?: number;
  /** Share of the budget that TaR fills, 0 <= s < 1; default 0.5. */
  readonly tarShare?: number;
  /** Share of the frames that count as newest, 0 <= s < 1, at least one; default 0.25. */
  readonly newest?: number;
}

export function infiniPotV(options: InfiniPotVOptions = {}): SparsityMethod {
  const checks = { block: COUNT, frames: COUNT, tarShare: SHARE, newest: SHARE };
  const { block = 32, frames = 24, tarShare = 0.5, newest = 0.25 } = checkOptions('infiniPotV', options, checks);
  return {
    name: 'infinipot-v',
    bound: { every: block, frames, select: (view) => shrunk(view, tarShare, newest) },
  };
}

function shrunk(view: BoundView, tarShare: number, newest: number): Int32Array {
  const { places, budget } = view;
  const planes = [...new Set(places.map(({ t }) => t))];
  const recent = new Set(planes.slice(-Math.max(1, roundHalfEven(newest * planes.length))));
  const tar = differences(view, (t) => recent.has(t));
  const newer = tar.filter((score) => score === Number.POSITIVE_INFINITY).length;
  const first = topK(tar, Math.min(budget, Math.max(roundHalfEven(tarShare * budget), newer)));
  // What TaR has chosen comes before all values.
  const van = norms(view);
  for (const i of first) van[i] = Number.POSITIVE_INFINITY;
  return topK(van, budget);
}

/** Minus the mean, over the newest frames and heads, of the cosine of a row's key and the newest frame's key at its place; infinity for newest rows. */
function differences({ places, keys, heads }: BoundView, isRecent: (t: number) => boolean): Float32Array {
  const { data, width } = keys();
  const unit = { data: unitRows({ data, width: width / heads }).data, width };
  const placeOf = ({ grid, row, col }: BoundView['places'][number]): string => `${grid} ${row} ${col}`;
  const recent = new Map<string, number[]>();
  for (const [i, place] of places.entries())
    if (isRecent(place.t)) recent.set(placeOf(place), [...(recent.get(placeOf(place)) ?? []), i]);
  const numbers = new Map([...recent.keys()].map((place, at) => [place, at]));
  const means = { data: meansOf(unit, [...recent.values()]), width };
  return Float32Array.from(places, (place, i) => {
    const own = numbers.get(placeOf(place));
    if (isRecent(place.t)) return Number.POSITIVE_INFINITY;
    return own === undefined ? 0 : -product(unit, i, means, own) / heads;
  });
}

/** The length of each row's value, mean over heads. */
function norms({ values, heads, places }: BoundView): Float32Array {
  const { data, width } = values();
  const parts = { data, width: width / heads };
  const norm = (part: number): number => Math.sqrt(dot(parts, part, part));
  return Float32Array.from(places, (_, i) => mean(Array.from({ length: heads }, (_, head) => norm(i * heads + head))));
}
