// The vision tower of a VILA checkpoint in 4 bits: AWQ with the norms and v_proj taking scales up, fc2 clipped only, since nothing
// can be scaled through its activation; patch embedding, positions and a pooling head stay. An MLP whose width is no multiple of
// the group (SigLIP-so400m's 4304) is widened with units that are always 0, which is the same function and needs no exceptions in
// configs. Memory: as tower.ts, and the inputs of the linear layers for about `rows` rows.
// Source: AWQ (arXiv 2306.00978).

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Json, readJson } from '../json';
import { breather } from '../models/breath';
import type { TowerConfig } from '../models/tower';
import { quantizeMatrix } from '../ops/quantize';
import { float32, floats } from '../ops/run';
import { spread } from './calibration';
import { asSource, type QuantizationFacts, quantizedConfig } from './export';
import { packQuantized } from './formats';
import { collectInputs, outputError, type SearchedGroup, type SearchedLinear, searchGroups } from './group_search';
import { type CheckedOptions, checkShapes } from './options';
import type { GroupError } from './quantize_layer';
import type { Matrix, QuantizedMatrix } from './round';
import { type TensorSource, writeSafetensors } from './safetensors_writer';
import { dividedNorm } from './smooth';
import { openTensors } from './tensors';
import {
  advancePictures,
  checkedTowerConfig,
  embeddedPictures,
  floatSource,
  headLinears,
  openTower,
  type PictureOptions,
  TOWER,
  type Tower,
  writePart,
} from './tower';
import {
  floatTowerBlock,
  TOWER_LINEAR_NAMES,
  TOWER_LINEARS,
  TOWER_NORM_NAMES,
  TOWER_NORMS,
  TOWER_SITE_NAMES,
  TOWER_SITES,
  type TowerBlock,
  type TowerLinear,
  type TowerSite,
} from './tower_block';
import type { WorkFolder } from './work_folder';

export interface QuantizeTowerResult {
  readonly blocks: number;
  /** Pictures calibrated on; 0 for round-to-nearest. */
  readonly images: number;
  /** What the search did to each block; empty for round-to-nearest. */
  readonly errors: readonly (readonly GroupError[])[];
}

/** The name of a block's step in the work folder. */
export const TOWER_BLOCK_STEP = /^tower-block-\d+$/;
const stepOf = (block: number): string => `tower-block-${block}`;

/**
 * The tower's config, with the width of its MLP as it is to be.
 * @throws SparseVilaError `ERR_ALREADY_QUANTIZED`, `ERR_CONFIG_…`; `ERR_QUANTIZE_SHAPE` where the format cannot hold a matrix
 */
export function checkedTowerShapes(model: string, options: CheckedOptions): TowerConfig {
  const config = checkedTowerConfig(model);
  const { hiddenSize: e, intermediateSize: m } = config;
  checkShapes({ 'q_proj of the vision tower': [e, e] }, options);
  return { ...config, intermediateSize: Math.ceil(m / options.groupSize) * options.groupSize };
}

/**
 * Writes the 4-bit tower of `model` into `folder`: model.safetensors (or shards) and config.json. Blocks that an earlier run left
 * in `work` are not made again.
 * @throws SparseVilaError as `checkedTowerShapes`; `ERR_CALIBRATION` (no pictures, or one that cannot be read), `ERR_NOT_FINITE`,
 *   `ERR_WEIGHT_…`, `ERR_DISK_FULL`, and what loading throws; `signal.reason`
 */
export async function quantizeTower(
  pictures: PictureOptions,
  options: CheckedOptions,
  work: WorkFolder,
  folder: string,
): Promise<QuantizeTowerResult> {
  const { model, signal, onProgress = () => undefined } = pictures;
  const config = checkedTowerShapes(model, options);
  const tower = openTower(model);
  const breathe = breather(signal);
  let first = 0;
  while (first < config.layers && work.finished.has(stepOf(first))) first++;
  const searched = options.method === 'awq';
  const states = searched && first < config.layers ? await embeddedPictures(pictures, config) : [];
  for (let i = searched ? 0 : first; i < config.layers && first < config.layers; i++) {
    const float = tower.block(i);
    const block = widened(float, config.intermediateSize);
    const collector = searched && i >= first ? collectBlock(config, states, options) : undefined;
    if (searched) await advancePictures(block, config, states, i, collector?.see ?? (() => undefined), breathe);
    if (i < first) continue;
    const quantized = collector === undefined ? rounded(block, options) : await collector.search(block, breathe);
    const { changed } = quantized;
    if (block !== float) changed.set(`${TOWER_LINEAR_NAMES.fc1}.bias`, block.biases.fc1);
    await writeBlock(work, i, tower, quantized, options);
    work.finish(stepOf(i), { errors: quantized.errors, images: states.length });
    onProgress({ step: 'quantise tower', done: i + 1, total: config.layers, unit: 'blocks' });
    await breathe();
  }
  const made = Array.from({ length: config.layers }, (_, i) => {
    const part = openTensors(join(work.folder, stepOf(i)));
    return [...part.entries.keys()].map((name) => part.copy(name));
  }).flat();
  const { format, groupSize, symmetric } = options;
  const facts = { format, groupSize, symmetric, ignore: headLinears(tower.tensors) };
  await writePart(folder, tower.tensors, made, towerConfig(model, config, facts), signal);
  const results = Array.from({ length: config.layers }, (_, i) => work.finished.get(stepOf(i)) as Finished);
  return {
    blocks: config.layers,
    images: results[0]?.images ?? 0,
    errors: results.map(({ errors }) => errors).filter((errors) => errors.length > 0),
  };
}

interface Finished {
  readonly errors: readonly GroupError[];
  readonly images: number;
}

/** The tower's config file with its quantisation and, where it was widened, its MLP's width. */
function towerConfig(model: string, { intermediateSize }: TowerConfig, facts: QuantizationFacts): Json {
  const json = quantizedConfig(readJson(join(model, TOWER, 'config.json')), facts);
  if (checkedTowerConfig(model).intermediateSize === intermediateSize) return json;
  const width = { intermediate_size: intermediateSize };
  const inner = json.vision_config;
  return typeof inner === 'object' && inner !== null
    ? { ...json, vision_config: { ...inner, ...width } }
    : { ...json, ...width };
}

/** A block with units added to its MLP up to `width`: rows of fc1 and its bias that are 0, so gelu(0) = 0, and columns of fc2 that are 0. */
function widened(block: TowerBlock, width: number): TowerBlock {
  const { fc1, fc2 } = block.linears;
  if (fc1.rows === width) return block;
  const long = (values: Float32Array, length: number): Float32Array => {
    const padded = new Float32Array(length);
    padded.set(values);
    return padded;
  };
  const wide = new Float32Array(fc2.rows * width);
  for (let row = 0; row < fc2.rows; row++)
    wide.set(fc2.values.subarray(row * fc2.cols, (row + 1) * fc2.cols), row * width);
  return {
    ...block,
    linears: {
      ...block.linears,
      fc1: { ...fc1, rows: width, values: long(fc1.values, width * fc1.cols) },
      fc2: { ...fc2, cols: width, values: wide },
    },
    biases: { ...block.biases, fc1: long(block.biases.fc1, width) },
  };
}

/** A block whose norms and biases have taken scales up. */
interface QuantizedBlock {
  readonly linears: Readonly<Record<TowerLinear, QuantizedMatrix>>;
  /** Vectors that are not as they were, by their name in the block. */
  readonly changed: Map<string, Float32Array>;
  readonly errors: readonly GroupError[];
}

function rounded({ linears }: TowerBlock, { groupSize: group, symmetric }: CheckedOptions): QuantizedBlock {
  const made = TOWER_LINEARS.map((name) => [name, quantizeMatrix(linears[name], { group, symmetric })]);
  return { linears: Object.fromEntries(made) as QuantizedBlock['linears'], changed: new Map(), errors: [] };
}

/** Collects what the search of one block has to know while pictures run through it, and searches. */
function collectBlock(
  { hiddenSize: e, ...rest }: TowerConfig,
  states: readonly Float32Array[],
  options: CheckedOptions,
) {
  const config = { hiddenSize: e, ...rest };
  const widths: Readonly<Record<TowerSite, number>> = { qkv: e, out: e, fc1: e, fc2: config.intermediateSize };
  const total = states.reduce((sum, { length }) => sum + length / e, 0);
  const of = <T>(make: (site: TowerSite) => T) =>
    Object.fromEntries(TOWER_SITE_NAMES.map((site) => [site, make(site)])) as Record<TowerSite, T>;
  const collectors = of((site) => collectInputs(widths[site], options.groupSize, total));
  // Attention needs all rows of a picture.
  const count = Math.max(1, Math.floor((options.rows * states.length) / total));
  const held = new Set(spread([...states.keys()], count));
  const inputs = of(() => [] as Float32Array[]);
  const see = (picture: number, site: TowerSite, input: Parameters<typeof floats>[0]): void => {
    const rows = floats(input);
    collectors[site].see(rows);
    if (held.has(picture)) inputs[site].push(rows.slice());
  };
  const search = async (block: TowerBlock, breathe: () => Promise<void>): Promise<QuantizedBlock> => {
    const groups = TOWER_SITE_NAMES.map((site): SearchedGroup<TowerSite, TowerLinear> => {
      const loss = siteLoss(site, block, config, inputs[site], widths[site]);
      const statistics = collectors[site].finish();
      return { site, linears: TOWER_SITES[site], scaled: site !== 'fc2', isClipped, statistics, loss };
    });
    const round = { group: options.groupSize, symmetric: options.symmetric };
    const context = { round, feedback: options.rounding === 'feedback', breathe };
    const { linears, scales, errors } = await searchGroups(searched(block), groups, context);
    return { linears, changed: changedVectors(block, scales), errors };
  };
  return { see, search };
}

/** q and k are not clipped: their errors meet in a product, which the search does not see. */
const isClipped = (name: TowerLinear): boolean => name !== 'q' && name !== 'k';

/** v's rows take up the scales of out's inputs: each row of v is one channel there. */
function searched({ linears }: TowerBlock): Record<TowerLinear, SearchedLinear<TowerSite>> {
  const input = Object.fromEntries(TOWER_SITE_NAMES.flatMap((site) => TOWER_SITES[site].map((name) => [name, site])));
  const made = TOWER_LINEARS.map((name) => {
    const linear = { matrix: linears[name], input: input[name] as TowerSite };
    return [name, name === 'v' ? { ...linear, output: 'out' } : linear];
  });
  return Object.fromEntries(made) as Record<TowerLinear, SearchedLinear<TowerSite>>;
}

/** NMSE of the attention or the MLP over the held pictures when a site's matrices are replaced. */
function siteLoss(
  site: TowerSite,
  block: TowerBlock,
  config: TowerConfig,
  inputs: readonly Float32Array[],
  width: number,
): (replaced: readonly Matrix[]) => number {
  const evaluate = (replaced: readonly Matrix[]): Float32Array[] => {
    const changes = Object.fromEntries(replaced.map((matrix, i) => [TOWER_SITES[site][i] as TowerLinear, matrix]));
    const packed = floatTowerBlock({ ...block, linears: { ...block.linears, ...changes } }, config);
    try {
      return inputs.map((values) => {
        const input = float32(values, [values.length / width, width]);
        const output = packed.finish(site, input);
        const found = floats(output).slice();
        input.dispose();
        output.dispose();
        return found;
      });
    } finally {
      packed.dispose();
    }
  };
  const targets = evaluate([]);
  return (replaced) => outputError(evaluate(replaced), targets);
}

function changedVectors(
  { norms, biases }: TowerBlock,
  scales: Readonly<Partial<Record<TowerSite, Float32Array>>>,
): Map<string, Float32Array> {
  const changed = new Map<string, Float32Array>();
  for (const norm of TOWER_NORM_NAMES) {
    const s = scales[TOWER_NORMS[norm]];
    if (s === undefined) continue;
    for (const [part, values] of Object.entries(dividedNorm(norms[norm], s))) changed.set(`${norm}.${part}`, values);
  }
  const { out } = scales;
  if (out !== undefined) {
    const bias = biases.v.map((value, i) => value / (out[i] as number));
    changed.set(`${TOWER_LINEAR_NAMES.v}.bias`, bias);
  }
  return changed;
}

/** Writes what stands in for tensors of block `i`, vectors in f32, so that norm and weights are of the same s. */
async function writeBlock(
  work: WorkFolder,
  i: number,
  { fileName }: Tower,
  { linears, changed }: QuantizedBlock,
  { format, symmetric }: CheckedOptions,
): Promise<void> {
  const at = (name: string): string => fileName(`encoder.layers.${i}.${name}`);
  const tensors: TensorSource[] = TOWER_LINEARS.flatMap((name) => {
    const module = at(`${TOWER_LINEAR_NAMES[name]}.weight`).replace(/weight$/, '');
    return packQuantized(linears[name], format, symmetric).map((part) => asSource(part, module));
  });
  for (const [name, values] of changed) tensors.push(floatSource(at(name), values));
  const folder = join(work.folder, stepOf(i));
  await mkdir(folder, { recursive: true });
  await writeSafetensors(join(folder, 'model.safetensors'), tensors);
}
