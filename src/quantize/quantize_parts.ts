// `quantize` of any parts of a checkpoint: the vision tower and the projector first, which are quick, then the decoder, then all
// under the final name. Everything is made in one work folder, so that the same call continues an interrupted one. Knows no searches.

import { createHash } from 'node:crypto';
import { statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { SparseVilaError } from '../errors';
import { writeError } from '../runtime/atomic';
import { type CalibrationSample, readCalibration, readCalibrationBytes, spread } from './calibration';
import { copyTree } from './copy_tree';
import { isWeightFile } from './export';
import { keepTemplate } from './layout';
import {
  type CheckedOptions,
  checkedDecoderConfig,
  checkQuantizeOptions,
  DECODER_MODULES,
  decoderFolder,
  inputsOf,
  invalid,
  MODULES,
  type Module,
  packagedScenes,
} from './options';
import { type QuantizeOptions, type QuantizeResult, quantize } from './quantize';
import type { GroupError } from './quantize_layer';
import {
  checkedProjectorLayers,
  PROJECTOR,
  type QuantizeProjectorResult,
  quantizeProjector,
} from './quantize_projector';
import { checkedTowerShapes, type QuantizeTowerResult, quantizeTower, TOWER_BLOCK_STEP } from './quantize_tower';
import { type SmoothTowerResult, smoothTower } from './smooth_tower';
import { openTensors } from './tensors';
import { checkedTowerConfig, TOWER } from './tower';
import { openWorkFolder, type WorkFolder } from './work_folder';

/** What else than 4 bits can be made of a vision tower: 8-bit weights and activations. */
export const TOWER_FORMATS = ['w8a8'] as const;
export type TowerFormat = (typeof TOWER_FORMATS)[number];

export interface QuantizePartsOptions extends QuantizeOptions {
  /** The tower in 8 bits, where `modules` does not name it. */
  readonly tower?: TowerFormat | undefined;
}

export interface QuantizePartsResult extends QuantizeResult {
  readonly tower: SmoothTowerResult | QuantizeTowerResult | undefined;
  readonly projector: QuantizeProjectorResult | undefined;
}

const DECODER_STEP = 'decoder';

/**
 * `quantize` of all `modules`; tower and projector are calibrated on the pictures of the same conversations.
 * @throws SparseVilaError what `quantize`, `quantizeTower`, `quantizeProjector` and `smoothTower` throw; `signal.reason`
 */
export async function quantizeParts(all: QuantizePartsOptions): Promise<QuantizePartsResult> {
  const { tower, ...given } = { ...all };
  const options = checkQuantizeOptions(given, MODULES);
  const { modules } = options;
  checkTower(tower, modules);
  const ofDecoder = modules.filter((module) => (DECODER_MODULES as readonly Module[]).includes(module));
  if (tower === undefined && ofDecoder.length === modules.length)
    return { ...(await quantize(given)), tower: undefined, projector: undefined };
  checkParts(options, tower, ofDecoder);
  const { model, signal, onProgress } = given;
  const samples = spread(conversationsOf(given, options, tower), options.samples);
  const pictures = { model, samples, signal, onProgress };
  const work = openWorkFolder(options.out, keyOf(given, tower), inputsOf(given));
  try {
    const made = [...work.finished.keys()].filter((name) => TOWER_BLOCK_STEP.test(name)).length;
    const towerFolder = join(work.folder, TOWER);
    const quantizedTower = modules.includes('tower')
      ? await step(work, TOWER, () => quantizeTower(pictures, options, work, towerFolder))
      : tower && (await step(work, TOWER, () => smoothTower(pictures, towerFolder)));
    const projector = modules.includes('projector')
      ? await step(work, PROJECTOR, () => quantizeProjector(pictures, options, join(work.folder, PROJECTOR)))
      : undefined;
    const decoder = await decoderStep(given, ofDecoder, work);
    const parts = [...(quantizedTower ? [TOWER] : []), ...(projector ? [PROJECTOR] : [])];
    await install(work, ofDecoder.length > 0 ? join(work.folder, DECODER_STEP) : model, parts, signal);
    const resumed = made + decoder.resumed;
    return { ...decoder, resumed, out: resolve(options.out), tower: quantizedTower, projector };
  } catch (error) {
    throw writeError(error, work.folder);
  } finally {
    work.close();
  }
}

/** What the searches did to each group of matrices that is scaled together, with a name for people. */
export function searchedGroups({ layers, tower, projector }: QuantizePartsResult): readonly GroupError[] {
  const named = (place: string, errors: readonly GroupError[]): GroupError[] =>
    errors.map((error) => ({ ...error, group: `${place}, ${error.group}` }));
  const blocks = tower !== undefined && 'errors' in tower ? tower.errors : [];
  return [
    ...blocks.flatMap((errors, block) => named(`tower block ${block}`, errors)),
    ...named('projector', projector?.errors ?? []),
    ...layers.flatMap(({ layer, errors }) => named(`layer ${layer}`, errors)),
  ];
}

/** @throws SparseVilaError `ERR_OPTION_INVALID` */
function checkTower(tower: TowerFormat | undefined, modules: readonly Module[]): void {
  if (tower !== undefined && !TOWER_FORMATS.includes(tower)) {
    const { message } = invalid('tower', TOWER_FORMATS.join(' or '), tower);
    throw new SparseVilaError('ERR_OPTION_INVALID', `${message} For 4 bits name the tower among modules.`);
  }
  if (tower !== undefined && modules.includes('tower'))
    throw invalid('the tower', 'either 4 bits (modules) or 8 bits (tower)', 'both');
}

/** Everything that can be known to be wrong before there is a folder. */
function checkParts(options: CheckedOptions, tower: TowerFormat | undefined, ofDecoder: readonly Module[]): void {
  const folder = decoderFolder(options.model);
  if (ofDecoder.length > 0) checkedDecoderConfig(folder, options);
  if (tower !== undefined) checkedTowerConfig(options.model);
  if (options.modules.includes('tower')) checkedTowerShapes(options.model, options);
  if (options.modules.includes('projector')) checkedProjectorLayers(options.model, options);
}

/** What is calibrated on; nothing where all is rounded to nearest. */
function conversationsOf(
  { calibration: file }: QuantizeOptions,
  { method }: CheckedOptions,
  tower: TowerFormat | undefined,
): CalibrationSample[] {
  if (method === 'rtn' && tower === undefined) return [];
  return file === undefined ? packagedScenes('calibration') : readCalibration(file);
}

async function decoderStep(
  given: QuantizeOptions,
  modules: readonly Module[],
  work: WorkFolder,
): Promise<Omit<QuantizeResult, 'out'>> {
  if (modules.length === 0) return { layers: [], calibration: undefined, resumed: 0 };
  return step(work, DECODER_STEP, async () => {
    const out = join(work.folder, DECODER_STEP);
    // A process killed after `quantize` and before it is recorded leaves a whole folder that no record tells of.
    await rm(out, { recursive: true, force: true });
    return quantize({ ...given, modules, out });
  });
}

/** What a step gives, now or in an earlier run. */
async function step<T>(work: WorkFolder, name: string, run: () => Promise<T>): Promise<T> {
  if (work.finished.has(name)) return work.finished.get(name) as T;
  const result = await run();
  work.finish(name, result);
  return result;
}

/** The checkpoint in `from`, but for `parts`, which are taken from the work folder. */
async function install(
  work: WorkFolder,
  from: string,
  parts: readonly string[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const skip = (path: string): boolean =>
    parts.some(
      (part) => path === join(part, 'config.json') || (path.startsWith(join(part, '/')) && isWeightFile(path)),
    );
  await work.install(async (folder) => {
    await copyTree(from, folder, { skip, signal });
    keepTemplate(from, folder);
    for (const part of parts) {
      await copyTree(join(work.folder, part), join(folder, part), { skip: () => false, signal });
      openTensors(join(folder, part)); // reads back what the headers say
    }
  });
}

/** Of what a run depends on: a resumed run must have the same. */
function keyOf(given: QuantizeOptions, tower: TowerFormat | undefined): string {
  const { out: _, model, calibration, signal: __, onProgress: ___, ...rest } = given;
  const hash = createHash('sha256').update(JSON.stringify([tower, rest]));
  if (calibration !== undefined) hash.update(readCalibrationBytes(calibration));
  for (const folder of [join(model, TOWER), join(model, PROJECTOR), decoderFolder(model)]) {
    const files = new Set([...openTensors(folder).entries.values()].map(({ file }) => file));
    for (const file of [...files].sort()) {
      const { size, mtimeMs } = statSync(file);
      hash.update(JSON.stringify([size, mtimeMs]));
    }
  }
  return hash.digest('hex');
}
