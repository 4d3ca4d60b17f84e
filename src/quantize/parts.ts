// The three parts of a model as something to quantise: their blocks, what enters the first one, and which rows a search holds.
// Everything comes from the plan that loading uses.

import { type Block, type BlockOps, decoderBlock, projectorBlock, towerBlock } from '../models/blocks';
import { type DecoderConfig, ropeInverseFrequencies } from '../models/config';
import type { PartName, Plan } from '../models/plan';
import { attention } from '../ops/attention';
import { type Position, rope, ropeTable } from '../ops/rope';
import type { BlockWeights } from './block_weights';
import type { Sequence } from './calibration';
import { embeddedPictures, type PictureOptions, pictureFeatures } from './pictures';
import type { VectorType } from './search';
import { drawSampling, drawSequences, type Sampling } from './statistics';

/** Rows that run through the blocks together: a conversation, or a picture. */
export type Rows = Pick<Sequence, 'x' | 'positions' | 'visual'>;

export interface Part {
  readonly name: PartName;
  /** For people: the part, and one of its blocks. */
  readonly called: string;
  readonly blockCalled: string;
  /** Canonical names of its blocks, with a dot at the end. */
  readonly blocks: readonly string[];
  /** As the checkpoint has it. */
  readonly block: Block;
  /** As it is to be: with an MLP that is as wide as whole groups need. */
  readonly wide: Block;
  readonly widen: (weights: BlockWeights) => BlockWeights;
  /** How vectors that have taken scales up are stored. */
  readonly vectors: VectorType;
  /** Which rows the search holds, of about `budget`. */
  readonly sample: (sequences: readonly Rows[], budget: number) => Sampling;
  readonly attend: (rows: Rows) => BlockOps['attend'];
}

/** The part of a plan. `group`: inputs that share a scale; 1 where no width has to be a multiple of anything. */
export function partOf(plan: Plan, name: PartName, group: number): Part {
  return { decoder: decoderPart, tower: towerPart, projector: projectorPart }[name](plan, group);
}

const blockNames = (count: number, prefix: string): string[] =>
  Array.from({ length: count }, (_, i) => `${prefix}.${i}.`);

function decoderPart({ decoder: config }: Plan): Part {
  const block = decoderBlock(config);
  return {
    name: 'decoder',
    called: 'the decoder',
    blockCalled: 'layer',
    blocks: blockNames(config.layers, 'model.layers'),
    ...{ block, wide: block, widen: (weights) => weights },
    // Configs of 4-bit decoders say float16.
    vectors: 'F16',
    sample: drawSampling,
    attend: ({ positions }) => causalAttention(config, positions),
  };
}

function causalAttention(config: DecoderConfig, positions: readonly Position[]): BlockOps['attend'] {
  const frequencies = ropeInverseFrequencies(config);
  return (q, k, v) => {
    const table = ropeTable(positions, frequencies, config.ropeAxes);
    return attention(rope(q, table), rope(k, table), v, { causal: true }).out;
  };
}

const fullAttention: BlockOps['attend'] = (q, k, v) => attention(q, k, v).out;

/**
 * An MLP whose width is no multiple of the group (SigLIP-so400m's 4304) is widened with units that are always 0, which is the same function
 * and needs no exceptions in configs.
 */
function towerPart({ tower: config }: Plan, group: number): Part {
  const width = widenedTower(config.intermediateSize, group);
  return {
    name: 'tower',
    called: 'the vision tower',
    blockCalled: 'tower block',
    blocks: blockNames(config.layers, 'encoder.layers'),
    block: towerBlock(config),
    wide: towerBlock({ ...config, intermediateSize: width }),
    widen: (weights) => (width === config.intermediateSize ? weights : widened(weights, width)),
    vectors: 'F32',
    sample: drawSequences,
    attend: () => fullAttention,
  };
}

/** The width of the tower's MLP as whole groups need it. */
export const widenedTower = (width: number, group: number): number => Math.ceil(width / group) * group;

/** A block with units added to its MLP up to `width`: rows of fc1 and its bias that are 0, so that its activation is 0, and columns of fc2 that are 0. */
function widened({ linears, biases, norms }: BlockWeights, width: number): BlockWeights {
  const [fc1, fc2] = [linears['mlp.fc1'], linears['mlp.fc2']];
  if (fc1 === undefined || fc2 === undefined) throw new Error('expected an MLP of two layers');
  const long = (values: ArrayLike<number>, length: number): Float32Array => {
    const padded = new Float32Array(length);
    padded.set(values);
    return padded;
  };
  const wide = new Float32Array(fc2.rows * width);
  for (let row = 0; row < fc2.rows; row++)
    wide.set(fc2.values.subarray(row * fc2.cols, (row + 1) * fc2.cols), row * width);
  return {
    norms,
    linears: {
      ...linears,
      'mlp.fc1': { ...fc1, rows: width, values: long(fc1.values, width * fc1.cols) },
      'mlp.fc2': { ...fc2, cols: width, values: wide },
    },
    biases: { ...biases, 'mlp.fc1': long(biases['mlp.fc1'] ?? [], width) },
  };
}

function projectorPart({ projector }: Plan): Part {
  const block = projectorBlock(projector);
  return {
    name: 'projector',
    called: 'the projector',
    blockCalled: 'projector',
    blocks: [''],
    ...{ block, wide: block, widen: (weights) => weights },
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

/** What enters the first block for each picture. */
export async function pictureRows({ name, block }: Part, pictures: PictureOptions): Promise<Rows[]> {
  const states = await (name === 'tower' ? embeddedPictures(pictures) : pictureFeatures(pictures));
  const [first] = [...block.norms, ...block.sites];
  const width = first?.width ?? 1;
  return states.map((x) => ({ x, positions: [], visual: new Uint8Array(x.length / width).fill(1) }));
}
