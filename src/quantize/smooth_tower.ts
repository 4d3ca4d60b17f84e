// The vision tower of a VILA checkpoint in 8 bits, weights and activations (W8A8): SmoothQuant on what the two norms of every
// block feed, plain rounding of out_proj and fc2; patch embedding, positions, projector untouched. Memory: while pictures are read,
// the loaded model; then their pixels, one hidden state of each (f32 [n, e]), one block in f32, and the 8-bit blocks made.
// Source: SmoothQuant (arXiv 2211.10438), llm-awq `awq/quantize/smooth.py`; files as compressed-tensors' int-quantized.

import { join } from 'node:path';
import { type Json, readJson } from '../json';
import { breather } from '../models/breath';
import { floats } from '../ops/run';
import type { TensorSource } from './safetensors_writer';
import { dividedNorm, multipliedInputs, roundToInt8, smoothingScales, takeLargest } from './smooth';
import {
  advancePictures,
  embeddedPictures,
  floatSource,
  headLinears,
  openTower,
  type PictureOptions,
  TOWER,
  writePart,
} from './tower';
import {
  TOWER_LINEAR_NAMES,
  TOWER_LINEARS,
  TOWER_NORM_NAMES,
  TOWER_NORMS,
  TOWER_SITES,
  type TowerBlock,
  type TowerSite,
} from './tower_block';

export interface SmoothTowerOptions extends PictureOptions {
  /** Default true. False rounds the weights as they are and looks at no picture. */
  readonly smoothing?: boolean;
}

export interface SmoothTowerResult {
  readonly blocks: number;
  /** Pictures calibrated on. */
  readonly images: number;
}

/** max|x_c| of the inputs that norms give, over the calibration set, f32 [e]. */
type Largest = ReadonlyMap<TowerSite, Float32Array>;

/**
 * Writes the 8-bit tower of `model` into `folder`: model.safetensors (or shards) and config.json.
 * @throws SparseVilaError `ERR_ALREADY_QUANTIZED`, `ERR_CALIBRATION` (no pictures, or one that cannot be read), `ERR_NOT_FINITE`,
 *   `ERR_WEIGHT_…`, `ERR_CONFIG_…`, `ERR_DISK_FULL`, and what loading throws; `signal.reason`
 */
export async function smoothTower(options: SmoothTowerOptions, folder: string): Promise<SmoothTowerResult> {
  const { model, smoothing = true, signal, onProgress = () => undefined } = options;
  const tower = openTower(model);
  const { config, tensors, fileName } = tower;
  const states = smoothing ? await embeddedPictures(options, config) : [];
  const made: TensorSource[] = [];
  const breathe = breather(signal);
  for (let i = 0; i < config.layers; i++) {
    const block = tower.block(i);
    const largest: Largest = new Map(
      Object.values(TOWER_NORMS).map((site) => [site, new Float32Array(config.hiddenSize)]),
    );
    const see = (_: number, site: TowerSite, input: Parameters<typeof floats>[0]): void => {
      const known = largest.get(site);
      if (known !== undefined) takeLargest(known, floats(input));
    };
    if (smoothing) await advancePictures(block, config, states, i, see, breathe);
    const at = (part: string): string => fileName(`encoder.layers.${i}.${part}`);
    for (const tensor of quantizedBlock(block, smoothing ? largest : undefined, at)) made.push(tensor);
    onProgress({ step: 'quantise tower', done: i + 1, total: config.layers, unit: 'blocks' });
    await breathe();
  }
  const json = readJson(join(model, TOWER, 'config.json'));
  await writePart(folder, tensors, made, w8a8Config(json, headLinears(tensors)), signal);
  return { blocks: config.layers, images: states.length };
}

/** The tensors that stand in for those of a block; `largest` undefined: no smoothing. */
function quantizedBlock(
  { norms, linears }: TowerBlock,
  largest: Largest | undefined,
  fileName: (part: string) => string,
): TensorSource[] {
  const made: TensorSource[] = [];
  const smoothed = { ...linears };
  for (const norm of largest === undefined ? [] : TOWER_NORM_NAMES) {
    const site = TOWER_NORMS[norm];
    const fed = TOWER_SITES[site];
    const s = smoothingScales(
      largest?.get(site) ?? new Float32Array(),
      fed.map((name) => linears[name]),
    );
    for (const name of fed) smoothed[name] = multipliedInputs(linears[name], s);
    // In f32, so that norm and weights are of the same s.
    for (const [part, values] of Object.entries(dividedNorm(norms[norm], s)))
      made.push(floatSource(fileName(`${norm}.${part}`), values));
  }
  for (const linear of TOWER_LINEARS) {
    const { rows, cols, q, scale } = roundToInt8(smoothed[linear]);
    const name = fileName(`${TOWER_LINEAR_NAMES[linear]}.weight`);
    const bytes = new Uint8Array(q.buffer, q.byteOffset, q.byteLength);
    const weight = { name, dtype: 'I8' as const, shape: [rows, cols], byteLength: q.byteLength, bytes: () => bytes };
    made.push(weight, { ...floatSource(`${name}_scale`, scale), shape: [rows, 1] });
  }
  return made;
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
