// The three parts of a model for quantization: their blocks, the input of the first one, and the rows that a search holds.
// Everything comes from the plan that loading uses.

import { relative } from 'node:path';
import { readFloats } from '../checkpoint/safetensors';
import { indexOptions } from '../models/assemble';
import { type Block, type BlockOps, projectorBlock, towerBlock } from '../models/blocks';
import { type DecoderConfig, ropeInverseFrequencies, windowOf } from '../models/config';
import { decoderBlock } from '../models/decoder_blocks';
import type { PartName, Plan } from '../models/plan';
import { rowSpans } from '../models/segments';
import type { TowerConfig } from '../models/tower';
import { placeOf } from '../models/tower_blocks';
import { moduleOf, type WeightIndex, weightIndex } from '../models/weight_index';
import { attention } from '../ops/attention';
import { rope, ropeTable } from '../ops/rope';
import { int32 } from '../ops/run';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { BlockWeights } from './block_weights';
import { type CalibrationSource, calibrationSequences, type Sequence } from './calibration';
import type { CheckedOptions } from './options';
import { embeddedPictures, pictureFeatures, type Segment } from './pictures';
import type { VectorType } from './search';
import { drawSampling, drawSequences, type Sampling } from './statistics';

/** Rows that run through the blocks together: a conversation, or a picture's segment with its place in the picture. */
export interface Rows extends Pick<Sequence, 'x' | 'positions' | 'visual' | 'added' | 'ends'> {
  readonly segment?: Segment;
}

export interface Part {
  readonly name: PartName;
  /** Names for messages: the part, and one of its blocks. */
  readonly called: string;
  readonly blockCalled: string;
  /** Canonical names of its blocks, with a dot at the end. */
  readonly blocks: readonly string[];
  /** Of a number, in the checkpoint. */
  readonly block: (index: number) => Block;
  /** Other linear layers of the part, which stay as they are (mergers of deepstack). */
  readonly others?: readonly string[];
  /** In the result: with an MLP whose width is a multiple of the group. */
  readonly wide: (index: number) => Block;
  readonly widen: (weights: BlockWeights) => BlockWeights;
  /** Data type of vectors that have absorbed scales. */
  readonly vectors: VectorType;
  /** The rows that the search holds, about `budget` in number. */
  readonly sample: (sequences: readonly Rows[], budget: number) => Sampling;
  /** The attention of rows in a block, by its number. */
  readonly attend: (rows: Rows, block: number) => BlockOps['attend'];
}

/** A part and its files. */
export interface OpenPart {
  readonly part: Part;
  readonly index: WeightIndex;
  /** The folder of its files, relative to the checkpoint's; several parts may share it. */
  readonly folder: string;
  /** New format of its matrices; undefined: unchanged. */
  readonly bits: 4 | 8 | undefined;
  /** Whether its output head becomes 4-bit. */
  readonly head: boolean;
}

/** The output head of a decoder. */
export const HEAD = 'lm_head.weight';

/** All parts, the fast ones first. Reads headers only. @throws SparseVilaError `ERR_CHECKPOINT_…` */
export function openParts(plan: Plan, { modules, tower, groupSize }: CheckedOptions): OpenPart[] {
  return (['tower', 'projector', 'decoder'] as const).map((name) => {
    const { folder } = plan.sources[name];
    const bits = modules.includes(name) ? 4 : name === 'tower' && tower !== undefined ? 8 : undefined;
    return {
      part: partOf(plan, name, bits === 4 ? groupSize : 1),
      index: weightIndex(folder, indexOptions(plan, name)),
      folder: relative(plan.folder, folder),
      ...{ bits, head: name === 'decoder' && modules.includes('head') },
    };
  });
}

/** The name in the files for a canonical name; the name itself if the files do not have it. */
export const fileName = ({ index }: OpenPart, name: string): string => index.find(name)?.name ?? name;

/** f32 values of a canonical name. @throws SparseVilaError `ERR_WEIGHT_…`, `ERR_NOT_FINITE` */
export const floatsOf = ({ index }: OpenPart, name: string, shape: readonly number[]): Float32Array =>
  readFloats(index.plain(name, shape).entry);

/** Linear layers of a part that stay in floating point, by their file names, including those of its folder that no part uses. */
export function floatLinears(open: OpenPart): { readonly own: string[]; readonly unread: string[] } {
  const { part, index, bits, head } = open;
  const { blocks, block, others = [] } = part;
  const layers = blocks.flatMap((at, i) => {
    const { linears, floats = [] } = block(i);
    return [...(bits === undefined ? linears : []), ...floats].map(({ name }) => `${at}${name}.weight`);
  });
  const left = others.map((name) => `${name}.weight`);
  const names = [...layers, ...left, ...(part.name === 'decoder' && !head ? [HEAD] : [])];
  const unread = [...index.entries].filter(
    ([name, { shape }]) => /: unread\..*\.weight$/.test(name) && shape.length === 2,
  );
  return {
    own: names.map((name) => moduleOf(fileName(open, name))),
    unread: unread.map(([, entry]) => moduleOf(entry.name)),
  };
}

/** A part of a plan. `group`: inputs that share a scale; 1 if widths need not be multiples. */
export function partOf(plan: Plan, name: PartName, group: number): Part {
  return { decoder: decoderPart, tower: towerPart, projector: projectorPart }[name](plan, group);
}

const blockNames = (count: number, prefix: string): string[] =>
  Array.from({ length: count }, (_, i) => `${prefix}.${i}.`);

function decoderPart({ decoder: config }: Plan): Part {
  const block = (index: number): Block => decoderBlock(config, index);
  return {
    name: 'decoder',
    called: 'the decoder',
    blockCalled: 'layer',
    blocks: blockNames(config.layers, 'model.layers'),
    ...{ block, wide: block, widen: (weights) => weights },
    // Configs of 4-bit decoders say float16.
    vectors: 'F16',
    sample: drawSampling,
    attend: (rows, layer) => decoderAttention(config, rows, layer),
  };
}

function decoderAttention(config: DecoderConfig, { positions, ends }: Rows, layer: number): BlockOps['attend'] {
  const isLocal = windowOf(config, layer) !== undefined;
  const frequencies = ropeInverseFrequencies({ ...config, ...(isLocal && config.localRope) });
  const own = rowSpans(config, layer, { before: 0, earlier: [], positions, ends });
  const { attentionScale: scale, attentionSoftcap: softcap } = config;
  return (q, k, v) => {
    const table = ropeTable(positions, frequencies, config.ropeAxes);
    const spans = own && int32(own, [positions.length, 2]);
    const turned = (rows: Tensor): Tensor => partlyTurned(rows, table, config.rotaryDim);
    return attention(turned(q), turned(k), v, { causal: own === undefined, spans, scale, softcap }).out;
  };
}

/** Rows [t, heads, c], of whose heads the first `width` numbers are rotated. */
function partlyTurned(rows: Tensor, table: Tensor, width: number | undefined): Tensor {
  if (width === undefined) return rope(rows, table);
  const { tf } = start();
  const [t, heads, c] = rows.shape as [number, number, number];
  const rest = tf.slice(rows, [0, 0, width], [t, heads, c - width]);
  return tf.concat([rope(tf.slice(rows, [0, 0, 0], [t, heads, width]), table), rest], 2);
}

const fullAttention: BlockOps['attend'] = (q, k, v) => attention(q, k, v).out;

/**
 * An MLP whose width is not a multiple of the group (SigLIP-so400m's 4304) is padded with units that are always 0, which is the same function
 * and needs no exceptions in configs.
 */
function towerPart({ tower: config }: Plan, group: number): Part {
  const width = widenedTower(config.intermediateSize, group);
  return {
    name: 'tower',
    called: 'the vision tower',
    blockCalled: 'tower block',
    blocks: blockNames(config.layers, 'encoder.layers'),
    block: () => towerBlock(config),
    wide: () => towerBlock({ ...config, intermediateSize: width }),
    widen: (weights) => (width === config.intermediateSize ? weights : widened(weights, width)),
    vectors: 'F32',
    sample: drawSequences,
    attend: ({ segment }, block) => towerAttention(config, segment, block),
  };
}

/** Attention within the patches of a segment; `segment` has the picture's own patches. */
function towerAttention(config: TowerConfig, segment: Segment | undefined, block: number): BlockOps['attend'] {
  if (segment === undefined) return fullAttention;
  const { patches, begin, end } = segment;
  return (q, k, v) => {
    const { table, spans } = placeOf(config, patches, begin, end);
    const turned = (rows: Tensor): Tensor => (table === undefined ? rows : rope(rows, table));
    return attention(turned(q), turned(k), v, { spans: config.windowed.includes(block) ? spans : undefined }).out;
  };
}

/** The width of the tower's MLP, rounded up to whole groups. */
export const widenedTower = (width: number, group: number): number => Math.ceil(width / group) * group;

/** The layers of a tower's MLP whose outputs are its hidden units, by their names in the block. */
export const WIDENED_LAYERS = ['mlp.fc1', 'mlp.gate_proj', 'mlp.up_proj'] as const;

/**
 * A block with units added to its MLP up to `width`: rows and biases that are 0 in the layers that make them, so that they are 0 after the
 * activation too, and columns that are 0 in the layer that takes them.
 */
function widened({ linears, biases, norms }: BlockWeights, width: number): BlockWeights {
  const long = (values: ArrayLike<number>, length: number): Float32Array => {
    const padded = new Float32Array(length);
    padded.set(values);
    return padded;
  };
  const wider = { linears: { ...linears }, biases: { ...biases } };
  for (const name of WIDENED_LAYERS) {
    const layer = linears[name];
    if (layer === undefined) continue;
    wider.linears[name] = { ...layer, rows: width, values: long(layer.values, width * layer.cols) };
    wider.biases[name] = long(biases[name] ?? [], width);
  }
  for (const name of ['mlp.fc2', 'mlp.down_proj']) {
    const layer = linears[name];
    if (layer === undefined) continue;
    const { rows, cols } = layer;
    const values = new Float32Array(rows * width);
    for (let row = 0; row < rows; row++) values.set(layer.values.subarray(row * cols, (row + 1) * cols), row * width);
    wider.linears[name] = { ...layer, cols: width, values };
  }
  return { norms, ...wider };
}

function projectorPart({ projector, deepstack = [] }: Plan): Part {
  const block = projectorBlock(projector);
  return {
    name: 'projector',
    called: 'the projector',
    blockCalled: 'projector',
    blocks: [''],
    others: projectorBlock(deepstack.flat()).linears.map(({ name }) => name),
    ...{ block: () => block, wide: () => block, widen: (weights) => weights },
    vectors: 'F32',
    sample: drawEvenly,
    attend: () => fullAttention,
  };
}

/** Rows evenly spread over all pictures. */
function drawEvenly(sequences: readonly Rows[], budget: number): Sampling {
  const total = sequences.reduce((sum, { visual }) => sum + visual.length, 0);
  const count = Math.min(budget, total);
  const chosen = new Set(Array.from({ length: count }, (_, i) => Math.floor((i * total) / count)));
  let at = 0;
  const sampled = sequences.map(({ visual }) => Int32Array.from([...visual.keys()].filter(() => chosen.has(at++))));
  return { sampled, whole: new Set(), counts: { visual: total, text: 0 } };
}

/** What enters the first block, for each conversation or for each picture. */
export async function rowsOf({ name, block }: Part, source: CalibrationSource): Promise<Rows[]> {
  if (name === 'decoder') return calibrationSequences(source);
  const width = block(0).sites[0]?.width ?? 1;
  const visible = (x: Float32Array): Rows => ({ x, positions: [], visual: new Uint8Array(x.length / width).fill(1) });
  if (name === 'projector') return (await pictureFeatures(source)).map(visible);
  return (await embeddedPictures(source)).map(({ x, ...segment }) => ({ ...visible(x), segment }));
}
