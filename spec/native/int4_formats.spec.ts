// Every 4-bit file format against its definition, bit for bit: odd sizes, all group sizes, whole rows, stacked and gated.
// Fixtures: scripts/fixtures/awq.py, which packs by the definitions and says what each matrix dequantizes to.

import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { readSafetensorsHeader, readTensor } from '../../src/checkpoint/safetensors';
import { openWeights, type Weights } from '../../src/models/weights';
import { floats } from '../../src/ops/run';
import {
  dequantize,
  type Int4Layout,
  type Int4Part,
  type PackedMatrix,
  packArrays,
  packInt4,
  STORED_GROUPS,
} from '../../src/ops/weights';
import { start } from '../../src/runtime/start';

const FORMATS = join(__dirname, '../../../spec/fixtures/awq/formats');
const LANES = 16;
const QKV = ['stack.q', 'stack.k', 'stack.v'];
const GATE_UP = ['stack.gate', 'stack.up'];

interface Expected {
  readonly name: string;
  readonly shape: readonly [number, number];
  readonly values: Float32Array;
}

function expectedOf(format: string): Map<string, Expected> {
  const entries = readSafetensorsHeader(join(FORMATS, format, 'expected.safetensors'));
  return new Map(
    entries.map((entry) => {
      const [rows = 0, k = 0] = entry.shape;
      return [entry.name.replace('.weight', ''), { name: entry.name, shape: [rows, k], values: readTensor(entry) }];
    }),
  );
}

function read(matrix: PackedMatrix, row?: number, rows?: number): Float32Array {
  const tensor = dequantize(matrix, row, rows);
  const values = floats(tensor).slice();
  tensor.dispose();
  return values;
}

/** The positions at which bits differ; -0 is not 0. */
function differing(actual: Float32Array, expected: Float32Array): string[] {
  if (actual.length !== expected.length) return [`${actual.length} values instead of ${expected.length}`];
  const wrong = [...actual.keys()].filter((i) => !Object.is(actual[i], expected[i]));
  return wrong.slice(0, 5).map((i) => `${i}: ${actual[i]} instead of ${expected[i]}`);
}

const pick = (all: Map<string, Expected>, names: readonly string[]): Expected[] =>
  names.map((name) => {
    const one = all.get(name);
    if (one === undefined) throw new Error(`no ${name}`);
    return one;
  });

test('there is a fixture of every format', () => {
  expect(readdirSync(FORMATS).sort()).toEqual(
    ['awq-gemm', 'awq-gemv', 'awq-gemv-fast', 'gptq', 'gptq-v2', 'pack-quantized'].sort(),
  );
  expect(existsSync(join(FORMATS, 'gptq-v2/config.json'))).toBe(true);
  expect(STORED_GROUPS).toEqual([128, 64, 32]);
});

describe.each(readdirSync(FORMATS))('%s', (format) => {
  const expected = expectedOf(format);
  const singles = [...expected.keys()].filter((name) => name.startsWith('case-'));
  let weights: Weights;
  beforeAll(() => {
    weights = openWeights(join(FORMATS, format));
  });
  afterAll(() => weights.dispose());

  const matrix = (names: readonly string[], gated = false): PackedMatrix => {
    const parts = pick(expected, names);
    return weights.matrix(
      parts.map(({ name }) => name),
      parts.map(({ shape }) => shape[0]),
      parts[0]?.shape[1] ?? 0,
      { gated },
    );
  };

  test.each(singles)('%s', (name) => {
    const [one] = pick(expected, [name]);
    const packed = matrix([name]);
    expect(packed).toMatchObject({ type: 'int4', outputs: one?.shape[0], inputs: one?.shape[1], gated: false });
    expect(differing(read(packed), one?.values ?? new Float32Array())).toEqual([]);
  });

  test('q, k and v stacked', () => {
    const packed = matrix(QKV);
    const all = pick(expected, QKV).flatMap(({ values }) => [...values]);
    expect(packed.outputs).toBe(72);
    expect(differing(read(packed), Float32Array.from(all))).toEqual([]);
  });

  test('gate and up interleaved by strips of 16', () => {
    const packed = matrix(GATE_UP, true);
    const [gate, up] = pick(expected, GATE_UP);
    const k = packed.inputs;
    expect(packed.outputs).toBe(40);
    const strips = Math.ceil(packed.outputs / LANES);
    const stored = read(packed, 0, 2 * strips * LANES);
    const strip = (values: Float32Array | undefined, i: number): Float32Array => {
      const padded = new Float32Array(LANES * k);
      padded.set(values?.subarray(i * LANES * k, (i + 1) * LANES * k) ?? []);
      return padded;
    };
    for (let i = 0; i < strips; i++) {
      const at = (half: number): Float32Array =>
        stored.subarray((2 * i + half) * LANES * k, (2 * i + half + 1) * LANES * k);
      expect(differing(at(0), strip(gate?.values, i))).toEqual([]);
      expect(differing(at(1), strip(up?.values, i))).toEqual([]);
    }
  });

  test('every tensor was read', () => expect(() => weights.close()).not.toThrow());
});

describe('dequantize', () => {
  const values = Float32Array.from({ length: 20 * 6 }, (_, i) => i / 8);

  test.each(['f32', 'f16', 'bf16'] as const)('reads rows of %s matrices', (type) => {
    const packed = packArrays([values], 6, { type });
    expect([...read(packed)]).toEqual([...values]);
    expect([...read(packed, 15, 3)]).toEqual([...values.subarray(15 * 6, 18 * 6)]);
    expect(read(packed, 20, 0)).toHaveLength(0);
    for (const [row, rows] of [
      [-1, 2],
      [19, 2],
      [0, -1],
    ] as const)
      expect(() => dequantize(packed, row, rows)).toThrow(/rows .* of 20/);
    packed.tensor.dispose();
  });
});

describe('packInt4 refuses', () => {
  // 16 outputs, 64 inputs in groups of 32, GPTQ: 512 bytes of weights, 64 of scales, 16 of zeros, in one source.
  const layout: Int4Layout = { format: 'gptq', k: 64, group: 32, storedGroup: 32, scaleType: 'f16' };
  const places = { weight: 0, scales: 512, zeros: 576 };
  const end = 592;

  function pack(
    offsets: Partial<typeof places>,
    changes: Partial<Int4Layout> = {},
    rows: readonly number[] = [16],
  ): string {
    const { native } = start();
    const source = native.openMemory(new Uint8Array(end));
    const { weight, scales, zeros } = { ...places, ...offsets };
    const part: Omit<Int4Part, 'rows'> = {
      weight: { source, offset: weight },
      scales: { source, offset: scales },
      zeros: zeros < 0 ? undefined : { source, offset: zeros },
    };
    try {
      packInt4(
        rows.map((count) => ({ ...part, rows: count })),
        { ...layout, ...changes },
      ).tensor.dispose();
    } catch (error) {
      return String(error);
    } finally {
      native.release(source);
    }
    return 'packed';
  }

  test('nothing that lies inside its source', () => expect(pack({})).toBe('packed'));

  test.each<readonly [string, Partial<typeof places>, RegExp]>([
    ['weights', { weight: 81 }, /packed weights lie outside their file: bytes 81 to 593 of 592/],
    ['scales', { scales: 529 }, /scales lie outside.* 529 to 593/],
    ['zeros', { zeros: 577 }, /zeros lie outside.* 577 to 593/],
    ['weights far away', { weight: 2 ** 40 }, /packed weights lie outside/],
    ['weights before the start', { weight: -(2 ** 33) }, /packed weights lie outside/],
    ['no zeros', { zeros: -1 }, /zeros are missing/],
  ])('%s outside', (_, offsets, message) => expect(pack(offsets)).toMatch(message));

  test.each<readonly [string, Partial<Int4Layout>, readonly number[], RegExp]>([
    ['more outputs than there are', {}, [24], /packed weights lie outside/],
    ['outputs that fill no word', {}, [12], /outputs must be a multiple of 8/],
    ['no outputs', {}, [0], /sizes out of range/],
    ['negative outputs', {}, [-8], /sizes out of range/],
    ['more inputs than there are', { k: 128 }, [16], /packed weights lie outside/],
    ['inputs that fill no word', { k: 36, group: 36 }, [16], /inputs must be a multiple of 8/],
    ['inputs that fill no 64', { format: 'awq-gemv-fast', k: 96 }, [16], /inputs must be a multiple of 64/],
    ['a group that does not divide', { group: 48 }, [16], /group does not divide the inputs/],
    ['a group of none', { group: 0 }, [16], /group does not divide the inputs/],
    ['a stored group that does not divide', { storedGroup: 64 }, [16], /stored group does not divide/],
    ['a stored group of 16', { storedGroup: 16 }, [16], /stored group must be 32, 64 or 128/],
    ['strips of two parts', {}, [8, 8], /multiples of 16/],
  ])('%s', (_, changes, rows, message) => expect(pack({}, changes, rows)).toMatch(message));
});
