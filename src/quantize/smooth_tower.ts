// The vision tower of a VILA checkpoint in 8 bits, weights and activations (W8A8): SmoothQuant on what the two norms of every
// block feed, plain rounding of out_proj and fc2; patch embedding, positions, projector untouched. Memory: while pictures are read,
// the loaded model; then their pixels, one hidden state of each (f32 [n, e]), one block in f32, and the 8-bit blocks made.
// Source: SmoothQuant (arXiv 2211.10438), llm-awq `awq/quantize/smooth.py`; files as compressed-tensors' int-quantized.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { SparseVilaError } from '../errors';
import { type Json, readJson } from '../json';
import { breather } from '../models/breath';
import { parseSiglipConfig, type SiglipConfig } from '../models/config';
import { loadModel } from '../models/load';
import { readQuantization } from '../models/quantized_config';
import { canonicalTowerName, siglipTower, UNUSED_TOWER_WEIGHTS } from '../models/vit';
import { openWeights } from '../models/weights';
import { float32, floats } from '../ops/run';
import type { OnProgress } from '../runtime/progress';
import { type CalibrationSample, withSample } from './calibration';
import { writeCheckpoint, writeJson } from './export';
import type { TensorSource } from './safetensors_writer';
import { dividedNorm, multipliedInputs, roundToInt8, smoothingScales, takeLargest } from './smooth';
import {
  floatTowerBlock,
  readTowerBlock,
  TOWER_LINEAR_NAMES,
  TOWER_LINEARS,
  TOWER_NORM_NAMES,
  TOWER_NORMS,
  type TowerBlock,
  type TowerNorm,
} from './smooth_block';
import { openTensors, type Tensors } from './tensors';

/** The folder of the tower in a VILA checkpoint. */
export const TOWER = 'vision_tower';

export interface SmoothTowerOptions {
  /** Folder of a checkpoint whose tower is in floating point. */
  readonly model: string;
  /** Their pictures are calibrated on. */
  readonly samples: readonly CalibrationSample[];
  /** Default true. False rounds the weights as they are and looks at no picture. */
  readonly smoothing?: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

export interface SmoothTowerResult {
  readonly blocks: number;
  /** Pictures calibrated on. */
  readonly images: number;
}

/** max|y_c| of each norm's output over the calibration set, f32 [e]. */
type Largest = Readonly<Record<TowerNorm, Float32Array>>;

/**
 * Writes the 8-bit tower of `model` into `folder`: model.safetensors (or shards) and config.json.
 * @throws SparseVilaError `ERR_ALREADY_QUANTIZED`, `ERR_CALIBRATION` (no pictures, or one that cannot be read), `ERR_NOT_FINITE`,
 *   `ERR_WEIGHT_…`, `ERR_CONFIG_…`, `ERR_DISK_FULL`, and what loading throws; `signal.reason`
 */
export async function smoothTower(options: SmoothTowerOptions, folder: string): Promise<SmoothTowerResult> {
  const { model, smoothing = true, signal, onProgress = () => undefined } = options;
  const source = join(model, TOWER);
  const config = checkedTowerConfig(model);
  const tensors = openTensors(source);
  const names = new Map([...tensors.entries.keys()].map((name) => [canonicalTowerName(name), name]));
  const fileName = (name: string): string => names.get(name) ?? name;
  const states = smoothing ? await embeddedPictures(options, config) : [];
  const made = new Map<string, TensorSource[]>();
  const breathe = breather(signal);
  for (let i = 0; i < config.layers; i++) {
    const block = readTowerBlock((name, shape) => tensors.floats(fileName(name), shape), config, i);
    const largest = smoothing ? await advance(block, config, states, i, breathe) : undefined;
    for (const [name, parts] of quantizedBlock(block, largest, (part) => fileName(`encoder.layers.${i}.${part}`)))
      made.set(name, parts);
    onProgress({ step: 'quantise tower', done: i + 1, total: config.layers, unit: 'blocks' });
    await breathe();
  }
  const all = [...tensors.entries.keys()].flatMap((name) => made.get(name) ?? [tensors.copy(name)]);
  await mkdir(folder, { recursive: true });
  await writeCheckpoint(folder, all, { signal });
  await writeJson(
    join(folder, 'config.json'),
    w8a8Config(readJson(join(source, 'config.json')), floatLinears(tensors)),
  );
  return { blocks: config.layers, images: states.length };
}

/** The tower's config. @throws SparseVilaError `ERR_ALREADY_QUANTIZED`, `ERR_CONFIG_…` */
export function checkedTowerConfig(model: string): SiglipConfig {
  const file = join(model, TOWER, 'config.json');
  if (readQuantization(join(model, TOWER)) !== undefined) {
    throw new SparseVilaError(
      'ERR_ALREADY_QUANTIZED',
      `${file}: this vision tower is quantised already. Quantise its float original, or leave the tower alone.`,
    );
  }
  return parseSiglipConfig(readJson(file), file);
}

/** The pictures as they enter the first block, f32 [n, e] each. */
async function embeddedPictures(
  { model: folder, samples, signal, onProgress = () => undefined }: SmoothTowerOptions,
  config: SiglipConfig,
): Promise<Float32Array[]> {
  const paths = [...new Set(samples.flatMap(({ images }) => images))];
  if (paths.length === 0) {
    throw new SparseVilaError(
      'ERR_CALIBRATION',
      'Expected pictures to calibrate the vision tower on, but the calibration set has none.',
    );
  }
  const pixels: Float32Array[] = [];
  const model = await loadModel(folder, { onProgress, ...(signal === undefined ? {} : { signal }) });
  try {
    for (const path of paths) {
      onProgress({ step: 'read pictures', done: pixels.length, total: paths.length, unit: 'pictures' });
      const sample = { images: [path], turns: [] };
      pixels.push((await withSample(sample, () => model.prepareImage(path, signal))).pixels);
    }
  } finally {
    model.dispose();
  }
  const weights = openWeights(join(folder, TOWER), { rename: canonicalTowerName, ignore: UNUSED_TOWER_WEIGHTS });
  try {
    const breathe = breather(signal);
    const embedding = await siglipTower({ ...config, layers: 0 }, weights, 0, breathe);
    const states: Float32Array[] = [];
    for (const picture of pixels) {
      const { features } = await embedding.run(picture, {}, breathe);
      states.push(floats(features).slice());
      features.dispose();
    }
    return states;
  } finally {
    weights.dispose();
  }
}

/** Runs every picture through float block `i`, in place. */
async function advance(
  weights: TowerBlock,
  config: SiglipConfig,
  states: Float32Array[],
  i: number,
  breathe: () => Promise<void>,
): Promise<Largest> {
  const { hiddenSize: e } = config;
  const largest = { layer_norm1: new Float32Array(e), layer_norm2: new Float32Array(e) };
  const block = floatTowerBlock(weights, config);
  try {
    for (const [s, state] of states.entries()) {
      const x = float32(state, [state.length / e, e]);
      const y = block.run(x, (norm, output) => takeLargest(largest[norm], floats(output)));
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
  return largest;
}

/** The tensors that stand in for those of a block, by the name in the file; `largest` undefined: no smoothing. */
function quantizedBlock(
  { norms, linears }: TowerBlock,
  largest: Largest | undefined,
  fileName: (part: string) => string,
): Map<string, TensorSource[]> {
  const made = new Map<string, TensorSource[]>();
  const smoothed = { ...linears };
  for (const norm of largest === undefined ? [] : TOWER_NORM_NAMES) {
    const fed = TOWER_NORMS[norm];
    const s = smoothingScales(
      (largest as Largest)[norm],
      fed.map((name) => linears[name]),
    );
    for (const name of fed) smoothed[name] = multipliedInputs(linears[name], s);
    // In f32, so that norm and weights are of the same s.
    for (const [part, values] of Object.entries(dividedNorm(norms[norm], s))) {
      const name = fileName(`${norm}.${part}`);
      made.set(name, [source(name, 'F32', [values.length], values)]);
    }
  }
  for (const linear of TOWER_LINEARS) {
    const { rows, cols, q, scale } = roundToInt8(smoothed[linear]);
    const name = fileName(`${TOWER_LINEAR_NAMES[linear]}.weight`);
    made.set(name, [source(name, 'I8', [rows, cols], q), source(`${name}_scale`, 'F32', [rows, 1], scale)]);
  }
  return made;
}

function source(
  name: string,
  dtype: 'F32' | 'I8',
  shape: readonly number[],
  { buffer, byteOffset, byteLength }: Float32Array | Int8Array,
): TensorSource {
  return { name, dtype, shape, byteLength, bytes: () => new Uint8Array(buffer, byteOffset, byteLength) };
}

/** Linear layers that stay as they are: those of a pooling head. */
function floatLinears({ entries }: Tensors): string[] {
  const isHead = (name: string): boolean => /^head\..*\.weight$/.test(canonicalTowerName(name));
  const names = [...entries.values()].filter(({ name, shape }) => isHead(name) && shape.length === 2);
  return names.map(({ name }) => name.slice(0, -'.weight'.length));
}

/** A config with the `quantization_config` of compressed-tensors' int-quantized, 8-bit weights and dynamic 8-bit activations. */
function w8a8Config(config: Json, ignore: readonly string[]): Json {
  const common = { num_bits: 8, type: 'int', symmetric: true, group_size: null };
  return {
    ...config,
    quantization_config: {
      quant_method: 'compressed-tensors',
      format: 'int-quantized',
      quantization_status: 'compressed',
      config_groups: {
        group_0: {
          targets: ['Linear'],
          weights: { ...common, strategy: 'channel', dynamic: false, actorder: null },
          input_activations: { ...common, strategy: 'token', dynamic: true },
          output_activations: null,
        },
      },
      ignore,
      kv_cache_scheme: null,
    },
  };
}
