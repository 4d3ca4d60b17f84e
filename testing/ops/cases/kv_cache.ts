// Cases of the KV cache: append and read, and attention that reads it through an index. A cache is filled by appends only.

import { gatheredSparseAttention } from '../../../src/ops/attention';
import { allocKv, appendKv, type KvType, readKv } from '../../../src/ops/kv_cache';
import { float32, int32 } from '../../../src/ops/run';
import type { Tensor } from '../../../src/runtime/tensor';
import { attentionChecker, seenPairs } from './attention';
import { COLD_BYTES, coldCopies, compare, inTurn, keeper, type OpCase, once, type PreparedCase, take } from './case';
import { noise, random, rounded } from './data';

const ELEMENT_BYTES: Readonly<Record<KvType, number>> = { bf16: 2, f32: 4 };

/** The rows of a view: the whole cache; listed rows only before the queries' own; listed rows and a tail. */
type ViewKind = 'dense' | 'rows' | 'rows + tail';

interface GatheredSizes {
  readonly t: number;
  /** Rows in the cache, the queries' own included. */
  readonly length: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly c: number;
  readonly type: KvType;
  readonly view: ViewKind;
  readonly columns?: boolean;
  /** How many of the rows up to itself a query sees; absent: all. */
  readonly window?: number;
  /** Share of the rows below the tail that is listed. */
  readonly share?: number;
  readonly big?: boolean;
}

function gatheredCase(sizes: GatheredSizes): OpCase {
  const { t, length, heads, kvHeads, c, type, view, columns = false, window, share = 0.3, big = false } = sizes;
  const extras = `${window === undefined ? '' : ` window ${window}`}${columns ? ' columns' : ''}`;
  const kind = `${view === 'dense' ? '' : `${Math.round(100 * share)} % `}${view}${extras}`;
  return {
    op: 'gatheredSparseAttention',
    name: `${t} of ${length}, ${heads}/${kvHeads}x${c} ${kind}`,
    dtype: type,
    tolerance: 'f32',
    big,
    prepare: () => prepareGathered({ ...sizes, columns, share, big, window: window ?? length }),
  };
}

function tailOf({ view, t, length }: GatheredSizes): number {
  if (view === 'dense') return 0;
  return view === 'rows' ? length - t : Math.floor((length - t) * 0.9);
}

/** Disjoint ascending lists of `count` rows below `tail`, as many as fit. */
function disjointLists(seed: string, tail: number, count: number): Int32Array[] {
  if (count === 0) return [new Int32Array()];
  const next = random(seed);
  const order = Int32Array.from({ length: tail }, (_, i) => i);
  for (let i = tail - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [order[i], order[j]] = [order[j] as number, order[i] as number];
  }
  return Array.from({ length: Math.floor(tail / count) }, (_, i) => order.slice(i * count, (i + 1) * count).sort());
}

function prepareGathered(sizes: Required<GatheredSizes>): PreparedCase {
  const { t, length, heads, kvHeads, c, type, columns, window, share, big } = sizes;
  const keep = keeper();
  const seed = `gathered ${t} ${length} ${heads} ${kvHeads} ${c} `;
  const q = noise(`${seed}q`, t * heads * c, 1.5);
  const [k, v] = [noise(`${seed}k`, length * kvHeads * c), noise(`${seed}v`, length * kvHeads * c)];
  const tail = tailOf(sizes);
  const lists = disjointLists(seed, tail, Math.round(tail * share)).slice(0, big ? undefined : 1);
  const attended = (lists[0] ?? []).length + length - tail;
  const rowBytes = 2 * kvHeads * c * ELEMENT_BYTES[type];
  // Lists do not overlap, so a cache is cold again for each of them.
  const copies = big && t === 1 ? Math.ceil(COLD_BYTES / (attended * rowBytes * lists.length)) : 1;
  const caches = Array.from({ length: copies }, () => keep.tensor(filledCache(k, v, { kvHeads, c, type })));
  const views = caches.flatMap((kv) => lists.map((list) => ({ kv, rows: keep.tensor(int32(list)), list })));
  const qTensor = keep.tensor(float32(q, [t, heads, c]));
  const spans = window < length ? keep.tensor(int32(slidingSpans(t, attended, window), [t, 2])) : undefined;
  const call = ({ kv, rows }: { kv: Tensor; rows: Tensor }) => {
    const result = gatheredSparseAttention(qTensor, kv, rows, { tail, length, columns }, spans);
    return [result.out, result.columns];
  };
  const next = inTurn(views);
  const first = inTurn(views)();
  const expected = once(() => gatheredChecker(sizes, { q, k, v }, tail, first.list));
  return {
    run: () => call(next()),
    check() {
      const [out = new Float32Array(), means = new Float32Array()] = take(call(first));
      return expected()(out, means);
    },
    bytes: attended * rowBytes + 8 * q.length,
    flops: 4 * c * heads * seenPairs(t, attended),
    dispose: keep.dispose,
  };
}

function gatheredChecker(
  { t, length, heads, kvHeads, c, type, window }: Required<GatheredSizes>,
  { q, k, v }: Readonly<Record<'q' | 'k' | 'v', Float32Array>>,
  tail: number,
  list: Int32Array,
) {
  const order = [...list, ...Array.from({ length: length - tail }, (_, i) => tail + i)];
  const places = new Map(order.map((row, place) => [row, place]));
  const sees = (i: number, j: number) => {
    const [place = -1, own] = [places.get(j), order.length - t + i];
    return place >= Math.max(0, own + 1 - window) && place <= own;
  };
  const problem = { q, k: stored(k, type), v: stored(v, type), shape: { t, heads, kvHeads, c }, sees };
  return attentionChecker(problem, order);
}

const stored = (values: Float32Array, type: KvType): Float32Array => rounded(values, type);

/** The spans of t queries, the last of `attended` rows, each of which sees `window` rows up to itself. */
export function slidingSpans(t: number, attended: number, window: number): number[] {
  return Array.from({ length: t }, (_, i) => attended - t + i + 1).flatMap((to) => [Math.max(0, to - window), to]);
}

/** A cache that holds k and v, f32 [rows, kv heads, c], and has room for `spare` more rows. */
export function filledCache(
  k: Float32Array,
  v: Float32Array,
  { kvHeads, c, type, spare = 0 }: { kvHeads: number; c: number; type: KvType; spare?: number },
): Tensor {
  const rows = k.length / (kvHeads * c);
  const kv = allocKv(kvHeads, rows + spare, c, type);
  const [kTensor, vTensor] = [k, v].map((values) => float32(values, [rows, kvHeads, c]));
  if (kTensor && vTensor) appendKv(kv, kTensor, vTensor, 0);
  kTensor?.dispose();
  vTensor?.dispose();
  return kv;
}

interface AppendSizes {
  readonly t: number;
  readonly at: number;
  readonly capacity: number;
  readonly kvHeads: number;
  readonly c: number;
  readonly type: KvType;
  readonly big?: boolean;
}

/** Appends t rows; small cases read them back, which the comparison needs. */
function appendCase({ t, at, capacity, kvHeads, c, type, big = false }: AppendSizes): OpCase {
  const prepare = (): PreparedCase => {
    const keep = keeper();
    const [k, v] = ['k', 'v'].map((name) => noise(`append ${t} ${c} ${name}`, t * kvHeads * c)) as [
      Float32Array,
      Float32Array,
    ];
    const [kTensor, vTensor] = [k, v].map((x) => keep.tensor(float32(x, [t, kvHeads, c]))) as [Tensor, Tensor];
    const bytes = 2 * k.length * (4 + ELEMENT_BYTES[type]);
    const caches = Array.from({ length: big ? coldCopies(bytes) : 1 }, () =>
      keep.tensor(allocKv(kvHeads, capacity, c, type)),
    );
    const next = inTurn(caches);
    const append = () => {
      const kv = next();
      appendKv(kv, kTensor, vTensor, at);
      return kv;
    };
    const appendAndRead = () => [readKv(append(), at, at + t, c)];
    return {
      run: () => {
        if (!big) return appendAndRead();
        append();
        return [];
      },
      check() {
        const [y = new Float32Array()] = take(appendAndRead());
        return [
          compare(
            'rows',
            y,
            [k, v].flatMap((x) => headMajor(stored(x, type), kvHeads, c)),
          ),
        ];
      },
      bytes,
      flops: 0,
      dispose: keep.dispose,
    };
  };
  const name = `${t}x${kvHeads}x${c} at ${at} of ${capacity}`;
  return { op: 'appendKv', name, dtype: type, tolerance: 'exact', big, prepare };
}

/** [t, kv heads, c] -> [kv heads, t, c]. */
function headMajor(values: Float32Array, kvHeads: number, c: number): number[] {
  const t = values.length / (kvHeads * c);
  return Array.from({ length: values.length }, (_, i) => {
    const [head, row, e] = [Math.floor(i / (t * c)), Math.floor(i / c) % t, i % c];
    return values[(row * kvHeads + head) * c + e] as number;
  });
}

const VIEWS = ['dense', 'rows', 'rows + tail'] as const;
const CACHE_TYPES = ['bf16', 'f32'] as const;
/** Groups of 1 and of 7 query heads per kv head; widths that are not multiples of 16, and one that is odd. */
const HEADS = [
  { heads: 3, kvHeads: 3, c: 72 },
  { heads: 14, kvHeads: 2, c: 40 },
] as const;

/** 28 query and 4 kv heads of 128: Qwen2-7B, the decoder of NVILA-8B. */
const QWEN2_7B = { heads: 28, kvHeads: 4, c: 128 } as const;

export const KV_CACHE_CASES: readonly OpCase[] = [
  ...CACHE_TYPES.flatMap((type) => [
    ...HEADS.flatMap((heads) =>
      VIEWS.flatMap((view) => [
        gatheredCase({ t: 1, length: 301, ...heads, type, view, columns: true }),
        gatheredCase({ t: 19, length: 203, ...heads, type, view, columns: heads.kvHeads === 3 }),
      ]),
    ),
    gatheredCase({ t: 1, length: 131, heads: 7, kvHeads: 1, c: 33, type, view: 'rows + tail', columns: true }),
    gatheredCase({ t: 1, length: 301, heads: 14, kvHeads: 2, c: 64, type, view: 'dense', window: 100, columns: true }),
    gatheredCase({
      t: 19,
      length: 403,
      heads: 6,
      kvHeads: 2,
      c: 40,
      type,
      view: 'rows + tail',
      window: 37,
      columns: true,
    }),
    gatheredCase({ t: 1, length: 1, heads: 7, kvHeads: 1, c: 8, type, view: 'dense', columns: true }),
    appendCase({ t: 5, at: 2, capacity: 11, kvHeads: 3, c: 33, type }),
    appendCase({ t: 1, at: 130, capacity: 131, kvHeads: 2, c: 72, type }),
  ]),
  gatheredCase({ t: 512, length: 4096, ...QWEN2_7B, type: 'bf16', view: 'dense', big: true }),
  gatheredCase({ t: 512, length: 4096, ...QWEN2_7B, type: 'bf16', view: 'dense', columns: true, big: true }),
  gatheredCase({ t: 1, length: 4096, ...QWEN2_7B, type: 'bf16', view: 'dense', big: true }),
  gatheredCase({ t: 1, length: 32768, ...QWEN2_7B, type: 'bf16', view: 'dense', big: true }),
  gatheredCase({ t: 1, length: 32768, ...QWEN2_7B, type: 'bf16', view: 'rows', share: 0.1, big: true }),
  appendCase({ t: 512, at: 0, capacity: 512, kvHeads: 4, c: 128, type: 'bf16', big: true }),
];
