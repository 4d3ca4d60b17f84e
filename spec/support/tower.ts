// The vision tower of a checkpoint alone, for outputs that a model's `encode` merges before returning them.

import { openPart } from '../../src/models/assemble';
import { planOf } from '../../src/models/load';
import type { PreparedMedium } from '../../src/models/media';
import { patchValues, pixelTables } from '../../src/models/patches';
import { buildTower, type TowerConfig, type TowerOutput, type TowerTaps } from '../../src/models/tower';
import { frameMemory, type ReuseRule } from '../../src/models/tower_reuse';
import { pause } from './media';

/** What the tower gives for a medium, by default with the salience of its last layer. The caller disposes of the features. */
export async function runTower(
  folder: string,
  { layout, canvases }: PreparedMedium,
  taps: TowerTaps = { salience: [-1] },
  change: Partial<TowerConfig> = {},
  reuse?: ReuseRule,
): Promise<TowerOutput> {
  const plan = planOf(folder);
  const weights = openPart(plan, 'tower', {});
  const memory = reuse && frameMemory(plan.family, plan.tower, reuse);
  try {
    const tower = await buildTower({ ...plan.tower, ...change }, weights, pause);
    if (change.layers === undefined) weights.close();
    const tables = pixelTables(plan.pixels);
    const values = (begin: number, end: number) =>
      patchValues(canvases, layout.patches, { begin, end }, plan.tower, tables);
    return await tower.run(layout.patches, values, taps, pause, memory);
  } finally {
    memory?.dispose();
    weights.dispose();
  }
}
