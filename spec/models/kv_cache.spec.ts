// A KV cache grows with its rows, and keeps them when it grows, is copied or truncated.

import { type KvCache, kvCache } from '../../src/models/kv_cache';
import { appendKv, readKv } from '../../src/ops/kv_cache';
import { float32, floats } from '../../src/ops/run';
import { start } from '../../src/runtime/start';
import { noise } from '../../testing/ops/cases/data';

const [LAYERS, KV_HEADS, HEAD_DIM, LIMIT] = [3, 2, 6, 2000];
const CONFIG = { layers: LAYERS, kvHeads: KV_HEADS, headDim: HEAD_DIM };
/** Bytes of a row of one layer in bf16. */
const ROW = 2 * KV_HEADS * HEAD_DIM * 2;

const made: KvCache[] = [];
function emptyCache(type: 'bf16' | 'f32' = 'bf16'): KvCache {
  const cache = kvCache(CONFIG, type, LIMIT);
  made.push(cache);
  return cache;
}
afterEach(() => {
  for (const cache of made.splice(0)) cache.dispose();
});

/** Appends rows that no other call appends. */
function grow(cache: KvCache, rows: number, seed: string): void {
  cache.reserve(rows);
  for (const [layer, length] of cache.lengths.entries()) {
    const [k, v] = ['k', 'v'].map((name) =>
      float32(noise(`${seed} ${layer} ${name}`, rows * KV_HEADS * HEAD_DIM), [rows, KV_HEADS, HEAD_DIM]),
    );
    if (k === undefined || v === undefined) throw new Error('two tensors');
    appendKv(cache.tensor(layer), k, v, length);
    for (const tensor of [k, v]) tensor.dispose();
  }
  cache.extend(rows);
}

function held(cache: KvCache, layer: number, end = cache.lengths[layer] ?? 0): number[] {
  const rows = readKv(cache.tensor(layer), 0, end, HEAD_DIM);
  const values = [...floats(rows)];
  rows.dispose();
  return values;
}
const all = (cache: KvCache, end?: number): number[][] => cache.lengths.map((_, layer) => held(cache, layer, end));

test('an empty cache takes no memory and no tensor', () => {
  const before = start().tf.memory().numTensors;
  const cache = emptyCache();
  expect(cache.bytes).toBe(0);
  expect(start().tf.memory().numTensors).toBe(before);
});

test.each(['bf16', 'f32'] as const)(
  'rows stay as they are while a %s cache grows, and so do its tensors in number',
  (type) => {
    const cache = emptyCache(type);
    grow(cache, 100, 'first');
    const first = all(cache);
    const [bytes, { numTensors }] = [cache.bytes, start().tf.memory()];
    for (const rows of [1, 200, 700]) grow(cache, rows, `${rows}`);
    expect(cache.lengths).toEqual([1001, 1001, 1001]);
    expect(all(cache, 100)).toEqual(first);
    expect(cache.bytes).toBeGreaterThan(bytes);
    expect(start().tf.memory().numTensors).toBe(numTensors);
  },
);

test('memory is at most 1.5 times that of the rows, and at least one step', () => {
  const cache = emptyCache();
  for (let rows = 0; rows < 1500; rows += 30) {
    grow(cache, 30, `${rows}`);
    const needed = LAYERS * ROW * (rows + 30);
    expect(cache.bytes).toBeGreaterThanOrEqual(needed);
    expect(cache.bytes).toBeLessThanOrEqual(1.5 * needed + LAYERS * ROW * 256);
  }
});

test('growing makes few copies', () => {
  const cache = emptyCache();
  const tensors = new Set<unknown>();
  for (let row = 0; row < LIMIT; row++) {
    cache.reserve(1);
    cache.extend(1);
    tensors.add(cache.tensor(0));
  }
  expect(tensors.size).toBeLessThanOrEqual(7);
});

test('layers grow independently', () => {
  const cache = emptyCache();
  cache.reserve(300, { from: 1, to: 2 });
  cache.extend(300, { from: 1, to: 2 });
  expect(cache.lengths).toEqual([0, 300, 0]);
  expect(cache.bytes).toBe(512 * ROW);
});

test('rows beyond the limit are refused', () => {
  const cache = emptyCache();
  cache.reserve(LIMIT);
  expect(cache.bytes).toBe(LAYERS * LIMIT * ROW);
  cache.extend(LIMIT);
  expect(() => cache.reserve(1)).toThrow(expect.objectContaining({ code: 'ERR_CONTEXT_OVERFLOW' }));
});

test("a cache larger than the machine's memory is refused when it is made", () => {
  expect(() => kvCache({ layers: 1, kvHeads: 8, headDim: 256 }, 'bf16', 2 ** 30)).toThrow(
    expect.objectContaining({ code: 'ERR_OUT_OF_MEMORY' }),
  );
});

test('a fork holds the same rows and shares none', () => {
  const cache = emptyCache();
  grow(cache, 300, 'common');
  const common = all(cache);
  const fork = cache.fork();
  made.push(fork);
  expect(fork.lengths).toEqual(cache.lengths);
  expect(all(fork)).toEqual(common);
  cache.truncate([10, 10, 10]);
  grow(cache, 5, 'of the first');
  grow(fork, 5, 'of the fork');
  expect(fork.lengths).toEqual([305, 305, 305]);
  expect(all(fork, 300)).toEqual(common);
  expect(held(cache, 0).slice(0, HEAD_DIM)).toEqual(common[0]?.slice(0, HEAD_DIM));
  cache.dispose();
  expect(all(fork, 300)).toEqual(common);
});

test('truncating removes rows, and without rows the cache takes no memory', () => {
  const cache = emptyCache();
  grow(cache, 50, 'rows');
  const before = all(cache, 20);
  cache.truncate([20, 30, 60]);
  expect(cache.lengths).toEqual([20, 30, 50]);
  expect(all(cache, 20)).toEqual(before);
  expect(cache.bytes).toBe(LAYERS * 256 * ROW);
  cache.truncate([0, 0, 0]);
  expect(cache.bytes).toBe(0);
  grow(cache, 3, 'again');
  expect(cache.lengths).toEqual([3, 3, 3]);
});

test('rows that are kept move together in their layer', () => {
  const cache = emptyCache();
  grow(cache, 20, 'rows');
  const others = [held(cache, 0), held(cache, 2)];
  cache.keep(1, 5, Int32Array.of(0, 7));
  expect(cache.lengths).toEqual([20, 7, 20]);
  expect([held(cache, 0), held(cache, 2)]).toEqual(others);
});
