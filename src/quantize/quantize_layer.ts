// Quantises one decoder layer: AWQ's groups, the op that absorbs each group's scales, the clip search, and what it all does to
// the outputs of the inspected modules. Knows no files.
// Source: AWQ (arXiv 2306.00978); AutoAWQ `awq/models/{llama,qwen2}.py` for the groups.

import type { DecoderConfig } from '../models/config';
import {
  clipLimits,
  feedbackRound,
  packQuantizedMatrices,
  packRounded,
  quantizeMatrix,
  type Scaling,
} from '../ops/quantize';
import type { PackedMatrix } from '../ops/weights';
import type { Sequence } from './calibration';
import { gramsOf } from './gram';
import { roundToF16 } from './half';
import { type LayerWeights, LINEARS, type Linear, type Site } from './layer';
import { groupLoss, type Loss } from './layer_loss';
import type { Matrix, QuantizedMatrix, RoundOptions } from './round';
import { type ScaleSearch, searchScale } from './scale_search';
import type { LayerStatistics } from './statistics';

export type Method = 'awq' | 'rtn';

/** A group of linear layers that share an input and therefore scales, named by that input. */
interface Group {
  readonly site: Site;
  readonly linears: readonly Linear[];
  /** The same, those together that one product runs. */
  readonly stacks: readonly (readonly Linear[])[];
}

/** What a group's rounding does to the output of its inspected module: squared error over squared output (NMSE). */
export interface GroupError {
  /** The name of their input. */
  readonly group: string;
  /** Rounding to nearest. */
  readonly rtn: number;
  /** After the search: scales and clipping. */
  readonly chosen: number;
  /** The exponent of the best scales; null for none. */
  readonly ratio: number | null;
}

export interface QuantizedLayer {
  readonly inputNorm: Float32Array;
  readonly postNorm: Float32Array;
  readonly linears: Readonly<Record<Linear, QuantizedMatrix>>;
  readonly biases: LayerWeights['biases'];
  readonly errors: readonly GroupError[];
}

/** Llama's and Qwen2's groups, in the order of their search. */
const GROUPS: readonly Group[] = [
  { site: 'qkv', linears: ['q', 'k', 'v'], stacks: [['q', 'k', 'v']] },
  { site: 'o', linears: ['o'], stacks: [['o']] },
  { site: 'mlp', linears: ['gate', 'up'], stacks: [['gate'], ['up']] },
  { site: 'down', linears: ['down'], stacks: [['down']] },
];

export interface LayerContext {
  readonly config: DecoderConfig;
  readonly sequences: readonly Sequence[];
  readonly round: RoundOptions;
  /** Round with error feedback after clipping. */
  readonly feedback: boolean;
  readonly breathe: () => Promise<void>;
}

/** Rounds every linear layer to nearest; norms and biases stay. */
export function roundLayer(weights: LayerWeights, round: RoundOptions): QuantizedLayer {
  const linears = mapLinears((name) => quantizeMatrix(weights.linears[name], round));
  return { ...weights, linears, errors: [] };
}

/** AWQ on one layer. All groups are searched on the original weights, then applied together, then ranges are clipped. */
export async function awqLayer(
  weights: LayerWeights,
  statistics: LayerStatistics,
  context: LayerContext,
): Promise<QuantizedLayer> {
  const { round, config } = context;
  const scales: Scales = {};
  const found: { group: Group; loss: Loss; rtn: number; ratio: number | undefined }[] = [];
  try {
    for (const group of GROUPS) {
      const loss = groupLoss(group, weights, statistics, context);
      found.push({ group, loss, rtn: 0, ratio: undefined });
      const { scale, ratio, plainLoss } = await searchGroup(group, loss, weights, statistics, context);
      scales[group.site] = storable(scale, group.site, weights);
      found[found.length - 1] = { group, loss, rtn: plainLoss, ratio };
    }
    const quantized = mapLinears((name) =>
      quantizeMatrix(weights.linears[name], round, scalingOf(name, scales, config)),
    );
    const errors: GroupError[] = [];
    for (const { group, loss, rtn, ratio } of found) {
      const chosen = await refine(group, quantized, loss, { weights, statistics, scales, context });
      errors.push({ group: group.site, rtn, chosen, ratio: ratio ?? null });
    }
    return { ...scaledVectors(weights, scales, config), linears: quantized, errors };
  } finally {
    for (const { loss } of found) loss.dispose();
  }
}

function searchGroup(
  { site, linears, stacks }: Group,
  loss: Loss,
  weights: LayerWeights,
  { meanAbs }: LayerStatistics,
  { round, breathe, config }: LayerContext,
): Promise<ScaleSearch> {
  const tie = site === 'o' ? (values: Float64Array) => tieHeads(values, config) : undefined;
  const matrices = (names: readonly Linear[]): Matrix[] => names.map((name) => weights.linears[name]);
  const measure = (s: Float32Array): number => {
    const packed = stacks.map((names) => packRounded(matrices(names), round, s));
    try {
      return loss.measure(packed);
    } finally {
      for (const { tensor } of packed) tensor.dispose();
    }
  };
  return searchScale(matrices(linears), { meanAbs: meanAbs[site], tie, group: round.group, loss: measure, breathe });
}

type Scales = Partial<Record<Site, Float32Array>>;

interface Refinement {
  readonly weights: LayerWeights;
  readonly statistics: LayerStatistics;
  readonly scales: Scales;
  readonly context: LayerContext;
}

/**
 * Clips ranges and rounds with feedback, matrix by matrix, keeping each where it helps: both see one matrix, and what counts is
 * the module's output. Changes `quantized`; returns its loss.
 */
async function refine(
  { site, linears, stacks }: Group,
  quantized: Record<Linear, QuantizedMatrix>,
  loss: Loss,
  { weights, statistics, scales, context: { config, round, feedback, breathe } }: Refinement,
): Promise<number> {
  const inputs = statistics.grams[site];
  const s = scales[site] ?? new Float32Array(inputs.width).fill(1);
  const pack = (names: readonly Linear[]): PackedMatrix =>
    packQuantizedMatrices(
      names.map((name) => quantized[name]),
      inverseScaling(names, quantized, scales, config),
    );
  const packed = stacks.map(pack);
  let least = loss.measure(packed);
  const attempt = async (name: Linear, candidate: QuantizedMatrix): Promise<void> => {
    const stack = stacks.findIndex((names) => names.includes(name));
    const [before, packedBefore] = [quantized[name], packed[stack] as PackedMatrix];
    quantized[name] = candidate;
    packed[stack] = pack(stacks[stack] as readonly Linear[]);
    const after = loss.measure(packed);
    if (after < least) {
      least = after;
      packedBefore.tensor.dispose();
    } else {
      quantized[name] = before;
      packed[stack]?.tensor.dispose();
      packed[stack] = packedBefore;
    }
    await breathe();
  };
  try {
    for (const name of linears) {
      const matrix = weights.linears[name];
      const scaling = scalingOf(name, scales, config);
      if (isClipped(name)) {
        const limits = clipLimits(matrix, round, scaling, gramsOf(inputs, s, round.group));
        await attempt(name, quantizeMatrix(matrix, round, scaling, limits));
      }
      if (!feedback) continue;
      const grams = gramsOf(inputs, s, inputs.block);
      await attempt(name, feedbackRound(matrix, quantized[name], scaling, inputs.block, grams));
    }
    return least;
  } finally {
    for (const { tensor } of packed) tensor.dispose();
  }
}

/** q and k are not clipped: their errors meet in a product, which the search does not see. */
const isClipped = (name: Linear): boolean => name !== 'q' && name !== 'k';

/**
 * Scales as the norm that absorbs them can hold them: norms are stored as binary16, so s is taken from the stored quotient, and
 * the product of norm and weights is what it was.
 */
function storable(scale: Float32Array, site: Site, weights: LayerWeights): Float32Array {
  const norm = { qkv: weights.inputNorm, mlp: weights.postNorm, o: undefined, down: undefined }[site];
  if (norm === undefined) return scale;
  return scale.map((s, c) => {
    const exact = (norm[c] as number) / roundToF16((norm[c] as number) / s);
    return Number.isFinite(exact) && exact > 0 ? exact : s;
  });
}

/**
 * Each value replaced by the mean over the query heads that read the same value head: v can absorb only scales that they share.
 * Without GQA nothing changes. (AutoAWQ leaves o alone under GQA; llm-compressor folds like this.)
 */
function tieHeads(values: Float64Array, { heads, kvHeads, headDim }: DecoderConfig): Float64Array {
  const share = heads / kvHeads;
  return values.map((_, i) => {
    const [first, c] = [Math.floor(i / headDim / share) * share, i % headDim];
    let sum = 0;
    for (let head = first; head < first + share; head++) sum += values[head * headDim + c] as number;
    return sum / share;
  });
}

/** Of o's scales, those of v's outputs. */
function perValueHead(scale: Float32Array, { heads, kvHeads, headDim }: DecoderConfig): Float32Array {
  const share = heads / kvHeads;
  return Float32Array.from(
    { length: kvHeads * headDim },
    (_, i) => scale[Math.floor(i / headDim) * share * headDim + (i % headDim)] as number,
  );
}

/** What is folded into norms and biases. */
function scaledVectors(
  { inputNorm, postNorm, biases }: LayerWeights,
  { qkv, o, mlp }: Scales,
  config: DecoderConfig,
): Pick<QuantizedLayer, 'inputNorm' | 'postNorm' | 'biases'> {
  const quotient = (values: Float32Array, s: Float32Array | undefined): Float32Array =>
    s === undefined ? values : values.map((value, i) => value / (s[i] as number));
  return {
    inputNorm: quotient(inputNorm, qkv),
    postNorm: quotient(postNorm, mlp),
    biases: biases.v === undefined ? biases : { ...biases, v: quotient(biases.v, o && perValueHead(o, config)) },
  };
}

const SITES_OF: Readonly<Record<Linear, { readonly input: Site; readonly output?: Site }>> = {
  q: { input: 'qkv' },
  k: { input: 'qkv' },
  v: { input: 'qkv', output: 'o' },
  o: { input: 'o' },
  gate: { input: 'mlp' },
  up: { input: 'mlp', output: 'down' },
  down: { input: 'down' },
};

/** How a matrix takes its input's scales up and its output's scales in. */
function scalingOf(name: Linear, scales: Scales, config: DecoderConfig): Scaling {
  const { input, output } = SITES_OF[name];
  const given = output && scales[output];
  return { columns: scales[input], rows: output === 'o' && given ? perValueHead(given, config) : given };
}

/** What undoes the scaling of matrices that share an input, stacked. */
function inverseScaling(
  names: readonly Linear[],
  quantized: Record<Linear, QuantizedMatrix>,
  scales: Scales,
  config: DecoderConfig,
): Scaling {
  const [first = 'q'] = names;
  const rows = names.map(
    (name) => scalingOf(name, scales, config).rows?.map((s) => 1 / s) ?? new Float32Array(quantized[name].rows).fill(1),
  );
  return { columns: scales[SITES_OF[first].input], rows: joined(rows) };
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function mapLinears<T>(make: (name: Linear) => T): Record<Linear, T> {
  return Object.fromEntries(LINEARS.map((name) => [name, make(name)])) as Record<Linear, T>;
}
