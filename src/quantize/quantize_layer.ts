// Quantises one decoder layer: AWQ's groups, the op that absorbs each group's scales, the clip search, and what it all does to
// the outputs of the inspected modules. Knows no files.
// Source: AWQ (arXiv 2306.00978); AutoAWQ `awq/models/{llama,qwen2}.py` for the groups.

import type { Tensor } from '@tensorflow/tfjs-core';
import { type DecoderConfig, ropeInverseFrequencies } from '../models/config';
import { linear } from '../ops/linear';
import { ropeTable } from '../ops/rope';
import { float32, floats } from '../ops/run';
import { start } from '../runtime/start';
import type { Sequence } from './calibration';
import { clipMatrix } from './clip_search';
import { feedbackRound } from './feedback';
import { roundToF16 } from './half';
import { attend, type LayerWeights, LINEARS, type Linear, packAttention, product, type Site } from './layer';
import { dequantizeMatrix, type Matrix, type QuantizedMatrix, quantizeMatrix, type RoundOptions } from './round';
import { divideRows, scaleColumns, searchScale } from './scale_search';
import type { LayerStatistics, Rows } from './statistics';

export type Method = 'awq' | 'rtn';

/** A group of linear layers that share an input and therefore scales, named by that input. */
interface Group {
  readonly site: Site;
  readonly linears: readonly Linear[];
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
  { site: 'qkv', linears: ['q', 'k', 'v'] },
  { site: 'o', linears: ['o'] },
  { site: 'mlp', linears: ['gate', 'up'] },
  { site: 'down', linears: ['down'] },
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
  const { round, breathe, config } = context;
  const scales: Scales = {};
  const found: { group: Group; loss: Loss; rtn: number; ratio: number | undefined }[] = [];
  for (const group of GROUPS) {
    const loss = groupLoss(group, weights, statistics, context);
    const matrices = group.linears.map((name) => weights.linears[name]);
    const tie = group.site === 'o' ? (values: Float64Array) => tieHeads(values, config) : undefined;
    const search = { meanAbs: statistics.meanAbs[group.site], tie, round, loss, breathe };
    const { scale, ratio, plainLoss } = await searchScale(matrices, search);
    scales[group.site] = storable(scale, group.site, weights);
    found.push({ group, loss, rtn: plainLoss, ratio });
  }
  const applied = applyScales(weights, scales, config);
  const quantized = mapLinears((name) => quantizeMatrix(applied.linears[name], round));
  const errors: GroupError[] = [];
  for (const { group, loss, rtn, ratio } of found) {
    const measure = (): number => loss(group.linears.map((name) => unscaled(name, quantized[name], scales, config)));
    const chosen = await refine(group, applied, quantized, measure, { statistics, scales, context });
    errors.push({ group: group.site, rtn, chosen, ratio: ratio ?? null });
  }
  return { ...applied, linears: quantized, errors };
}

type Scales = Partial<Record<Site, Float32Array>>;

interface Refinement {
  readonly statistics: LayerStatistics;
  readonly scales: Scales;
  readonly context: LayerContext;
}

/**
 * Clips ranges and rounds with feedback, matrix by matrix, keeping each where it helps: both see one matrix, and what counts is
 * the module's output. Changes `quantized`; returns its loss.
 */
async function refine(
  { site, linears }: Group,
  applied: LayerWeights,
  quantized: Record<Linear, QuantizedMatrix>,
  measure: () => number,
  { statistics, scales, context: { round, feedback, breathe } }: Refinement,
): Promise<number> {
  const inputs = statistics.grams[site];
  const s = scales[site] ?? new Float32Array(inputs.width).fill(1);
  let loss = measure();
  const attempt = (name: Linear, candidate: QuantizedMatrix): void => {
    const before = quantized[name];
    quantized[name] = candidate;
    const after = measure();
    if (after < loss) loss = after;
    else quantized[name] = before;
  };
  for (const name of linears) {
    const matrix = applied.linears[name];
    if (isClipped(name)) attempt(name, quantizeMatrix(await clipMatrix(matrix, inputs, s, round, breathe), round));
    if (feedback) attempt(name, await feedbackRound(matrix, quantized[name], inputs, s, breathe));
  }
  return loss;
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

function applyScales(weights: LayerWeights, scales: Scales, config: DecoderConfig): LayerWeights {
  const { qkv, o, mlp, down } = scales;
  const columns = (name: Linear, s: Float32Array | undefined): Matrix =>
    s === undefined ? weights.linears[name] : scaleColumns(weights.linears[name], s);
  const quotient = (values: Float32Array, s: Float32Array | undefined): Float32Array =>
    s === undefined ? values : values.map((value, i) => value / (s[i] as number));
  const values = o && perValueHead(o, config);
  const v = columns('v', qkv);
  const up = columns('up', mlp);
  return {
    inputNorm: quotient(weights.inputNorm, qkv),
    postNorm: quotient(weights.postNorm, mlp),
    linears: {
      q: columns('q', qkv),
      k: columns('k', qkv),
      v: values === undefined ? v : divideRows(v, values),
      o: columns('o', o),
      gate: columns('gate', mlp),
      up: down === undefined ? up : divideRows(up, down),
      down: columns('down', down),
    },
    biases:
      weights.biases.v === undefined ? weights.biases : { ...weights.biases, v: quotient(weights.biases.v, values) },
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

/** What a quantised matrix stands for in terms of unscaled inputs and outputs. */
function unscaled(name: Linear, quantized: QuantizedMatrix, scales: Scales, config: DecoderConfig): Matrix {
  const { input, output } = SITES_OF[name];
  const columns = scales[input];
  const given = output && scales[output];
  const rows = output === 'o' && given ? perValueHead(given, config) : given;
  const plain = dequantizeMatrix(quantized);
  const narrowed = columns === undefined ? plain : scaleColumns(plain, columns, true);
  return rows === undefined
    ? narrowed
    : divideRows(
        narrowed,
        rows.map((s) => 1 / s),
      );
}

/** NMSE of the inspected module's output when the group's matrices are replaced. */
type Loss = (replaced: readonly Matrix[]) => number;

function groupLoss(group: Group, weights: LayerWeights, statistics: LayerStatistics, context: LayerContext): Loss {
  if (group.site === 'qkv') return attentionLoss(weights, statistics, context);
  const { linears } = weights;
  const x = statistics.rows[group.site];
  const run = (input: Tensor, matrices: readonly Matrix[]): Tensor => {
    const [first, second] = matrices;
    if (first === undefined || second === undefined) return product(input, matrices);
    const { tf } = start();
    const [gate, up] = [product(input, [first]), product(input, [second])];
    const lifted = tf.tidy(() => tf.mul(tf.mul(gate, tf.sigmoid(gate)), up));
    const out = product(lifted, [linears.down]);
    for (const tensor of [gate, up, lifted]) tensor.dispose();
    return out;
  };
  const evaluate = (matrices: readonly Matrix[]): Float32Array => {
    const input = float32(x.values, [x.rows, x.width]);
    const out = run(input, matrices);
    const values = floats(out).slice();
    input.dispose();
    out.dispose();
    return values;
  };
  const target = evaluate(group.linears.map((name) => linears[name]));
  const size = weightedSquares(target, undefined, x);
  return (replaced) => weightedSquares(evaluate(replaced), target, x) / size;
}

function attentionLoss(weights: LayerWeights, { whole }: LayerStatistics, context: LayerContext): Loss {
  const { config, sequences } = context;
  const frequencies = ropeInverseFrequencies(config);
  const evaluate = (linears: LayerWeights['linears']): Float32Array[] => {
    const packed = packAttention({ linears, biases: weights.biases });
    const outputs = whole.map(({ sequence, rows }) => {
      const n = float32(rows.values, [rows.rows, rows.width]);
      const table = ropeTable(sequences[sequence]?.positions ?? [], frequencies);
      const mixed = attend(n, table, packed, config);
      const out = linear(mixed, packed.o, packed.oBias);
      const values = floats(out).slice();
      for (const tensor of [n, table, mixed, out]) tensor.dispose();
      return values;
    });
    packed.dispose();
    return outputs;
  };
  const targets = evaluate(weights.linears);
  const total = (outputs: readonly Float32Array[], against: readonly Float32Array[] | undefined): number =>
    whole.reduce((sum, { rows }, i) => sum + weightedSquares(outputs[i] as Float32Array, against?.[i], rows), 0);
  const size = total(targets, undefined);
  return ([q, k, v]) => total(evaluate({ ...weights.linears, ...(q && k && v ? { q, k, v } : {}) }), targets) / size;
}

/** Sum over rows of weight times squared difference (or square, without `against`). */
function weightedSquares(values: Float32Array, against: Float32Array | undefined, { rows, weights }: Rows): number {
  const width = values.length / rows;
  let total = 0;
  for (let row = 0; row < rows; row++) {
    let sum = 0;
    for (let i = row * width; i < (row + 1) * width; i++) {
      const difference = (values[i] as number) - (against?.[i] ?? 0);
      sum += difference * difference;
    }
    total += sum * (weights[row] as number);
  }
  return total;
}

function mapLinears<T>(make: (name: Linear) => T): Record<Linear, T> {
  return Object.fromEntries(LINEARS.map((name) => [name, make(name)])) as Record<Linear, T>;
}
