// Cases of `attention`: full and causal, with and without the column mean, on plain tensors.

import { attention } from '../../../src/ops/attention';
import { float32 } from '../../../src/ops/run';
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
  readonly columns?: boolean;
  readonly big?: boolean;
}

/** What an attention op is compared with: outputs of which the reference computes some. */
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
  const { t, n, heads, kvHeads, c, causal = false, columns = false, big = false } = sizes;
  const kind = `${causal ? 'causal' : 'full'}${columns ? ' columns' : ''}`;
  return {
    op: 'attention',
    name: `${t} of ${n}, ${heads}/${kvHeads}x${c} ${kind}`,
    dtype: 'f32',
    tolerance: 'f32',
    big,
    prepare: () => prepare({ ...sizes, causal, columns, big }),
  };
}

function prepare({ t, n, heads, kvHeads, c, causal, columns }: Required<AttentionSizes>): PreparedCase {
  const keep = keeper();
  const seed = `attention ${t} ${n} ${heads} ${kvHeads} ${c} `;
  const q = noise(`${seed}q`, t * heads * c, 1.5);
  const [k, v] = [noise(`${seed}k`, n * kvHeads * c), noise(`${seed}v`, n * kvHeads * c)];
  const qTensor = keep.tensor(float32(q, [t, heads, c]));
  const kTensor = keep.tensor(float32(k, [n, kvHeads, c]));
  const vTensor = keep.tensor(float32(v, [n, kvHeads, c]));
  const run = () => {
    const result = attention(qTensor, kTensor, vTensor, { causal, columns });
    return [result.out, result.columns];
  };
  const sees = (i: number, j: number) => !causal || j <= n - t + i;
  const checker = attentionChecker({ q, k, v, shape: { t, heads, kvHeads, c }, sees });
  return {
    run,
    check() {
      const [out = new Float32Array(), means = new Float32Array()] = take(run());
      return checker(out, means);
    },
    bytes: 4 * (2 * q.length + k.length + v.length),
    flops: 4 * c * heads * (causal ? seenPairs(t, n) : t * n),
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
  attentionCase({ t: 1024, n: 1024, heads: 16, kvHeads: 16, c: 64, big: true }),
  attentionCase({ t: 1024, n: 1024, heads: 16, kvHeads: 16, c: 64, columns: true, big: true }),
];
