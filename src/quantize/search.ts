// AWQ on one block: scales for inputs that a preceding layer can absorb, then clipped ranges and error feedback. The loss of a rounded matrix
// is the error of its module's output on calibration rows. Knows no architecture and no files.
// Source: AWQ (arXiv 2306.00978, section 3.2); AutoAWQ `awq/models/{llama,qwen2}.py` for the groups and the inspected modules.

import { roundToF16 } from '../checkpoint/half';
import type { Block, BlockOps, BlockSite } from '../models/blocks';
import {
  clipLimits,
  feedbackRound,
  type Matrix,
  packQuantizedMatrices,
  packRounded,
  type QuantizedMatrix,
  quantizeMatrix,
  type RoundOptions,
  type Scaling,
} from '../ops/quantize';
import type { PackedMatrix } from '../ops/weights';
import type { BlockWeights, Norm } from './block_weights';
import { gramsOf } from './gram';
import { type Loss, siteLoss } from './loss';
import { searchScale } from './scale_search';
import { addDividedNorm } from './smooth';
import type { BlockStatistics, SiteStatistics } from './statistics';

/** The error of a group's rounding in the output of its inspected module: squared error over squared output (NMSE). */
export interface GroupError {
  /** The name of the input that its linear layers share. */
  readonly group: string;
  /** Rounding to nearest. */
  readonly rtn: number;
  /** After the search: scales and clipping. */
  readonly chosen: number;
  /** The exponent of the best scales; null for none. */
  readonly ratio: number | null;
}

/** Data type of norms and biases that have absorbed scales. */
export type VectorType = 'F16' | 'F32';

export interface SearchOptions {
  readonly round: RoundOptions;
  /** Round with error feedback after clipping. */
  readonly feedback: boolean;
  readonly vectors: VectorType;
  /** The attention of a held sequence. */
  readonly attend: (sequence: number) => BlockOps['attend'];
  readonly pace: () => Promise<void>;
}

export interface SearchedBlock {
  readonly linears: Readonly<Record<string, QuantizedMatrix>>;
  /** Norms and biases that have absorbed scales, by their name in the block. */
  readonly vectors: Map<string, Float32Array>;
  readonly errors: readonly GroupError[];
}

/** The scales by which each site's input is divided. */
type Scales = Record<string, Float32Array>;

/** Searches all groups on the original weights, applies them together, then refines them one after the other. */
export async function searchBlock(
  block: Block,
  weights: BlockWeights,
  statistics: BlockStatistics,
  options: SearchOptions,
): Promise<SearchedBlock> {
  const scales: Scales = {};
  const found: { site: BlockSite; loss: Loss; rtn: number; ratio: number | undefined }[] = [];
  try {
    for (const site of block.sites) {
      const of = statistics[site.name] as SiteStatistics;
      const loss = siteLoss(block, weights, site, of.held, options.attend);
      found.push({ site, loss, rtn: 0, ratio: undefined });
      const { scale, ratio, rtn } = await searchSite(site, loss, weights, of, options);
      if (scale !== undefined) scales[site.name] = scale;
      found[found.length - 1] = { site, loss, rtn, ratio };
    }
    const scaling = scalingOf(block, scales);
    const linears = Object.fromEntries(
      block.linears.map(({ name }) => [
        name,
        quantizeMatrix(weights.linears[name] as Matrix, options.round, scaling(name)),
      ]),
    );
    const errors: GroupError[] = [];
    for (const { site, loss, rtn, ratio } of found) {
      const of = statistics[site.name] as SiteStatistics;
      const chosen = await refine(site, linears, loss, { weights, statistics: of, scaling, options });
      errors.push({ group: site.name, rtn, chosen, ratio: ratio ?? null });
    }
    return { linears, vectors: scaledVectors(block, weights, scales), errors };
  } finally {
    for (const { loss } of found) loss.dispose();
  }
}

async function searchSite(
  site: BlockSite,
  loss: Loss,
  { linears, norms }: BlockWeights,
  { meanAbs }: SiteStatistics,
  { round, vectors, pace }: SearchOptions,
): Promise<{ scale: Float32Array | undefined; ratio: number | undefined; rtn: number }> {
  const { absorbedBy } = site;
  const matrices = site.linears.map((name) => linears[name] as Matrix);
  const measure = (s: Float32Array): number => {
    const packed = matrices.map((matrix) => packRounded([matrix], round, s));
    try {
      return loss.measure(packed);
    } finally {
      for (const { tensor } of packed) tensor.dispose();
    }
  };
  if (absorbedBy === undefined) {
    return { scale: undefined, ratio: undefined, rtn: measure(new Float32Array(site.width).fill(1)) };
  }
  const rowOf = 'linear' in absorbedBy ? absorbedBy.rowOf : undefined;
  const tie = rowOf && ((values: Float64Array) => tied(values, rowOf));
  const search = { meanAbs, tie, group: round.group, loss: measure, pace };
  const { scale, ratio, plainLoss: rtn } = await searchScale(matrices, search);
  // In f32, a vector that absorbs nothing does not change.
  if (vectors === 'F32') return { scale: ratio === undefined ? undefined : scale, ratio, rtn };
  const norm = 'norm' in absorbedBy ? norms[absorbedBy.norm] : undefined;
  return { scale: norm === undefined ? scale : storable(scale, norm), ratio, rtn };
}

/**
 * Scales that a norm stored as binary16 can hold: s is computed from the stored quotient, so that the product of norm and weights
 * does not change.
 */
function storable(scale: Float32Array, { weight, plus = 0 }: Norm): Float32Array {
  return scale.map((s, c) => {
    const exact = (weight[c] as number) / (roundToF16((weight[c] as number) / s - plus) + plus);
    return Number.isFinite(exact) && exact > 0 ? exact : s;
  });
}

/**
 * Each value replaced by the mean over the channels made of the same row: under grouped queries v can absorb only scales that query heads
 * share. (AutoAWQ does not scale o then; llm-compressor does the same as here.)
 */
function tied(values: Float64Array, rowOf: Int32Array): Float64Array {
  const sums = new Map<number, { sum: number; count: number }>();
  for (const [c, row] of rowOf.entries()) {
    const { sum, count } = sums.get(row) ?? { sum: 0, count: 0 };
    sums.set(row, { sum: sum + (values[c] as number), count: count + 1 });
  }
  return values.map((value, c) => {
    const { sum, count } = sums.get(rowOf[c] as number) ?? { sum: value, count: 1 };
    return sum / count;
  });
}

/** A function that returns the scaling of a linear layer's matrix: columns times its input's scales, rows divided by those it absorbs. */
function scalingOf({ sites }: Block, scales: Scales): (name: string) => Scaling {
  return (name) => {
    const input = sites.find(({ linears }) => linears.includes(name));
    const output = sites.find(({ absorbedBy }) => absorbedBy && 'linear' in absorbedBy && absorbedBy.linear === name);
    const given = output && scales[output.name];
    const { rowOf } = (output?.absorbedBy ?? {}) as { rowOf?: Int32Array };
    return { columns: input && scales[input.name], rows: given && rowOf ? perRow(given, rowOf) : given };
  };
}

/** Of scales per channel, those of the rows that the channels are made of; 1 for other rows, as those of queries beside values. */
function perRow(scale: Float32Array, rowOf: Int32Array): Float32Array {
  const rows = new Float32Array(rowOf.reduce((most, row) => Math.max(most, row + 1), 0)).fill(1);
  for (const [c, row] of rowOf.entries()) rows[row] = scale[c] as number;
  return rows;
}

/** Norms and biases divided by the scales that they absorb. */
function scaledVectors(block: Block, { norms, biases }: BlockWeights, scales: Scales): Map<string, Float32Array> {
  const made = new Map<string, Float32Array>();
  const scaling = scalingOf(block, scales);
  for (const { name, absorbedBy } of block.sites) {
    const s = scales[name];
    if (s === undefined || absorbedBy === undefined) continue;
    if ('norm' in absorbedBy) {
      addDividedNorm(made, absorbedBy.norm, norms[absorbedBy.norm] as Norm, s);
      continue;
    }
    const { linear } = absorbedBy;
    const [bias, rows] = [biases[linear], scaling(linear).rows];
    if (bias !== undefined && rows !== undefined)
      made.set(
        `${linear}.bias`,
        bias.map((value, i) => value / (rows[i] as number)),
      );
  }
  return made;
}

interface Refinement {
  readonly weights: BlockWeights;
  readonly statistics: SiteStatistics;
  readonly scaling: (name: string) => Scaling;
  readonly options: SearchOptions;
}

/**
 * Clips ranges and rounds with feedback, matrix by matrix, keeping each change if it helps: both see one matrix, but the criterion is
 * the module's output. Changes `quantized`; returns its loss.
 */
async function refine(
  { linears: names, mixesRows }: BlockSite,
  quantized: Record<string, QuantizedMatrix>,
  loss: Loss,
  { weights, statistics: { gram }, scaling, options: { round, feedback, pace } }: Refinement,
): Promise<number> {
  const pack = (name: string): PackedMatrix => {
    const { columns, rows } = scaling(name);
    return packQuantizedMatrices([quantized[name] as QuantizedMatrix], { columns, rows: rows?.map((s) => 1 / s) });
  };
  const packed = names.map(pack);
  let least = loss.measure(packed);
  const attempt = async (i: number, candidate: QuantizedMatrix): Promise<void> => {
    const name = names[i] as string;
    const [before, packedBefore] = [quantized[name] as QuantizedMatrix, packed[i] as PackedMatrix];
    quantized[name] = candidate;
    packed[i] = pack(name);
    const after = loss.measure(packed);
    const isBetter = after < least;
    if (isBetter) least = after;
    else quantized[name] = before;
    const loser = isBetter ? packedBefore : (packed[i] as PackedMatrix);
    if (!isBetter) packed[i] = packedBefore;
    loser.tensor.dispose();
    await pace();
  };
  try {
    for (const [i, name] of names.entries()) {
      const [matrix, by] = [weights.linears[name] as Matrix, scaling(name)];
      const s = by.columns ?? new Float32Array(gram.width).fill(1);
      // q and k are not clipped, because their errors combine in a product, which the search does not see.
      if (!mixesRows || i === 2) {
        const limits = clipLimits(matrix, round, by, gramsOf(gram, s, round.group));
        await attempt(i, quantizeMatrix(matrix, round, by, limits));
      }
      if (!feedback) continue;
      const grams = gramsOf(gram, s, gram.block);
      await attempt(i, feedbackRound(matrix, quantized[name] as QuantizedMatrix, by, gram.block, grams));
    }
    return least;
  } finally {
    for (const { tensor } of packed) tensor.dispose();
  }
}
