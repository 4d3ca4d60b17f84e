// `quantize` with the vision tower as well: the tower first, which is quick, then the decoder, then both under the final name.
// Everything is made in one work folder, so that the same call continues an interrupted one. Knows no searches.

import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { SparseVilaError } from '../errors';
import { readCalibration, spread } from './calibration';
import { copyTree, isWeightFile } from './export';
import { checkedDecoderConfig, checkQuantizeOptions, decoderFolder, packagedScenes } from './options';
import { type QuantizeOptions, type QuantizeResult, quantize } from './quantize';
import { checkedTowerConfig, type SmoothTowerResult, smoothTower, TOWER } from './smooth_tower';
import { openTensors } from './tensors';
import { openWorkFolder, type WorkFolder } from './work_folder';

/** What can be made of a vision tower: 8-bit weights and activations. */
export const TOWER_FORMATS = ['w8a8'] as const;
export type TowerFormat = (typeof TOWER_FORMATS)[number];

export interface TowerQuantizeOptions extends QuantizeOptions {
  /** Default: the tower is left alone. */
  readonly tower?: TowerFormat | undefined;
}

export interface TowerQuantizeResult extends QuantizeResult {
  readonly tower: SmoothTowerResult | undefined;
}

const TOWER_STEP = 'tower';
const DECODER_STEP = 'decoder';

/**
 * `quantize`, and with `tower` the vision tower as well, calibrated on the pictures of the same conversations.
 * @throws SparseVilaError what `quantize` and `smoothTower` throw; `signal.reason`
 */
export async function quantizeWithTower({ tower, ...given }: TowerQuantizeOptions): Promise<TowerQuantizeResult> {
  if (tower === undefined) return { ...(await quantize(given)), tower: undefined };
  if (!TOWER_FORMATS.includes(tower)) {
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected ${TOWER_FORMATS.join(' or ')} for tower, received ${String(tower)}.`,
    );
  }
  const options = checkQuantizeOptions(given);
  checkedDecoderConfig(decoderFolder(options.model), options);
  checkedTowerConfig(options.model);
  const { model, calibration: file, signal, onProgress } = given;
  const conversations = file === undefined ? packagedScenes('calibration') : readCalibration(file);
  const work = openWorkFolder(options.out, keyOf(given, tower));
  try {
    const samples = spread(conversations, options.samples);
    const folder = join(work.folder, TOWER_STEP);
    const smoothed = await step(work, TOWER_STEP, () => smoothTower({ model, samples, signal, onProgress }, folder));
    const out = join(work.folder, DECODER_STEP);
    const result = await step(work, DECODER_STEP, async () => {
      // A process killed after `quantize` and before it is recorded leaves a whole folder that no record tells of.
      await rm(out, { recursive: true, force: true });
      return quantize({ ...given, out });
    });
    await install(work, signal);
    return { ...result, out: resolve(options.out), tower: smoothed };
  } finally {
    work.close();
  }
}

/** What a step gives, now or in an earlier run. */
async function step<T>(work: WorkFolder, name: string, run: () => Promise<T>): Promise<T> {
  if (work.finished.has(name)) return work.finished.get(name) as T;
  const result = await run();
  work.finish(name, result);
  return result;
}

/** The checkpoint with the quantised decoder, but for its tower. */
async function install(work: WorkFolder, signal: AbortSignal | undefined): Promise<void> {
  const config = join(TOWER, 'config.json');
  const skip = (path: string): boolean => path === config || (path.startsWith(join(TOWER, '/')) && isWeightFile(path));
  await work.install(async (folder) => {
    await copyTree(join(work.folder, DECODER_STEP), folder, skip, signal);
    await copyTree(join(work.folder, TOWER_STEP), join(folder, TOWER), () => false, signal);
    openTensors(join(folder, TOWER)); // reads back what the headers say
  });
}

/** Of what a run depends on: a resumed run must have the same. */
function keyOf(given: QuantizeOptions, tower: TowerFormat): string {
  const { out: _, model, calibration, signal: __, onProgress: ___, ...rest } = given;
  const hash = createHash('sha256').update(JSON.stringify([tower, rest]));
  if (calibration !== undefined) hash.update(readFileSync(calibration));
  for (const folder of [join(model, TOWER), decoderFolder(model)]) {
    const files = new Set([...openTensors(folder).entries.values()].map(({ file }) => file));
    for (const file of [...files].sort()) {
      const { size, mtimeMs } = statSync(file);
      hash.update(JSON.stringify([size, mtimeMs]));
    }
  }
  return hash.digest('hex');
}
