// Cases of `attention`: full and causal, with and without the column mean, on plain tensors.

import { attention } from '../../../src/ops/attention';
import { float32, int32 } from '../../../src/ops/run';
import { type AttentionShape, attentionReference } from '../references/attention';
import { type Comparison, compare, keeper, type OpCase, once, type PreparedCase, take } from './case';
import { elementsOf, noise, sample } from './data';

interface AttentionSizes {
  readonly t: number;
  readonly n: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly c: number;
  readonly causal?: boolean;
  readonly mask?: Mask;
  readonly columns?: boolean;
  readonly scale?: number;
  readonly softcap?: number;
  readonly big?: boolean;
}

/** Intervals of keys, by query. */
interface Mask {
  readonly name: string;
  readonly span: (query: number) => readonly [from: number, to: number];
}

/** Borders of what attends to itself. */
function segments(...borders: readonly number[]): Mask {
  const span = (query: number) => {
    const at = borders.findIndex((border) => border > query);
    return [borders[at - 1] as number, borders[at] as number] as const;
  };
  return { name: `segments at ${borders.slice(1, -1).join(', ')}`, span };
}

/** Windows of `size` over n rows. */
const windows = (size: number, n: number): Mask => ({
  name: `windows of ${size}`,
  span: (query) => [Math.floor(query / size) * size, Math.min(n, (Math.floor(query / size) + 1) * size)],
});

/** Query i is row `before + i` and sees the `size` rows up to itself. */
const sliding = (size: number, before: number): Mask => ({
  name: `sliding ${size}`,
  span: (query) => [Math.max(0, before + query + 1 - size), before + query + 1],
});

/** Causal, but rows from .. to - 1 see each other. */
const block = (from: number, to: number): Mask => ({
  name: `block ${from} to ${to}`,
  span: (query) => [0, query >= from && query < to ? to : query + 1],
});

/** The reference of an attention op, which computes some of the outputs. */
export interface AttentionProblem {
  readonly q: ArrayLike<number>;
  /** [n, kv heads, c] */
  readonly k: ArrayLike<number>;
  readonly v: ArrayLike<number>;
  readonly shape: AttentionShape;
  readonly sees: (query: number, key: number) => boolean;
}

const SAMPLED_QUERIES = 5;
/** Products of one query and one key that a whole reference may take. */
const AFFORDABLE = 3e8;

/**
 * Compares an attention op's results with the definition: all of them when that is affordable, else some queries of some
 * heads, and of the columns only that they sum to 1. `order` lists the key of every column of the op.
 */
export function attentionChecker(
  problem: AttentionProblem,
  order?: ArrayLike<number>,
): (out: Float32Array, columns: Float32Array) => Comparison[] {
  const { q, k, v, shape, sees } = problem;
  const pairs = shape.t * (k.length / shape.kvHeads) * shape.heads;
  const whole = once(() => attentionReference(q, k, v, shape, sees));
  const some = once(() => sampledHeads(problem));
  return (out, columns) => {
    const all = pairs <= AFFORDABLE;
    const result = [all ? compare('out', out, whole().out) : compareHeads(some(), out)];
    if (columns.length === 0) return result;
    result.push(compare('sum of columns', [columns.reduce((a, b) => a + b, 0)], [1]));
    if (all) result.push(compare('columns', columns, order ? elementsOf(whole().columns, order) : whole().columns));
    return result;
  };
}

interface SampledHead {
  /** Where its output starts. */
  readonly at: number;
  readonly expected: Float64Array;
}

/** One query of one head is an attention of its own. */
function sampledHeads({ q, k, v, shape, sees }: AttentionProblem): SampledHead[] {
  const { t, heads, kvHeads, c } = shape;
  return sample(t, SAMPLED_QUERIES).map((i, turn) => {
    const h = (turn * 5 + 1) % heads;
    const at = (i * heads + h) * c;
    const g = Math.floor((h * kvHeads) / heads);
    const query = Array.prototype.slice.call(q, at, at + c);
    const [keys, values] = [headOf(k, kvHeads, c, g), headOf(v, kvHeads, c, g)];
    const own = { t: 1, heads: 1, kvHeads: 1, c };
    return { at, expected: attentionReference(query, keys, values, own, (_, j) => sees(i, j)).out };
  });
}

function compareHeads(heads: readonly SampledHead[], out: Float32Array): Comparison {
  const actual = heads.flatMap(({ at, expected }) => [...out.subarray(at, at + expected.length)]);
  return compare(
    'out',
    actual,
    heads.flatMap(({ expected }) => [...expected]),
  );
}

/** Rows of one kv head: [n, kv heads, c] -> [n, c]. */
function headOf(values: ArrayLike<number>, kvHeads: number, c: number, head: number): Float32Array {
  const n = values.length / (kvHeads * c);
  const rows = new Float32Array(n * c);
  for (let j = 0; j < n; j++)
    for (let e = 0; e < c; e++) rows[j * c + e] = values[(j * kvHeads + head) * c + e] as number;
  return rows;
}

function attentionCase(sizes: AttentionSizes): OpCase {
  const { t, n, heads, kvHeads, c, causal = false, mask, columns = false, scale, softcap, big = false } = sizes;
  const scores = `${scale === undefined ? '' : ` scale ${scale}`}${softcap === undefined ? '' : ` softcap ${softcap}`}`;
  const kind = `${mask?.name ?? (causal ? 'causal' : 'full')}${columns ? ' columns' : ''}${scores}`;
  return {
    op: 'attention',
    name: `${t} of ${n}, ${heads}/${kvHeads}x${c} ${kind}`,
    dtype: 'f32',
    tolerance: 'f32',
    big,
    prepare: () => prepare({ ...sizes, causal, columns }),
  };
}

function prepare({ t, n, heads, kvHeads, c, causal, mask, columns, scale, softcap }: AttentionSizes): PreparedCase {
  const keep = keeper();
  const seed = `attention ${t} ${n} ${heads} ${kvHeads} ${c} `;
  const q = noise(`${seed}q`, t * heads * c, 1.5);
  const [k, v] = [noise(`${seed}k`, n * kvHeads * c), noise(`${seed}v`, n * kvHeads * c)];
  const qTensor = keep.tensor(float32(q, [t, heads, c]));
  const kTensor = keep.tensor(float32(k, [n, kvHeads, c]));
  const vTensor = keep.tensor(float32(v, [n, kvHeads, c]));
  const intervals = Array.from({ length: t }, (_, i) => mask?.span(i) ?? [0, causal ? n - t + i + 1 : n]);
  const spans = mask && keep.tensor(int32(intervals.flat(), [t, 2]));
  const run = () => {
    const result = attention(qTensor, kTensor, vTensor, {
      causal: causal ?? false,
      columns: columns ?? false,
      ...{ spans, scale, softcap },
    });
    return [result.out, result.columns];
  };
  const sees = (i: number, j: number) => j >= (intervals[i]?.[0] ?? 0) && j < (intervals[i]?.[1] ?? 0);
  const scaled = scale === undefined ? q : q.map((x) => x * Math.fround(scale) * Math.sqrt(c));
  const checker = attentionChecker({ q: scaled, k, v, shape: { t, heads, kvHeads, c, softcap }, sees });
  return {
    run,
    check() {
      const [out = new Float32Array(), means = new Float32Array()] = take(run());
      return checker(out, means);
    },
    bytes: 4 * (2 * q.length + k.length + v.length),
    flops: 4 * c * heads * intervals.reduce((pairs, [from = 0, to = 0]) => pairs + to - from, 0),
    dispose: keep.dispose,
  };
}

/** Pairs of query and key when t queries are the last of n rows, causally. */
export function seenPairs(t: number, n: number): number {
  return t * (n - t) + (t * (t + 1)) / 2;
}

export const ATTENTION_CASES: readonly OpCase[] = [
  attentionCase({ t: 37, n: 37, heads: 3, kvHeads: 3, c: 72 }),
  attentionCase({ t: 37, n: 37, heads: 3, kvHeads: 3, c: 72, columns: true }),
  attentionCase({ t: 131, n: 131, heads: 2, kvHeads: 2, c: 40, columns: true }),
  attentionCase({ t: 29, n: 301, heads: 7, kvHeads: 1, c: 72, causal: true }),
  attentionCase({ t: 29, n: 301, heads: 7, kvHeads: 1, c: 72, causal: true, columns: true }),
  attentionCase({ t: 203, n: 203, heads: 6, kvHeads: 2, c: 17, causal: true, columns: true }),
  attentionCase({ t: 1, n: 129, heads: 4, kvHeads: 2, c: 5, causal: true, columns: true }),
  attentionCase({ t: 1, n: 1, heads: 1, kvHeads: 1, c: 3, causal: true, columns: true }),
  attentionCase({ t: 1, n: 1027, heads: 14, kvHeads: 2, c: 64, columns: true }),
  attentionCase({ t: 500, n: 500, heads: 2, kvHeads: 2, c: 72, mask: segments(0, 131, 420, 500), columns: true }),
  attentionCase({ t: 333, n: 333, heads: 2, kvHeads: 2, c: 80, mask: windows(64, 333), columns: true }),
  attentionCase({ t: 260, n: 260, heads: 3, kvHeads: 3, c: 40, mask: block(50, 180), columns: true }),
  // The first row that is seen lies inside a chunk of 128, and, for most queries, chunks before it are not seen at all.
  attentionCase({ t: 300, n: 700, heads: 4, kvHeads: 2, c: 16, mask: sliding(130, 400), columns: true }),
  attentionCase({ t: 2, n: 700, heads: 4, kvHeads: 2, c: 32, mask: sliding(200, 697), columns: true }),
  attentionCase({ t: 1, n: 900, heads: 7, kvHeads: 1, c: 64, mask: sliding(50, 699), columns: true }),
  attentionCase({ t: 1, n: 900, heads: 7, kvHeads: 1, c: 64, mask: sliding(383, 899) }),
  attentionCase({ t: 37, n: 150, heads: 4, kvHeads: 2, c: 24, causal: true, columns: true, softcap: 1.5 }),
  attentionCase({ t: 2, n: 150, heads: 3, kvHeads: 3, c: 32, mask: sliding(131, 148), scale: 0.3, softcap: 2 }),
  attentionCase({ t: 1024, n: 1024, heads: 16, kvHeads: 16, c: 64, big: true }),
  attentionCase({ t: 4096, n: 4096, heads: 16, kvHeads: 16, c: 80, mask: windows(64, 4096), big: true }),
  attentionCase({ t: 1024, n: 1024, heads: 16, kvHeads: 16, c: 64, columns: true, big: true }),
];
