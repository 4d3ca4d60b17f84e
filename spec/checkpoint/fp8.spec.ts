// 8-bit floats widened to floats, bit for bit as torch does (scripts/fixtures/fp8.py), and the refusals of their tensors.

import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { type Float8, type Fp8Module, float8Values, fp8Module, isFp8, widenFp8 } from '../../src/checkpoint/fp8';
import { encodeFloats } from '../../src/checkpoint/half';
import type { TensorDtype, TensorEntry } from '../../src/checkpoint/safetensors';
import { readJson } from '../../src/json';
import type { WeightType } from '../../src/ops/weights';
import { FIXTURES } from '../support/assets';

interface Facts {
  readonly values: Readonly<Record<Float8, readonly string[]>>;
  readonly cases: readonly {
    readonly kind: Float8;
    readonly rows: number;
    readonly k: number;
    readonly block: readonly [number, number];
    readonly scaleType: WeightType;
    readonly digests: Readonly<Record<WeightType, string>>;
  }[];
}

const FACTS = readJson(join(FIXTURES, 'fp8.json')) as unknown as Facts;
const DTYPES = { f32: 'F32', f16: 'F16', bf16: 'BF16' } as const;
const FLOAT8 = { e4m3: 'F8_E4M3', e5m2: 'F8_E5M2' } as const;

type Given = Readonly<Record<string, readonly [TensorDtype, ...number[]]>>;
const finder =
  (given: Given) =>
  (name: string): TensorEntry | undefined => {
    const [dtype, ...shape] = given[name] ?? [];
    return dtype && { name, file: 'model.safetensors', dtype, shape, offset: 0, bytes: 0 };
  };

it.each(['e4m3', 'e5m2'] as const)('every code of %s has the value that torch gives it', (kind) => {
  const bits = [...new Uint32Array(float8Values(kind).buffer)].map((word) => word.toString(16).padStart(8, '0'));
  const isNan = (word: string): boolean => (Number.parseInt(word, 16) & 0x7fffffff) > 0x7f800000;
  const shown = (words: readonly string[]): string[] => words.map((word) => (isNan(word) ? 'NaN' : word));
  expect(shown(bits)).toEqual(shown(FACTS.values[kind]));
  expect(shown(bits).filter((word) => word === 'NaN')).toHaveLength(kind === 'e4m3' ? 2 : 6);
});

it.each(FACTS.cases)('$kind [$rows, $k], scales per $block, $scaleType, is widened as torch does', (facts) => {
  const { kind, rows, k, block, scaleType, digests } = facts;
  const values = float8Values(kind);
  const codes = Uint8Array.from({ length: rows * k }, (_, i) => {
    const code = (37 * i + 11) % 256;
    return Number.isFinite(values[code]) ? code : 0;
  });
  const grid = [Math.ceil(rows / block[0]), Math.ceil(k / block[1])] as const;
  const scales = Float32Array.from({ length: grid[0] * grid[1] }, (_, j) => 1 / (3 + j));
  const bytes = new Map([
    ['x.weight', codes],
    ['x.weight_scale_inv', encodeFloats(scales, DTYPES[scaleType])],
  ]);
  const find = finder({ 'x.weight': [FLOAT8[kind], rows, k], 'x.weight_scale_inv': [DTYPES[scaleType], ...grid] });
  expect(isFp8(find, 'x')).toBe(true);
  const found = fp8Module(find, 'x', rows, k, undefined);
  expect(found).toMatchObject({ float: kind, block, scaleType });
  for (const type of ['f32', 'bf16', 'f16'] as const) {
    const wide = widenFp8(found, type, ({ name }) => bytes.get(name) ?? new Uint8Array());
    expect([type, createHash('sha256').update(wide).digest('hex')]).toEqual([type, digests[type]]);
  }
});

describe('the scales of a matrix [256, 384]', () => {
  const blockOf = (shape: readonly number[], named?: readonly [number, number]): Fp8Module['block'] => {
    const find = finder({ 'x.weight': ['F8_E4M3', 256, 384], 'x.weight_scale': ['F32', ...shape] });
    const config = {
      file: 'config.json',
      method: 'fp8',
      layout: 'float-quantized',
      groupSizes: [],
      symmetric: true,
    } as const;
    return fp8Module(find, 'x', 256, 384, { ...config, activationOrder: false, block: named }).block;
  };
  it.each<[string, number[], [number, number] | undefined, [number, number]]>([
    ['one', [], undefined, [256, 384]],
    ['one, as [1]', [1], undefined, [256, 384]],
    ['one, as [1, 1]', [1, 1], undefined, [256, 384]],
    ['one per output', [256], undefined, [1, 384]],
    ['one per output, as [256, 1]', [256, 1], undefined, [1, 384]],
    ['blocks of 128', [2, 3], undefined, [128, 128]],
    ['blocks of another size', [4, 6], undefined, [64, 64]],
    ['blocks of the size that the config says, which do not divide', [3, 3], [100, 130], [100, 130]],
    ['groups of inputs', [256, 3], undefined, [1, 128]],
  ])('%s', (_, shape, named, block) => expect(blockOf(shape, named)).toEqual(block));

  it.each<[number[]]>([[[4, 6]], [[1, 1]], [[256, 1]], [[256, 3]]])('of shape %j do not fit blocks of 128', (shape) =>
    expect(() => blockOf(shape, [128, 128])).toThrow(/expected one scale .* received/),
  );
});

describe('is refused by name', () => {
  const base: Given = { 'x.weight': ['F8_E4M3', 64, 96], 'x.weight_scale': ['F32', 64, 1] };
  it.each<[string, Given, string, RegExp]>([
    [
      'without scales',
      { 'x.weight': ['F8_E5M2', 64, 96] },
      'ERR_WEIGHT_MISSING',
      /"x\.weight_scale_inv" or "x\.weight_scale"/,
    ],
    [
      'with scales of another type',
      { ...base, 'x.weight_scale': ['F8_E8M0', 64, 1] },
      'ERR_WEIGHT_DTYPE',
      /weight_scale.*F8_E8M0/,
    ],
    [
      'with scales that fit nothing',
      { ...base, 'x.weight_scale': ['F32', 5, 7] },
      'ERR_WEIGHT_SHAPE',
      /weight_scale.*\[5,7\]/,
    ],
    [
      'of another shape',
      { ...base, 'x.weight': ['F8_E4M3', 96, 64] },
      'ERR_WEIGHT_SHAPE',
      /\[64,96\], received \[96,64\]/,
    ],
    ['with zero points', { ...base, 'x.weight_zero_point': ['F8_E4M3', 64, 1] }, 'ERR_WEIGHT_FORMAT', /zero points/],
  ])('%s', (_, given, code, message) => {
    const call = () => fp8Module(finder(given), 'x', 64, 96, undefined);
    expect(call).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });

  it.each<[string, number, number, RegExp]>([
    ['a NaN weight', 127, 1, /"x\.weight": element 6000 is NaN/],
    ['a NaN scale', 0, Number.NaN, /"x\.weight_scale": element 63 is NaN/],
  ])('%s', (_, code, scale, message) => {
    const module = fp8Module(finder(base), 'x', 64, 96, undefined);
    const codes = new Uint8Array(64 * 96).fill(1);
    codes[6000] = code;
    const scales = new Float32Array(64).fill(1);
    scales[63] = scale;
    const bytesOf = ({ name }: TensorEntry) => (name === 'x.weight' ? codes : new Uint8Array(scales.buffer));
    expect(() => widenFp8(module, 'bf16', bytesOf)).toThrow(
      expect.objectContaining({ code: 'ERR_WEIGHT_VALUE', message: expect.stringMatching(message) }),
    );
  });
});
