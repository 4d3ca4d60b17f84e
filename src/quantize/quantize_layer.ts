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
  readonly group: Site;
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

/** Llama's and Qwen2's groups. v can absorb o's scales only where each of its outputs feeds one input of o: without GQA. */
export function groupsOf({ linears: { v, o } }: LayerWeights): readonly Group[] {
  const sameShape = v.rows === o.rows && v.cols === o.cols;
  return [
    { site: 'qkv', linears: ['q', 'k', 'v'] },
    ...(sameShape ? [{ site: 'o', linears: ['o'] } as const] : []),
    { site: 'mlp', linears: ['gate', 'up'] },
    { site: 'down', linears: ['down'] },
  ];
}

export interface LayerContext {
  readonly config: DecoderConfig;
  readonly sequences: readonly Sequence[];
  readonly round: RoundOptions;
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
  const { round, breathe } = context;
  const groups = groupsOf(weights);
  const scales: Partial<Record<Site, Float32Array>> = {};
  const found: { group: Group; loss: Loss; rtn: number; ratio: number | undefined }[] = [];
  for (const group of groups) {
    const loss = groupLoss(group, weights, statistics, context);
    const matrices = group.linears.map((name) => weights.linears[name]);
    const { scale, ratio, plainLoss } = await searchScale(
      matrices,
      statistics.meanAbs[group.site],
      round,
      loss,
      breathe,
    );
    scales[group.site] = storable(scale, group.site, weights);
    found.push({ group, loss, rtn: plainLoss, ratio });
  }
  const applied = applyScales(weights, scales);
  const quantized = mapLinears((name) => quantizeMatrix(applied.linears[name], round));
  const errors: GroupError[] = [];
  for (const { group, loss, rtn, ratio } of found) {
    const measure = (): number => loss(group.linears.map((name) => unscaled(name, quantized[name], scales)));
    let chosen = measure();
    for (const name of group.linears.filter(isClipped)) {
      const before = quantized[name];
      quantized[name] = quantizeMatrix(await clipped(name, applied, statistics, scales, context), round);
      const after = measure();
      // The clip search sees one matrix; what counts is the module's output.
      if (after < chosen) chosen = after;
      else quantized[name] = before;
    }
    errors.push({ group: group.site, rtn, chosen, ratio: ratio ?? null });
  }
  const grouped = new Set(groups.flatMap(({ linears }) => linears));
  for (const name of LINEARS.filter((linear) => !grouped.has(linear)))
    quantized[name] = quantizeMatrix(await clipped(name, applied, statistics, scales, context), round);
  return { ...applied, linears: quantized, errors };
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

function applyScales(weights: LayerWeights, scales: Partial<Record<Site, Float32Array>>): LayerWeights {
  const { qkv, o, mlp, down } = scales;
  const columns = (name: Linear, s: Float32Array | undefined): Matrix =>
    s === undefined ? weights.linears[name] : scaleColumns(weights.linears[name], s);
  const quotient = (values: Float32Array, s: Float32Array | undefined): Float32Array =>
    s === undefined ? values : values.map((value, i) => value / (s[i] as number));
  const v = columns('v', qkv);
  const up = columns('up', mlp);
  return {
    inputNorm: quotient(weights.inputNorm, qkv),
    postNorm: quotient(weights.postNorm, mlp),
    linears: {
      q: columns('q', qkv),
      k: columns('k', qkv),
      v: o === undefined ? v : divideRows(v, o),
      o: columns('o', o),
      gate: columns('gate', mlp),
      up: down === undefined ? up : divideRows(up, down),
      down: columns('down', down),
    },
    biases: weights.biases.v === undefined ? weights.biases : { ...weights.biases, v: quotient(weights.biases.v, o) },
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
function unscaled(name: Linear, quantized: QuantizedMatrix, scales: Partial<Record<Site, Float32Array>>): Matrix {
  const { input, output } = SITES_OF[name];
  const [columns, rows] = [scales[input], output && scales[output]];
  const plain = dequantizeMatrix(quantized);
  const narrowed = columns === undefined ? plain : scaleColumns(plain, columns, true);
  return rows === undefined
    ? narrowed
    : divideRows(
        narrowed,
        rows.map((s) => 1 / s),
      );
}

/** The scaled matrix with its groups' ranges tightened. */
function clipped(
  name: Linear,
  { linears }: LayerWeights,
  { rows }: LayerStatistics,
  scales: Partial<Record<Site, Float32Array>>,
  { round, breathe }: LayerContext,
): Promise<Matrix> {
  const site = SITES_OF[name].input;
  const x = rows[site];
  return clipMatrix(linears[name], x, scales[site] ?? new Float32Array(x.width).fill(1), round, breathe);
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
