// The vision tower of a VILA checkpoint by itself, for what the model's own `encodeImage` merges before it gives it out.

import { join } from 'node:path';
import { readJson } from '../../src/json';
import { breather } from '../../src/models/breath';
import { parseSiglipConfig } from '../../src/models/config';
import { canonicalTowerName, siglipTower, type TowerOutput, UNUSED_TOWER_WEIGHTS } from '../../src/models/vit';
import { openWeights } from '../../src/models/weights';

/** What the tower gives for pixels f32 [3, size, size], salience of its last layer. The caller disposes of the features. */
export async function runTower(folder: string, pixels: Float32Array): Promise<TowerOutput & { readonly grid: number }> {
  const file = join(folder, 'vision_tower/config.json');
  const selectLayer = readJson(join(folder, 'config.json')).mm_vision_select_layer ?? -2;
  const weights = openWeights(join(folder, 'vision_tower'), {
    rename: canonicalTowerName,
    ignore: UNUSED_TOWER_WEIGHTS,
  });
  try {
    const config = parseSiglipConfig(readJson(file), file);
    const tower = await siglipTower(config, weights, Number(selectLayer), async () => undefined);
    weights.close();
    return { ...(await tower.run(pixels, { salience: [-1] }, breather())), grid: tower.grid };
  } finally {
    weights.dispose();
  }
}
