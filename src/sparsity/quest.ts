// Quest-style pages (after Tang et al., arXiv 2406.10774): retrieves whole pages; a page is one row of a grid's plane.
// Stage: decode. Query-aware: yes. Safe for later turns: yes, every row stays in the cache.
// Differences: a page's score is the largest relevance in it, computed once per turn for all heads, where Quest bounds it from channelwise
// extremes of the keys at every step and head; the last page is cut to the budget by relevance.

import { checkOptions } from '../options';
import type { SparsityMethod, VisualPlace } from './method';
import { SHARE } from './options';
import { budget, ranked, topK } from './top_k';

export interface QuestOptions {
  /** Share of the visual rows that decoding leaves out; default 0.75. */
  readonly decodeSparsity?: number;
}

export function quest(options: QuestOptions = {}): SparsityMethod {
  const given = checkOptions('quest', options, { decodeSparsity: SHARE });
  const { decodeSparsity = 0.75 } = given;
  return {
    name: 'quest',
    retrieve: {
      select: (relevance, _, places) => topPages(relevance, places, budget(relevance.length, decodeSparsity)),
    },
  };
}

function topPages(relevance: Float32Array, places: readonly VisualPlace[], kept: number): Int32Array {
  const pages = new Map<string, number[]>();
  for (const [i, { medium, grid, t, row }] of places.entries()) {
    const key = `${medium} ${grid} ${t} ${row}`;
    const page = pages.get(key);
    if (page === undefined) pages.set(key, [i]);
    else page.push(i);
  }
  const members = [...pages.values()];
  const scores = Float32Array.from(members, (page) =>
    page.reduce((most, i) => Math.max(most, relevance[i] as number), Number.NEGATIVE_INFINITY),
  );
  const chosen: number[] = [];
  for (const at of ranked(scores)) {
    const page = members[at] as number[];
    const best = topK(
      Float32Array.from(page, (i) => relevance[i] as number),
      Math.min(page.length, kept - chosen.length),
    );
    for (const i of best) chosen.push(page[i] as number);
  }
  return Int32Array.from(chosen).sort();
}
