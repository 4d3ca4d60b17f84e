// A float SigLIP tower of a VILA checkpoint as something to quantise: its blocks, the pictures that enter them, and a folder with some
// tensors replaced. Memory: while pictures are read, the loaded model; then one hidden state of each (f32 [n, e]) and one
// block in f32. Knows no rounding.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { SparseVilaError } from '../errors';
import type { Json } from '../json';
import { openPart } from '../models/assemble';
import { breather } from '../models/breath';
import { loadRowModel, planOf } from '../models/load';
import type { PreparedMedium } from '../models/media';
import type { EncodedMedium, RowModel } from '../models/model';
import { patchValues, pixelTables } from '../models/patches';
import { readQuantization } from '../models/quantized_config';
import { buildTower, type TowerConfig } from '../models/tower';
import { float32, floats } from '../ops/run';
import type { OnProgress } from '../runtime/progress';
import type { Tensor } from '../runtime/tensor';
import { type CalibrationSample, withSample } from './calibration';
import { mergedTensors, writeCheckpoint, writeJson } from './export';
import type { TensorSource } from './safetensors_writer';
import { openTensors, type Tensors } from './tensors';
import { floatTowerBlock, readTowerBlock, type TowerBlock, type TowerSite } from './tower_block';

/** `vision_model.encoder…`, `encoder…` and `vision_tower.vision_model.encoder…` are one. */
export const canonicalTowerName = (name: string): string => name.replace(/^(vision_tower\.)?(vision_model\.)?/, '');

/** The folder of the tower in a VILA checkpoint. */
export const TOWER = 'vision_tower';

/** What calibrating on pictures takes. */
export interface PictureOptions {
  /** Folder of the checkpoint. */
  readonly model: string;
  /** Their pictures are calibrated on. */
  readonly samples: readonly CalibrationSample[];
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

export interface Tower {
  readonly config: TowerConfig;
  readonly tensors: Tensors;
  /** The name in the file of a canonical one. */
  fileName(name: string): string;
  block(i: number): TowerBlock;
}

/** Opens the tower of `model`. @throws SparseVilaError as `checkedTowerConfig`; `ERR_CHECKPOINT_…` */
export function openTower(model: string): Tower {
  const config = checkedTowerConfig(model);
  const tensors = openTensors(join(model, TOWER));
  const names = new Map([...tensors.entries.keys()].map((name) => [canonicalTowerName(name), name]));
  const fileName = (name: string): string => names.get(name) ?? name;
  const read = (name: string, shape: readonly number[]): Float32Array => tensors.floats(fileName(name), shape);
  return { config, tensors, fileName, block: (i) => readTowerBlock(read, config, i) };
}

/** The tower's config. @throws SparseVilaError `ERR_ALREADY_QUANTIZED`, `ERR_CONFIG_…` */
export function checkedTowerConfig(model: string): TowerConfig {
  const file = join(model, TOWER, 'config.json');
  if (readQuantization(join(model, TOWER)) !== undefined) {
    throw new SparseVilaError(
      'ERR_ALREADY_QUANTIZED',
      `${file}: this vision tower is quantised already. Quantise its float original, or leave the tower alone.`,
    );
  }
  return planOf(model).tower;
}

/**
 * What `see` makes of each picture of the calibration set, once each, with the loaded model.
 * @throws SparseVilaError `ERR_CALIBRATION` (no pictures, or one that cannot be read), and what loading throws; `signal.reason`
 */
export async function fromPictures<T>(
  { model: folder, samples, signal, onProgress = () => undefined }: PictureOptions,
  see: (model: RowModel, path: string) => Promise<T>,
): Promise<T[]> {
  const paths = [...new Set(samples.flatMap(({ images }) => images))];
  if (paths.length === 0) {
    throw new SparseVilaError(
      'ERR_CALIBRATION',
      'Expected pictures to calibrate the vision tower or the projector on, but the calibration set has none.',
    );
  }
  const found: T[] = [];
  const model = await loadRowModel(folder, { onProgress, ...(signal === undefined ? {} : { signal }) });
  try {
    for (const path of paths) {
      onProgress({ step: 'read pictures', done: found.length, total: paths.length, unit: 'pictures' });
      found.push(await withSample({ images: [path], turns: [] }, () => see(model, path)));
    }
    return found;
  } finally {
    model.dispose();
  }
}

/** What the model's tower makes of a picture. */
export async function encodePicture(model: RowModel, path: string, signal?: AbortSignal): Promise<EncodedMedium> {
  const [medium] = await model.prepare([{ kind: 'image', image: path }], signal);
  return model.encode(medium as PreparedMedium, { breathe: breather(signal) });
}

/** The segments of all pictures (a picture, or each of its tiles) as they enter the first block, f32 [n, e] each. @throws as `fromPictures` */
export async function embeddedPictures(options: PictureOptions, config: TowerConfig): Promise<Float32Array[]> {
  const { model: folder, signal } = options;
  const media = await fromPictures(options, (model, path) => model.prepare([{ kind: 'image', image: path }], signal));
  const plan = planOf(folder);
  const weights = openPart(plan, 'tower', {});
  try {
    const breathe = breather(signal);
    const embedding = await buildTower({ ...config, layers: 0, depth: 0 }, weights, breathe);
    const tables = pixelTables(plan.pixels);
    const states: Float32Array[] = [];
    for (const { layout, canvases } of media.flat()) {
      const size = config.patchSize;
      const values = (begin: number, end: number) =>
        patchValues(canvases, layout.patches, { begin, end, size }, tables);
      const { features } = await embedding.run(layout.patches, values, {}, breathe);
      const all = floats(features).slice();
      features.dispose();
      const each = all.length / (layout.patches.segments.length - 1);
      for (let at = 0; at < all.length; at += each) states.push(all.slice(at, at + each));
    }
    return states;
  } finally {
    weights.dispose();
  }
}

/** Runs every picture through float block `i`, in place; `see` receives the inputs of its linear layers. */
export async function advancePictures(
  weights: TowerBlock,
  config: TowerConfig,
  states: Float32Array[],
  i: number,
  see: (picture: number, site: TowerSite, input: Tensor) => void,
  breathe: () => Promise<void>,
): Promise<void> {
  const { hiddenSize: e } = config;
  const block = floatTowerBlock(weights, config);
  try {
    for (const [s, state] of states.entries()) {
      const x = float32(state, [state.length / e, e]);
      const y = block.run(x, (site, input) => see(s, site, input));
      const next = floats(y).slice();
      x.dispose();
      y.dispose();
      if (!next.every(Number.isFinite)) {
        throw new SparseVilaError(
          'ERR_NOT_FINITE',
          `Block ${i} of the float vision tower gives NaN or infinity for calibration picture ${s + 1}. Are the weights whole?`,
        );
      }
      states[s] = next;
      await breathe();
    }
  } finally {
    block.dispose();
  }
}

/** Writes a part's weights into `folder`, some replaced as `mergedTensors` has it, and its config. */
export async function writePart(
  folder: string,
  tensors: Tensors,
  replaced: readonly TensorSource[],
  config: Json,
  signal: AbortSignal | undefined,
): Promise<void> {
  const all = mergedTensors(tensors, new Map(replaced.map((source) => [source.name, source])));
  await mkdir(folder, { recursive: true });
  await writeCheckpoint(folder, all, { signal });
  writeJson(join(folder, 'config.json'), config);
}

/** Linear layers of a tower that stay as they are: those of a pooling head. */
export function headLinears({ entries }: Tensors): string[] {
  const isHead = (name: string): boolean => /^head\..*\.weight$/.test(canonicalTowerName(name));
  const names = [...entries.values()].filter(({ name, shape }) => isHead(name) && shape.length === 2);
  return names.map(({ name }) => name.slice(0, -'.weight'.length));
}

/** f32 values as something to write. */
export function floatSource(name: string, values: Float32Array): TensorSource {
  const { length, buffer, byteOffset, byteLength } = values;
  return {
    name,
    dtype: 'F32',
    shape: [length],
    byteLength,
    bytes: () => new Uint8Array(buffer, byteOffset, byteLength),
  };
}
