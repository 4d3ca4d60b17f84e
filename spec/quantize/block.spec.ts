// The search on one block: folding scales into norms and preceding layers does not change the function, and its report agrees with its result.

import { dequantizeMatrix } from '../../src/checkpoint/round';
import type { Block } from '../../src/models/blocks';
import type { DecoderConfig } from '../../src/models/config';
import type { Plan } from '../../src/models/plan';
import type { ProjectorStep } from '../../src/models/projector';
import { quantizeMatrix } from '../../src/ops/quantize';
import { float32, floats } from '../../src/ops/run';
import { type BlockWeights, floatOps } from '../../src/quantize/block_weights';
import { type Part, partOf, type Rows } from '../../src/quantize/parts';
import { type SearchedBlock, searchBlock } from '../../src/quantize/search';
import { collectStatistics, drawSampling } from '../../src/quantize/statistics';
import { start } from '../../src/runtime/start';
import { noise, randomMatrix } from './matrices';

const ROUND = { group: 16, symmetric: false };
const pace = async (): Promise<void> => undefined;

function configOf(heads: number, kvHeads: number): DecoderConfig {
  return {
    ...{ hiddenSize: 32, intermediateSize: 48, layers: 1, heads, kvHeads, headDim: 8, vocabSize: 8, ropeTheta: 1e4 },
    ...{
      ropeScaling: { type: 'default' },
      rmsNormEps: 1e-6,
      maxPositions: 64,
      tieWordEmbeddings: true,
      hiddenAct: 'silu',
    },
    attentionBias: { qkv: true, o: false },
  };
}

const decoderPart = (config: DecoderConfig): Part => partOf({ decoder: config } as Plan, 'decoder', ROUND.group);

/** Random weights; a few channels of the norms are large, as in trained models, so that scaling pays. */
function weightsOf({ block }: Part): BlockWeights {
  const { linears, norms } = block(0);
  const matrices = linears.map(({ name, rows, cols }, i) => {
    const { values } = randomMatrix(rows, cols, i + 10);
    return [name, { rows, cols, values: values.map((w) => (w * 0.7) / Math.sqrt(cols)) }] as const;
  });
  const scales = norms.map(({ name, width, bias }, i) => {
    const weight = noise(width, i + 1).map((w, c) => (1 + 0.2 * w) * (c % 9 === 4 ? 8 : 1));
    return [name, bias ? { weight, bias: noise(width, i + 60) } : { weight }] as const;
  });
  const biased = linears.filter(({ bias }) => bias).map(({ name, rows }, i) => [name, noise(rows, i + 30)] as const);
  return {
    linears: Object.fromEntries(matrices),
    norms: Object.fromEntries(scales),
    biases: Object.fromEntries(biased),
  };
}

function sequencesOf(count: number, rows: number): Rows[] {
  return Array.from({ length: count }, (_, s) => ({
    x: noise(rows * 32, 100 + s),
    positions: Array.from({ length: rows }, (_, i) => i + s),
    visual: Uint8Array.from({ length: rows }, (_, i) => Number(i % 3 !== 0)),
  }));
}

function outputs(part: Part, weights: BlockWeights, sequences: readonly Rows[]): Float32Array[] {
  return sequences.map((sequence) => run(part, weights, sequence));
}

function run(part: Part, weights: BlockWeights, rows: Rows, see?: Parameters<Block['run']>[2]): Float32Array {
  const ops = floatOps(part.block(0), weights);
  const t = rows.visual.length;
  const x = float32(rows.x, [t, rows.x.length / t]);
  const y = start().tf.tidy(() => part.block(0).run({ ...ops, attend: part.attend(rows, 0) }, x, see));
  const values = floats(y).slice();
  for (const tensor of [x, y]) tensor.dispose();
  ops.dispose();
  return values;
}

function nmse(a: readonly Float32Array[], b: readonly Float32Array[]): number {
  let [error, size] = [0, 0];
  for (const [i, values] of b.entries())
    for (const [j, value] of values.entries()) {
      error += ((a[i]?.[j] as number) - value) ** 2;
      size += value ** 2;
    }
  return error / size;
}

/** What a checkpoint of the searched block holds, in f32. */
function dequantized({ norms, biases }: BlockWeights, { linears, vectors }: SearchedBlock): BlockWeights {
  const matrices = Object.entries(linears).map(([name, matrix]) => [name, dequantizeMatrix(matrix)] as const);
  const changed = (name: string, values: Float32Array): Float32Array => vectors.get(name) ?? values;
  return {
    linears: Object.fromEntries(matrices),
    biases: Object.fromEntries(Object.entries(biases).map(([name, values]) => [name, changed(`${name}.bias`, values)])),
    norms: Object.fromEntries(
      Object.entries(norms).map(([name, { weight, bias }]) => [
        name,
        { weight: changed(`${name}.weight`, weight), bias: bias && changed(`${name}.bias`, bias) },
      ]),
    ),
  };
}

function rounded(weights: BlockWeights): BlockWeights {
  const made = Object.entries(weights.linears).map(([name, matrix]) => {
    return [name, dequantizeMatrix(quantizeMatrix(matrix, ROUND))] as const;
  });
  return { ...weights, linears: Object.fromEntries(made) };
}

function search(part: Part, weights: BlockWeights, sequences: readonly Rows[], feedback: boolean) {
  const collector = collectStatistics(sequences, part.sample(sequences, 120), part.block(0).sites, ROUND.group);
  for (const [s, rows] of sequences.entries()) run(part, weights, rows, (site, input) => collector.see(s, site, input));
  const attend = (s: number) => part.attend(sequences[s] as Rows, 0);
  const { vectors } = part;
  return searchBlock(part.block(0), weights, collector.finish(), { round: ROUND, feedback, vectors, attend, pace });
}

describe.each([
  ['every head with its own values', 4, 4],
  ['grouped queries', 4, 2],
  ['one value head', 4, 1],
] as const)('%s', (_, heads, kvHeads) => {
  const part = decoderPart(configOf(heads, kvHeads));
  const weights = weightsOf(part);
  const sequences = sequencesOf(6, 40);
  const unseen = sequencesOf(9, 40).slice(6);
  const target = outputs(part, weights, unseen);
  const rtn = nmse(outputs(part, rounded(weights), unseen), target);

  it.each([false, true])(
    'each group is better than rounding to nearest, and so is the layer; feedback %s',
    async (feedback) => {
      const made = await search(part, weights, sequences, feedback);
      expect(made.errors.map(({ group }) => group)).toEqual(['qkv', 'o', 'mlp', 'down']);
      for (const { rtn: before, chosen } of made.errors) expect(chosen).toBeLessThan(before);
      expect(made.errors.map(({ ratio }) => ratio)).not.toEqual([null, null, null, null]);
      // If a scale were folded wrongly anywhere, the error would be large.
      expect(nmse(outputs(part, dequantized(weights, made), unseen), target)).toBeLessThan(rtn * 0.9);
      expect([...made.vectors.keys()].sort()).toEqual([
        'input_layernorm.weight',
        'post_attention_layernorm.weight',
        'self_attn.v_proj.bias',
      ]);
    },
  );
});

describe('a chain of a norm and two linear layers', () => {
  const steps: readonly ProjectorStep[] = [
    { kind: 'norm', name: 'norm', width: 48, bias: true, eps: 1e-5 },
    { kind: 'linear', name: 'first', rows: 32, cols: 48, bias: true, activation: 'none' },
    { kind: 'linear', name: 'second', rows: 21, cols: 32, bias: false, activation: 'none' },
  ];
  const part = partOf({ projector: steps } as unknown as Plan, 'projector', ROUND.group);
  const weights = weightsOf(part);
  const sequences = [11, 26].map((rows, i): Rows => {
    return { x: noise(rows * 48, 90 + i), positions: [], visual: new Uint8Array(rows).fill(1) };
  });

  it('only the layer after the norm is scaled; clipping and feedback improve both', async () => {
    const { errors, vectors } = await search(part, weights, sequences, true);
    expect(errors.map(({ group, ratio }) => [group, ratio === null])).toEqual([
      ['first', false],
      ['second', true],
    ]);
    for (const { rtn, chosen } of errors) expect(chosen).toBeLessThan(rtn);
    expect([...vectors.keys()].sort()).toEqual(['norm.bias', 'norm.weight']);
  });

  it('only the error of the last layer is reported', async () => {
    const made = await search(part, weights, sequences, true);
    const second = dequantizeMatrix(made.linears.second as Parameters<typeof dequantizeMatrix>[0]);
    const only = { ...weights, linears: { ...weights.linears, second } };
    const error = nmse(outputs(part, only, sequences), outputs(part, weights, sequences));
    expect(error / (made.errors[1]?.chosen ?? 0)).toBeCloseTo(1, 3);
  });
});

it('statistics are means and products of all rows, for any sequences', () => {
  const sites = [{ name: 'x', linears: ['w'], width: 48, mixesRows: false }];
  const sequences = [11, 26].map((rows) => ({ visual: new Uint8Array(rows).fill(1) }));
  const x = noise(37 * 48, 7);
  const collector = collectStatistics(sequences, drawSampling(sequences, 37), sites, 16);
  for (const [s, [begin, end]] of (
    [
      [0, 11],
      [11, 37],
    ] as const
  ).entries())
    collector.see(s, 'x', float32(x.subarray(begin * 48, end * 48), [end - begin, 48]));
  const { meanAbs, gram, held } = collector.finish().x as ReturnType<typeof collector.finish>[string];
  expect(held[0]?.values).toEqual(x);
  for (const c of [0, 3, 47]) {
    let [sum, product] = [0, 0];
    for (let t = 0; t < 37; t++) {
      sum += Math.abs(x[t * 48 + c] as number);
      product += (x[t * 48 + c] as number) * (x[t * 48 + 3] as number);
    }
    expect(meanAbs[c]).toBeCloseTo(sum / 37, 5);
    expect(gram.parts[0]?.[c * gram.block + 3]).toBeCloseTo(product / 37, 3);
  }
});

it('draws equally many visual and text rows, and all if there are few', () => {
  const sequences = sequencesOf(3, 30);
  const { sampled, whole, counts } = drawSampling(sequences, 24);
  expect(counts).toEqual({ visual: 60, text: 30 });
  const kinds = sampled.flatMap((rows, s) => Array.from(rows, (row) => sequences[s]?.visual[row]));
  expect([0, 1].map((kind) => kinds.filter((one) => one === kind).length)).toEqual([12, 12]);
  expect(whole.size).toBe(1);
  const everything = drawSampling(sequences, 1000);
  expect(everything.sampled.map(({ length }) => length)).toEqual([30, 30, 30]);
  expect(everything.whole.size).toBe(3);
});
