// Copies of a checkpoint in the quantized formats that people publish, written here by the definitions of the formats, one number at a time, and
// beside each the same numbers as floats. Knows nothing of the code that reads them.
// Source: AutoAWQ `gemm.py`, compressed-tensors `pack_quantized.py`, `naive_quantized.py`, GPTQModel `qlinear`, transformers
// `finegrained_fp8.py`.

import { join } from 'node:path';
import { float8Values } from '../../src/checkpoint/fp8';
import {
  decodeFloats,
  encodeFloats,
  type FloatDtype,
  fromBf16Bits,
  roundToF16,
  toBf16Bits,
} from '../../src/checkpoint/half';
import type { Json } from '../../src/json';
import { planOf } from '../../src/models/load';
import { canonicalName } from '../../src/models/names';
import { changeJson, readShards, replaceShards, type Stored } from './checkpoint';

/** A linear layer by its name in the files, without ".weight": w row-major [rows, k]. */
export interface Linear {
  readonly name: string;
  readonly rows: number;
  readonly k: number;
  readonly w: Float32Array;
}

/** The tensors that replace a weight, by suffix, and what they stand for. */
export interface Packed {
  readonly tensors: Readonly<Record<string, Stored>>;
  readonly values: Float32Array;
}

/** One way to publish a checkpoint. */
export interface Published {
  readonly name: string;
  /** The `quantization_config`, given the layers that `pack` left in floating point. */
  readonly config: (left: readonly string[]) => Json;
  /** Undefined: the layer stays float. */
  readonly pack: (linear: Linear) => Packed | undefined;
  /** Whether the linear layers of tower and projector are packed, too. */
  readonly all?: boolean;
}

const stored = (dtype: string, shape: readonly number[], array: ArrayBufferView): Stored => ({
  ...{ dtype, shape },
  data: new Uint8Array(array.buffer, array.byteOffset, array.byteLength),
});

/** int32 words of 8 nibbles each, the lowest first. */
function words(shape: readonly number[], nibble: (word: number, i: number) => number): Stored {
  const array = new Uint32Array(shape.reduce((a, b) => a * b, 1));
  for (let word = 0; word < array.length; word++)
    for (let i = 0; i < 8; i++) array[word] = (array[word] as number) | (nibble(word, i) << (4 * i));
  return stored('I32', shape, array);
}

interface Rounded {
  readonly groups: number;
  readonly q: (n: number, i: number) => number;
  readonly z: (n: number, g: number) => number;
  readonly s: (n: number, g: number) => number;
  readonly values: Float32Array;
}

/** Rounds to nearest in groups, with scales that f16 and bf16 hold. `groupOf`: the group of an input. */
export function rounded(
  { rows, k, w }: Linear,
  group: number,
  symmetric: boolean,
  groupOf: (i: number) => number = (i) => Math.floor(i / group),
): Rounded {
  const groups = Math.ceil(k / group);
  const [low, high] = [new Float64Array(rows * groups), new Float64Array(rows * groups)];
  for (let n = 0; n < rows; n++)
    for (let i = 0; i < k; i++) {
      const at = n * groups + groupOf(i);
      low[at] = Math.min(low[at] as number, w[n * k + i] as number);
      high[at] = Math.max(high[at] as number, w[n * k + i] as number);
    }
  const steps = Float64Array.from(low, (least, at) => {
    const most = high[at] as number;
    const range = symmetric ? 2 * Math.max(-least, most) : most - least;
    return roundToF16(fromBf16Bits(toBf16Bits(Math.max(range, 1e-3) / 15)));
  });
  const clamp = (x: number): number => Math.max(0, Math.min(15, Math.round(x)));
  const zeros = Uint8Array.from(low, (least, at) => (symmetric ? 8 : clamp(-least / (steps[at] as number))));
  const at = Int32Array.from({ length: k }, (_, i) => groupOf(i));
  const placeOf = (n: number, i: number): number => n * groups + (at[i] as number);
  const codes = Uint8Array.from(w, (value, i) => {
    const place = placeOf(Math.floor(i / k), i % k);
    return clamp(value / (steps[place] as number) + (zeros[place] as number));
  });
  const values = Float32Array.from(codes, (code, i) => {
    const place = placeOf(Math.floor(i / k), i % k);
    return (code - (zeros[place] as number)) * (steps[place] as number);
  });
  return {
    ...{ groups, values },
    q: (n, i) => (i < k && n < rows ? (codes[n * k + i] as number) : 0),
    z: (n, g) => zeros[n * groups + g] as number,
    s: (n, g) => steps[n * groups + g] as number,
  };
}

function scales(shape: readonly number[], dtype: FloatDtype, at: (i: number) => number): Stored {
  const array = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => at(i));
  return stored(dtype, shape, encodeFloats(array, dtype));
}

/** Groups of 32 where they fit, else whole rows. */
export const groupFor = (k: number): number => (k % 32 === 0 ? 32 : k);

const AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7];

export function awqGemm(linear: Linear): Packed | undefined {
  const { rows, k } = linear;
  if (rows % 8 !== 0) return undefined;
  const { groups, q, z, s, values } = rounded(linear, groupFor(k), false);
  const column = (word: number, i: number): number => 8 * (word % (rows / 8)) + (AWQ_ORDER[i] as number);
  const line = (word: number): number => Math.floor(word / (rows / 8));
  const tensors = {
    qweight: words([k, rows / 8], (word, i) => q(column(word, i), line(word))),
    qzeros: words([groups, rows / 8], (word, i) => z(column(word, i), line(word))),
    scales: scales([groups, rows], 'F16', (i) => s(i % rows, Math.floor(i / rows))),
  };
  return { tensors, values };
}

export function compressed(linear: Linear, group: number, symmetric: boolean): Packed {
  const { rows, k } = linear;
  const { groups, q, z, s, values } = rounded(linear, group, symmetric);
  const width = Math.ceil(k / 8);
  const zeros = words([Math.ceil(rows / 8), groups], (word, i) => {
    const n = 8 * Math.floor(word / groups) + i;
    return n < rows ? z(n, word % groups) : 0;
  });
  const tensors = {
    weight_packed: words([rows, width], (word, i) => q(Math.floor(word / width), 8 * (word % width) + i)),
    weight_scale: scales([rows, groups], 'BF16', (i) => s(Math.floor(i / groups), i % groups)),
    weight_shape: stored('I64', [2], BigInt64Array.of(BigInt(rows), BigInt(k))),
    ...(symmetric ? {} : { weight_zero_point: zeros }),
  };
  return { tensors, values };
}

/** `ordered`: the inputs are grouped in another order (desc_act). */
export function gptq(linear: Linear, group: number, version: 1 | 2, ordered: boolean): Packed | undefined {
  const { rows, k } = linear;
  if (rows % 8 !== 0 || k % 8 !== 0 || k % group !== 0) return undefined;
  // 7 and k have no common factor, as the widths of the fixtures are not multiples of 7, or are of 56: then 5.
  const step = k % 7 === 0 ? 5 : 7;
  const groupOf = (i: number): number => Math.floor((ordered ? (step * i) % k : i) / group);
  const { groups, q, z, s, values } = rounded(linear, group, version === 1, groupOf);
  const tensors = {
    qweight: words([k / 8, rows], (word, i) => q(word % rows, 8 * Math.floor(word / rows) + i)),
    qzeros: words([groups, rows / 8], (word, i) => {
      return z(8 * (word % (rows / 8)) + i, Math.floor(word / (rows / 8))) - (version === 1 ? 1 : 0);
    }),
    scales: scales([groups, rows], 'F16', (i) => s(i % rows, Math.floor(i / rows))),
    g_idx: stored(
      'I32',
      [k],
      Int32Array.from({ length: k }, (_, i) => groupOf(i)),
    ),
  };
  return { tensors, values };
}

/** E4M3 with one scale per block, by the nearest of all codes. */
export function float8(
  linear: Linear,
  block: readonly [number, number],
  names: { scale: string; dtype: FloatDtype; shape?: number[] },
): Packed {
  const { rows, k, w } = linear;
  const table = float8Values('e4m3');
  const grid = [Math.ceil(rows / block[0]), Math.ceil(k / block[1])] as const;
  const most = new Float64Array(grid[0] * grid[1]);
  const blockOf = (i: number): number =>
    Math.floor(Math.floor(i / k) / block[0]) * grid[1] + Math.floor((i % k) / block[1]);
  for (const [i, value] of w.entries()) most[blockOf(i)] = Math.max(most[blockOf(i)] as number, Math.abs(value));
  const s = Float32Array.from(most, (value) => fromBf16Bits(toBf16Bits(Math.max(value, 1e-6) / 448)));
  // The positive codes are in the order of their values; what lies above the mean of two is nearer to the greater.
  const means = Float64Array.from(
    { length: 126 },
    (_, code) => ((table[code] as number) + (table[code + 1] as number)) / 2,
  );
  const codes = Uint8Array.from(w, (value, i) => {
    const x = Math.abs(value) / (s[blockOf(i)] as number);
    let [nearest, above] = [0, 126];
    while (nearest < above) {
      const middle = (nearest + above) >> 1;
      if (x > (means[middle] as number)) nearest = middle + 1;
      else above = middle;
    }
    return nearest | (value < 0 ? 128 : 0);
  });
  const values = Float32Array.from(codes, (code, i) => (table[code] as number) * (s[blockOf(i)] as number));
  const shape = names.shape ?? grid;
  const tensors = {
    weight: stored('F8_E4M3', [rows, k], codes),
    [names.scale]: stored(names.dtype, shape, encodeFloats(s, names.dtype)),
  };
  return { tensors, values };
}

/**
 * Rewrites two copies of one checkpoint: `packed` in a published format, `plain` with the same numbers in f32.
 * @returns the number of layers that were packed
 */
export function publish(packed: string, plain: string, { config, pack, all = false }: Published): number {
  const plan = planOf(packed);
  const left: string[] = [];
  let count = 0;
  const wanted = all
    ? /^(decoder\.(?!model\.embed|lm_head)|tower\.encoder|projector)/
    : /^decoder\.(?!model\.embed|lm_head)/;
  const parts = Object.values(plan.sources);
  for (const folder of new Set(parts.map((source) => source.folder))) {
    const sources = parts.filter((source) => source.folder === folder);
    const [quantized, floats] = [new Map<string, Stored>(), new Map<string, Stored>()];
    for (const [name, tensor] of readShards(folder)) {
      const canonical = sources
        .map(({ prefix }) => canonicalName(prefix + name, plan.names))
        .find((one) => one !== undefined);
      const module = name.replace(/\.weight$/, '');
      const [rows = 0, k = 0] = tensor.shape;
      const isLinear = tensor.shape.length === 2 && module !== name && wanted.test(canonical ?? '');
      const w = isLinear ? decodeFloats(new Uint8Array(tensor.data), tensor.dtype as FloatDtype) : undefined;
      const made = w && pack({ name: module, rows, k, w });
      if (w !== undefined && made === undefined) left.push(module);
      if (made === undefined) {
        quantized.set(name, tensor);
        floats.set(name, tensor);
        continue;
      }
      count++;
      for (const [suffix, part] of Object.entries(made.tensors)) quantized.set(`${module}.${suffix}`, part);
      floats.set(name, stored('F32', tensor.shape, made.values));
    }
    replaceShards(folder, quantized);
    replaceShards(folder.replace(packed, plain), floats);
  }
  const file = join(plan.sources.decoder.folder, 'config.json');
  changeJson(file, { quantization_config: config(left) });
  return count;
}
