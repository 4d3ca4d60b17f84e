// SmoothQuant by itself: scales, folding, rounding, and the float block whose inputs it is calibrated on.
import type { TowerConfig } from '../../src/models/tower';
import { linearReference } from '../../src/ops/linear';
import { layerNormReference } from '../../src/ops/norm';
import { float32, floats } from '../../src/ops/run';
import { visionBlock } from '../../src/ops/vision_block';
import { dequantize, packArrays, packInt8 } from '../../src/ops/weights';
import type { Matrix } from '../../src/quantize/round';
import { dividedNorm, multipliedInputs, roundToInt8, smoothingScales, takeLargest } from '../../src/quantize/smooth';
import { floatTowerBlock, readTowerBlock } from '../../src/quantize/tower_block';
import { start } from '../../src/runtime/start';
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

test('folding leaves the product as it was', () => {
  const [d, w] = [48, matrix(20, 48, 0.37)];
  const norm = { weight: wave(d, 0.2).map((x) => 1 + x ** 9 * 30), bias: wave(d, 0.9) };
  const x = wave(7 * d, 0.11);
  const before = layerNormReference(x, norm.weight, norm.bias, 1e-6);
  const largest = new Float32Array(d);
  takeLargest(largest, Float32Array.from(before));
  const s = smoothingScales(largest, [w]);
  const folded = dividedNorm(norm, s);
  const after = layerNormReference(x, folded.weight, folded.bias, 1e-6);
  const product = (inputs: Float64Array, values: Float32Array): Float64Array => linearReference(inputs, values, d);
  expect(nmse(product(after, multipliedInputs(w, s).values), product(before, w.values))).toBeLessThan(1e-12);
  // and evens out what is rounded: the norm's outputs differ less from channel to channel
  const smoothed = new Float32Array(d);
  takeLargest(smoothed, Float32Array.from(after));
  const ratio = (values: Float32Array): number => Math.max(...values) / Math.min(...values);
  expect(ratio(smoothed)).toBeLessThan(ratio(largest) / 2);
});

describe('rounding', () => {
  it('is what packing floats does, bit for bit', () => {
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

test('the block in pieces is the fused block', () => {
  const config: TowerConfig = {
    ...{ hiddenSize: 24, intermediateSize: 40, layers: 1, heads: 3, depth: 1 },
    ...{ imageSize: 8, patchSize: 2, normEps: 1e-6, activation: 'gelu_pytorch_tanh' },
    ...{ patchBias: true, classToken: false, preNorm: false },
  };
  let step = 0.1;
  const given = new Map<string, Float32Array>();
  const made = (name: string, shape: readonly number[]): Float32Array => {
    step += 0.07;
    const values = wave(
      shape.reduce((a, b) => a * b, 1),
      step,
    );
    given.set(name.replace(/^encoder\.layers\.0\.(self_attn\.|mlp\.)?/, ''), values);
    return values;
  };
  const block = readTowerBlock(made, config, 0);
  const of = (name: string): Float32Array => given.get(name) ?? new Float32Array();
  const vector = (...names: string[]) => {
    const values = Float32Array.from(names.flatMap((name) => [...of(name)]));
    return float32(values, [values.length]);
  };
  const qkv = ['q_proj.weight', 'k_proj.weight', 'v_proj.weight'].map(of);
  const x = float32(wave(9 * 24, 0.77), [9, 24]);
  const [fused, columns] = visionBlock(
    x,
    {
      ...{ norm1: vector('layer_norm1.weight'), norm1Bias: vector('layer_norm1.bias') },
      ...{ norm2: vector('layer_norm2.weight'), norm2Bias: vector('layer_norm2.bias') },
      ...{
        qkv: packArrays(qkv, 24),
        qkvBias: vector('q_proj.bias', 'k_proj.bias', 'v_proj.bias'),
      },
      ...{ out: packArrays([of('out_proj.weight')], 24), outBias: vector('out_proj.bias') },
      ...{ fc1: packArrays([of('fc1.weight')], 24), fc1Bias: vector('fc1.bias') },
      ...{ fc2: packArrays([of('fc2.weight')], 40), fc2Bias: vector('fc2.bias') },
      ...{ eps: float32([1e-6], [1]), heads: 3, activation: 'gelu_pytorch_tanh' },
    },
    { features: true, columns: false },
  );
  const seen: Record<string, Float32Array> = {};
  const pieces = floatTowerBlock(block, config);
  const y = pieces.run(x, (site, input) => {
    seen[site] = floats(input).slice();
  });
  expect(nmse(floats(y), floats(fused))).toBeLessThanOrEqual(F32_NMSE);
  const normed = layerNormReference(floats(x), of('layer_norm1.weight'), of('layer_norm1.bias'), 1e-6);
  expect(nmse(seen.qkv ?? [], normed)).toBeLessThanOrEqual(F32_NMSE);
  const widths = { qkv: 24, out: 24, fc1: 24, fc2: 40 };
  expect(Object.fromEntries(Object.entries(seen).map(([site, values]) => [site, values.length / 9]))).toEqual(widths);
  pieces.dispose();
  for (const tensor of [x, y, fused, columns]) tensor.dispose();
});
