// The definition of `decoderLayer`, in double precision.

import { ropeTable } from '../../../src/ops/rope';
import { floats } from '../../../src/ops/run';
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
  const project = (x: ArrayLike<number>, from: number, to: number) =>
    linearReference(x, data.qkv.subarray(from * d, to * d), d, s.bias ? data.qkvBias.subarray(from, to) : undefined);
  const tableTensor = ropeTable(data.positions, inverseFrequencies(c));
  const table = floats(tableTensor);
  tableTensor.dispose();
  const half = c / 2;
  const ownTable = rowsOf(table, half, [...queries, ...queries.map((i) => t + i)]);

  const turned = (x: Float64Array, norm: Float32Array, angles: ArrayLike<number>, count: number) =>
    ropeReference(norm.length > 0 ? rmsNormReference(x, norm, Math.fround(EPS)) : x, angles, count, c);
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
  const projected = linearReference(attended.out, data.o, queryWidth, s.bias ? data.oBias : undefined);
  const h = add(projected, data.attentionNorm, rowsOf(data.x, d, queries));
  const lifted = rmsNormReference(h, data.postNorm, eps);
  const hidden = gatedLinearReference(lifted, { gate: data.gate, up: data.up }, d, s.activation ?? 'silu');
  const y = add(linearReference(hidden, data.down, s.ffn), data.mlpNorm, h);
  return { y, columns: Float64Array.from(order, (key) => attended.columns[key] as number) };
}

function concat(a: ArrayLike<number>, b: ArrayLike<number>): Float64Array {
  const both = new Float64Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}
