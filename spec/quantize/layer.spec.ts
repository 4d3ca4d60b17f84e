// One layer: the pieces equal the fused op, and what quantising folds into norms and neighbours changes nothing else.
import type { DecoderConfig } from '../../src/models/config';
import { ropeInverseFrequencies } from '../../src/models/config';
import { decoderLayer } from '../../src/ops/decoder_layer';
import { allocKv } from '../../src/ops/kv_cache';
import { ropeTable } from '../../src/ops/rope';
import { float32, floats, int32 } from '../../src/ops/run';
import { packArrays } from '../../src/ops/weights';
import type { Sequence } from '../../src/quantize/calibration';
import { floatLayer, type LayerWeights, LINEARS, type Linear, linearShapes } from '../../src/quantize/layer';
import { awqLayer, type QuantizedLayer, roundLayer } from '../../src/quantize/quantize_layer';
import { dequantizeMatrix, type Matrix } from '../../src/quantize/round';
import { collectStatistics, drawSampling } from '../../src/quantize/statistics';
import { noise } from './matrices';

const ROUND = { group: 16, symmetric: false };
const breathe = async (): Promise<void> => undefined;

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

/** Random weights; a few channels of the norms are large, as in trained models, so that scaling pays. */
function layerOf(config: DecoderConfig): LayerWeights {
  const shapes = linearShapes(config);
  const matrix = (name: Linear, i: number): Matrix => {
    const [rows, cols] = shapes[name];
    return { rows, cols, values: noise(rows * cols, i + 10).map((w) => (w * 0.7) / Math.sqrt(cols)) };
  };
  const norm = (seed: number) => noise(32, seed).map((w, c) => (1 + 0.2 * w) * (c % 9 === 4 ? 8 : 1));
  const linears = Object.fromEntries(LINEARS.map((name, i) => [name, matrix(name, i)])) as Record<Linear, Matrix>;
  const biases = { q: noise(shapes.q[0], 30), k: noise(shapes.k[0], 31), v: noise(shapes.v[0], 32) };
  return { inputNorm: norm(1), postNorm: norm(2), linears, biases };
}

function sequencesOf(count: number, rows: number): Sequence[] {
  return Array.from({ length: count }, (_, s) => ({
    x: noise(rows * 32, 100 + s),
    positions: Array.from({ length: rows }, (_, i) => i + s),
    visual: Uint8Array.from({ length: rows }, (_, i) => Number(i % 3 !== 0)),
    answers: [],
  }));
}

function outputs(weights: LayerWeights, config: DecoderConfig, sequences: readonly Sequence[]): Float32Array[] {
  const layer = floatLayer(weights, config);
  const out = sequences.map(({ x, positions }) => {
    const y = layer.run(float32(x, [positions.length, 32]), ropeTable(positions, ropeInverseFrequencies(config)));
    return floats(y).slice();
  });
  layer.dispose();
  return out;
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

const dequantized = (layer: QuantizedLayer): LayerWeights => ({
  ...layer,
  linears: Object.fromEntries(LINEARS.map((name) => [name, dequantizeMatrix(layer.linears[name])])) as Record<
    Linear,
    Matrix
  >,
});

it('the pieces equal the fused layer', () => {
  const config = configOf(4, 2);
  const weights = layerOf(config);
  const [sequence] = sequencesOf(1, 11) as [Sequence];
  const { q, k, v, o, gate, up, down } = weights.linears;
  const { biases } = weights;
  const bias = [...(biases.q ?? []), ...(biases.k ?? []), ...(biases.v ?? [])];
  const [y] = decoderLayer(
    float32(sequence.x, [11, 32]),
    allocKv(2, 11, 8, 'f32'),
    ropeTable(sequence.positions, ropeInverseFrequencies(config)),
    int32([]),
    int32([0, 0, 0]),
    {
      inputNorm: float32(weights.inputNorm, [32]),
      qkv: packArrays(
        [q, k, v].map(({ values }) => values),
        32,
      ),
      qkvBias: float32(bias, [bias.length]),
      o: packArrays([o.values], 32),
      oBias: float32([], [0]),
      postNorm: float32(weights.postNorm, [32]),
      gateUp: packArrays([gate.values, up.values], 32, { gated: true }),
      down: packArrays([down.values], 48),
      eps: float32([1e-6], [1]),
    },
  );
  expect(nmse(outputs(weights, config, [sequence]), [floats(y)])).toBeLessThan(1e-12);
});

describe.each([
  ['every head with its own values', 4, 4],
  ['grouped queries', 4, 2],
  ['one value head', 4, 1],
] as const)('%s', (_, heads, kvHeads) => {
  const config = configOf(heads, kvHeads);
  const weights = layerOf(config);
  const sequences = sequencesOf(6, 40);
  const unseen = sequencesOf(9, 40).slice(6);
  const target = outputs(weights, config, unseen);
  const quantizedWith = async (feedback: boolean): Promise<QuantizedLayer> => {
    const collector = collectStatistics(sequences, drawSampling(sequences, 120), config, ROUND.group);
    const layer = floatLayer(weights, config);
    for (const [s, { x, positions }] of sequences.entries())
      layer.run(float32(x, [40, 32]), ropeTable(positions, ropeInverseFrequencies(config)), (site, input) =>
        collector.see(s, site, input),
      );
    layer.dispose();
    return awqLayer(weights, collector.finish(), { config, sequences, round: ROUND, feedback, breathe });
  };
  const rtn = nmse(outputs(dequantized(roundLayer(weights, ROUND)), config, unseen), target);

  it.each([false, true])(
    'each group is better than rounding to nearest, and so is the layer; feedback %s',
    async (feedback) => {
      const layer = await quantizedWith(feedback);
      expect(layer.errors.map(({ group }) => group)).toEqual(['qkv', 'o', 'mlp', 'down']);
      for (const { rtn: before, chosen } of layer.errors) expect(chosen).toBeLessThan(before);
      expect(layer.errors.map(({ ratio }) => ratio)).not.toEqual([null, null, null, null]);
      // Were a scale folded wrongly anywhere, the layer would be far off.
      expect(nmse(outputs(dequantized(layer), config, unseen), target)).toBeLessThan(rtn * 0.9);
      expect(layer.biases.q).toBe(weights.biases.q);
      expect(layer.inputNorm).not.toEqual(weights.inputNorm);
    },
  );
});

it('draws visual and text rows alike, and all where there are few', () => {
  const sequences = sequencesOf(3, 30);
  const { sampledCounts, sampled, whole, counts } = drawSampling(sequences, 24);
  expect(counts).toEqual({ visual: 60, text: 30 });
  expect(sampledCounts).toEqual({ visual: 12, text: 12 });
  expect(sampled.reduce((sum, { length }) => sum + length, 0)).toBe(24);
  expect(whole.size).toBe(1);
  const everything = drawSampling(sequences, 1000);
  expect(everything.sampled.map(({ length }) => length)).toEqual([30, 30, 30]);
  expect(everything.whole.size).toBe(3);
});
