// SmoothQuant alone: scales, folding, rounding, and the float block whose inputs calibrate it.

import type { Matrix } from '../../src/checkpoint/round';
import { towerBlock } from '../../src/models/blocks';
import { PLAIN_VIT } from '../../src/models/tower_config';
import { float32, floats } from '../../src/ops/run';
import { dequantize, packInt8 } from '../../src/ops/weights';
import { floatOps, readBlock } from '../../src/quantize/block_weights';
import {
  dividedNorm,
  multipliedInputs,
  roundToInt8,
  smoothBlock,
  smoothingScales,
  takeLargest,
} from '../../src/quantize/smooth';
import { start } from '../../src/runtime/start';
import { linearReference } from '../../testing/ops/references/linear';
import { layerNormReference } from '../../testing/ops/references/norm';
import { F32_NMSE, nmse } from '../support/nmse';

const wave = (count: number, step: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * i * step + step));
const matrix = (rows: number, cols: number, step: number): Matrix => ({ rows, cols, values: wave(rows * cols, step) });

describe('scales', () => {
  it('are sqrt(max|x| / max|w|) over all matrices that share the input', () => {
    const a: Matrix = { rows: 2, cols: 3, values: Float32Array.of(1, -4, 0, 0.5, 2, 0) };
    const b: Matrix = { rows: 1, cols: 3, values: Float32Array.of(-9, 1, 0) };
    const s = smoothingScales(Float32Array.of(4, 16, 0.1), [a, b]);
    expect(nmse(s, [2 / 3, 2, Math.sqrt(0.1) / Math.sqrt(1e-5)])).toBeLessThan(1e-12);
  });

  it('are at least 1e-5, also of a channel that is always 0', () => {
    const s = smoothingScales(Float32Array.of(0, 1e-12), [matrix(3, 2, 0.4)]);
    for (const value of s) expect(value).toBe(Math.fround(1e-5));
  });

  it('come from the largest of all rows', () => {
    const largest = new Float32Array(3);
    takeLargest(largest, Float32Array.of(1, -5, 0, -2, 3, 0));
    takeLargest(largest, Float32Array.of(0, 0, -7));
    expect([...largest]).toEqual([2, 5, 7]);
  });
});

test('folding does not change the product', () => {
  const [d, w] = [48, matrix(20, 48, 0.37)];
  const norm = { weight: wave(d, 0.2).map((x) => 1 + x ** 9 * 30), bias: wave(d, 0.9) };
  const x = wave(7 * d, 0.11);
  const before = layerNormReference(x, norm.weight, norm.bias, 1e-6);
  const largest = new Float32Array(d);
  takeLargest(largest, Float32Array.from(before));
  const s = smoothingScales(largest, [w]);
  const folded = dividedNorm(norm, s);
  const after = layerNormReference(x, folded.weight, folded.bias ?? [], 1e-6);
  const product = (inputs: Float64Array, values: Float32Array): Float64Array => linearReference(inputs, values, d);
  expect(nmse(product(after, multipliedInputs(w, s).values), product(before, w.values))).toBeLessThan(1e-12);
  // and evens out what is rounded: the norm's outputs differ less from channel to channel
  const smoothed = new Float32Array(d);
  takeLargest(smoothed, Float32Array.from(after));
  const ratio = (values: Float32Array): number => Math.max(...values) / Math.min(...values);
  expect(ratio(smoothed)).toBeLessThan(ratio(largest) / 2);
});

describe('rounding', () => {
  it('equals packing floats, bit for bit', () => {
    const w = matrix(37, 45, 0.53);
    w.values.fill(0, 45, 90); // a row of zeros
    const { q, scale, rows, cols } = roundToInt8(w);
    const { native } = start();
    const source = native.openMemory(w.values);
    const packed = packInt8([{ source, offset: 0, rows, type: 'f32' }], cols);
    const plain = dequantize(packed);
    const expected = floats(plain);
    native.release(source);
    expect(Float32Array.from(q, (value, i) => value * (scale[Math.floor(i / cols)] ?? 0))).toEqual(expected.slice());
    for (const tensor of [packed.tensor, plain]) tensor.dispose();
  });

  it('is to even, and uses -127 .. 127', () => {
    const { q, scale } = roundToInt8({ rows: 1, cols: 6, values: Float32Array.of(127, 0.5, 1.5, -2.5, -127, 126.5) });
    expect([...q]).toEqual([127, 0, 2, -2, -127, 126]);
    expect(scale[0]).toBe(1);
  });
});

test('a block exposes the inputs of its linear layers, and inputs after norms are smoothed', () => {
  const block = towerBlock({
    ...PLAIN_VIT,
    ...{ hiddenSize: 24, intermediateSize: 40, layers: 1, heads: 3, depth: 1 },
    ...{ imageSize: 8, patchSize: 2, normEps: 1e-6, activation: 'gelu_pytorch_tanh' },
    ...{ patchBias: true, classToken: false, preNorm: false },
  });
  let step = 0.1;
  const weights = readBlock(block, (_, shape) => {
    step += 0.07;
    return wave(
      shape.reduce((a, b) => a * b, 1),
      step,
    );
  });
  const x = float32(wave(9 * 24, 0.77), [9, 24]);
  const ops = { ...floatOps(block, weights), attend: () => float32(wave(9 * 24, 0.3), [9, 3, 8]) };
  const seen: Record<string, Float32Array> = {};
  const see = (site: string, input: Parameters<typeof floats>[0]): void => {
    seen[site] = floats(input).slice();
  };
  const y = start().tf.tidy(() => block.run(ops, x, see));
  const { weight, bias } = weights.norms.layer_norm1 ?? {};
  const normed = layerNormReference(floats(x), weight ?? [], bias ?? [], 1e-6);
  expect(nmse(seen.qkv ?? [], normed)).toBeLessThanOrEqual(F32_NMSE);
  const widths = { qkv: 24, out: 24, fc1: 24, fc2: 40 };
  expect(Object.fromEntries(Object.entries(seen).map(([site, values]) => [site, values.length / 9]))).toEqual(widths);
  const made = smoothBlock(block, weights, new Map([['qkv', new Float32Array(24).fill(9)]]));
  expect([...made.vectors.keys()]).toEqual(['layer_norm1.weight', 'layer_norm1.bias']);
  const matrixOf = (name: string) => weights.linears[name] as Matrix;
  expect(made.linears['mlp.fc1']).toEqual(roundToInt8(matrixOf('mlp.fc1')));
  expect(made.linears['self_attn.q_proj']).not.toEqual(roundToInt8(matrixOf('self_attn.q_proj')));
  ops.dispose();
  for (const tensor of [x, y]) tensor.dispose();
});
