// The definition of `decoderLayer`, in double precision.

import { ropeTable } from '../../../src/ops/rope';
import { floats, joinNumbers } from '../../../src/ops/run';
import { roundToBf16, rowsOf } from '../cases/data';
import type { DecoderLayerData, DecoderLayerSizes } from '../cases/decoder_layer';
import { inverseFrequencies } from '../cases/rope';
import { attentionReference } from './attention';
import { gatedLinearReference, linearReference } from './linear';
import { rmsNormReference } from './norm';
import { ropeReference } from './rope';

/** Of all norms. */
export const EPS = 1e-6;

/**
 * The definition, for the rows of x that `queries` lists. Keys and values are rounded as the cache stores them.
 * @returns y [queries, d]; columns only when all rows are listed
 */
export function decoderLayerReference(data: DecoderLayerData, s: DecoderLayerSizes, queries: readonly number[]) {
  const { t, d, heads, kvHeads, c, length, tail } = s;
  const store = (values: Float64Array) =>
    s.kvType === 'bf16' ? values.map((x) => roundToBf16(x)) : values.map((x) => Math.fround(x));
  const [queryWidth, keyWidth] = [heads * c, kvHeads * c];
  const normed = rmsNormReference(data.x, data.inputNorm, Math.fround(EPS));
  const qkv = separated(data.qkv, s);
  const project = (x: ArrayLike<number>, from: number, to: number) =>
    linearReference(x, qkv.subarray(from * d, to * d), d, s.bias ? data.qkvBias.subarray(from, to) : undefined);
  const { rotated = c } = s;
  const tableTensor = ropeTable(data.positions, inverseFrequencies(rotated));
  const table = floats(tableTensor);
  tableTensor.dispose();
  const half = rotated / 2;
  const ownTable = rowsOf(table, half, [...queries, ...queries.map((i) => t + i)]);

  const turned = (x: Float64Array, norm: Float32Array, angles: ArrayLike<number>, count: number) =>
    partlyTurned(norm.length > 0 ? rmsNormReference(x, norm, Math.fround(EPS)) : x, angles, count, { c, rotated });
  const q = turned(project(rowsOf(normed, d, queries), 0, queryWidth), data.qNorm, ownTable, heads);
  const newK = turned(project(normed, queryWidth, queryWidth + keyWidth), data.kNorm, table, kvHeads);
  const newV = project(normed, queryWidth + keyWidth, queryWidth + 2 * keyWidth);
  const k = store(concat(data.k, newK));
  const v = store(concat(data.v, newV));
  const order = [...data.rows, ...Array.from({ length: length - tail + t }, (_, i) => tail + i)];
  const places = new Map(order.map((row, place) => [row, place]));
  const sees = (i: number, j: number) => {
    const [place = -1, own] = [places.get(j), order.length - t + (queries[i] ?? 0)];
    return place > own - (s.window ?? Number.POSITIVE_INFINITY) && place >= 0 && place <= own;
  };
  const scaled = s.scale === undefined ? q : q.map((x) => x * Math.fround(s.scale ?? 0) * Math.sqrt(c));
  const attended = attentionReference(scaled, k, v, { t: queries.length, heads, kvHeads, c, softcap: s.softcap }, sees);
  const eps = Math.fround(EPS);
  const add = (y: Float64Array, norm: Float32Array, x: ArrayLike<number>) =>
    (norm.length > 0 ? rmsNormReference(y, norm, eps) : y).map((value, i) => value + (x[i] as number));
  if (s.gated) {
    const gates = project(rowsOf(normed, d, queries), queryWidth + 2 * keyWidth, 2 * queryWidth + 2 * keyWidth);
    attended.out.forEach((value, i) => {
      attended.out[i] = value / (1 + Math.exp(-(gates[i] as number)));
    });
  }
  const projected = linearReference(attended.out, data.o, queryWidth, s.bias ? data.oBias : undefined);
  const h = add(projected, data.attentionNorm, rowsOf(data.x, d, queries));
  const lifted = rmsNormReference(h, data.postNorm, eps);
  const hidden = gatedLinearReference(lifted, { gate: data.gate, up: data.up }, d, s.activation ?? 'silu');
  const y = add(linearReference(hidden, data.down, s.ffn), data.mlpNorm, h);
  return { y, columns: Float64Array.from(order, (key) => attended.columns[key] as number) };
}

/** The rows of q, k and v, then those of the gates, which lie between the queries'. */
function separated(qkv: Float32Array, { gated, heads, c, d }: DecoderLayerSizes): Float32Array {
  if (!gated) return qkv;
  const head = c * d;
  const halves = (from: number) =>
    Array.from({ length: heads }, (_, i) => qkv.subarray((2 * i + from) * head, (2 * i + from + 1) * head));
  const parts = [...halves(0), qkv.subarray(2 * heads * head), ...halves(1)];
  return joinNumbers(parts);
}

/** The first `rotated` numbers of each head turned, the others as they are. */
function partlyTurned(
  x: Float64Array,
  angles: ArrayLike<number>,
  heads: number,
  { c, rotated }: { readonly c: number; readonly rotated: number },
): Float64Array {
  if (rotated === c) return ropeReference(x, angles, heads, c);
  const within = (i: number): boolean => i % c < rotated;
  const turned = ropeReference(
    x.filter((_, i) => within(i)),
    angles,
    heads,
    rotated,
  );
  return x.map((value, i) => (within(i) ? (turned[Math.floor(i / c) * rotated + (i % c)] as number) : value));
}

function concat(a: ArrayLike<number>, b: ArrayLike<number>): Float64Array {
  const both = new Float64Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}
