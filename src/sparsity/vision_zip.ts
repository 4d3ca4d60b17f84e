// VisionZip (Yang et al., arXiv 2412.04467): keeps dominant tokens by the tower's attention, and contextual tokens into which the others are
// merged by the similarity of their keys.
// Stage: tower. Query-aware: no. Safe for later turns: yes, for what the kept tokens show.
// Differences: towers without a CLS token use the column mean, as in the paper; contextual tokens take the places of their targets, in raster
// order, and do not follow the dominant ones.

import { checkOptions } from '../options';
import type { Matrix, Selection, SparsityMethod, TowerView } from './method';
import { LAYER, PRUNING, SHARE } from './options';
import { perPlaneBudget } from './planes';
import { roundHalfEven, topK } from './top_k';
import { addRow, meansOf, nearest, takeRows, unitRows, without } from './vectors';

export interface VisionZipOptions {
  /** Share of visual tokens dropped after the tower; default 8/9, 64 of 576. */
  readonly prefillSparsity?: number;
  /** Share of the kept tokens that are contextual; default 10/64. */
  readonly contextual?: number;
  /** Tower layer of attention and keys; default -2. */
  readonly layer?: number;
  readonly positions?: 'original' | 'compact';
}

/** Dominant: top D of s. Of the M others, every floor(M / C)-th is a target t, and the rest merge into the most similar: h_t + mean of h. */
export function visionZip(options: VisionZipOptions = {}): SparsityMethod {
  const given = checkOptions('visionZip', options, { ...PRUNING, contextual: SHARE, layer: LAYER });
  const { prefillSparsity = 8 / 9, contextual = 10 / 64, layer = -2, positions = 'original' } = given;
  return {
    name: 'visionzip',
    positions,
    prune: {
      taps: { salience: [layer], keys: [layer] },
      scope: 'plane',
      select: perPlaneBudget(prefillSparsity, (plane, kept) => zip(plane, kept, contextual)),
    },
  };
}

function zip(plane: TowerView, kept: number, contextual: number): Selection {
  const targetCount = Math.min(kept - 1, roundHalfEven(kept * contextual));
  const dominant = topK(plane.salience(), kept - targetCount);
  const others = without(plane.tokens, dominant);
  if (targetCount <= 0 || others.length === targetCount)
    return Int32Array.from([...dominant, ...others.subarray(0, Math.max(0, targetCount))]).sort();
  const step = Math.floor(others.length / targetCount);
  const targets = others.filter((_, i) => i % step === 0).subarray(0, targetCount);
  const indices = Int32Array.from([...dominant, ...targets]).sort();
  const features = plane.features();
  const keys = unitRows(headMean(plane.keys(), plane.tokens));
  const groups: number[][] = Array.from(targets, () => []);
  for (const token of without(plane.tokens, indices)) groups[nearest(keys, token, targets)]?.push(token);
  const rows = takeRows(features, indices);
  const means = { data: meansOf(features, groups), width: features.width };
  for (const [i, target] of targets.entries()) addRow(rows, indices.indexOf(target), means, i, 1);
  return { kept: indices, rows };
}

/** Mean over heads, f32 [tokens, c]. */
function headMean(keys: Matrix, tokens: number): Matrix {
  const heads = keys.data.length / keys.width / tokens;
  const mean = new Float32Array(tokens * keys.width);
  for (let i = 0; i < tokens * heads; i++) addRow(mean, Math.floor(i / heads), keys, i, 1 / heads);
  return { data: mean, width: keys.width };
}
