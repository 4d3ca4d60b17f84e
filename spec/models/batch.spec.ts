// A ragged batch through the whole decoder: every sequence has the bits that it has by itself, at every instruction-set level.

import { load, type Model } from '../../src';
import type { KvCache } from '../../src/models/kv_cache';
import type { LayerView, Segment } from '../../src/models/segments';
import { floats, int32 } from '../../src/ops/run';
import { start } from '../../src/runtime/start';
import { levels } from '../ops/levels';
import { TINY } from '../support/assets';
import { compareBits } from '../support/nmse';
import { readRows } from '../support/watch';

const pace = async (): Promise<void> => undefined;
/** The rows in the cache before, the rows that follow, whether the sequence attends a view, and whether it asks for columns. */
const SEQUENCES = [
  { before: 37, rows: 1, sees: 'all', columns: false },
  // The cache grows during the batch: a tensor has 256 rows at first.
  { before: 256, rows: 1, sees: 'some', columns: false },
  { before: 140, rows: 6, sees: 'some', columns: true },
  { before: 0, rows: 19, sees: 'all', columns: true },
] as const;
const DECODING = SEQUENCES.slice(0, 2);

let model: Model;
const isa = start().native.isa();
beforeAll(async () => {
  model = await load(TINY);
});
afterEach(() => start().native.isa(isa));
afterAll(() => model.dispose());

const idsOf = (sequence: number, from: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => ((from + i) * 37 + sequence * 11 + 5) % 400);

/** A cache that holds what comes before a sequence's rows. */
async function filled(sequence: number, before: number): Promise<KvCache> {
  const { decoder } = model;
  const cache = decoder.cache('bf16');
  if (before === 0) return cache;
  const x = decoder.embed(idsOf(sequence, 0, before));
  (await decoder.forward(x, [{ cache, positions: Array.from({ length: before }, (_, i) => i) }], { pace })).dispose();
  x.dispose();
  return cache;
}

interface Result {
  readonly logits: Float32Array[];
  readonly columns: Float32Array[][];
  readonly caches: Float32Array[][];
}

/** Runs sequences in one call, from copies of their caches. */
async function together(
  of: readonly number[],
  caches: readonly KvCache[],
  views: readonly (readonly LayerView[] | undefined)[],
): Promise<Result> {
  const { decoder } = model;
  const own = of.map((i) => (caches[i] as KvCache).fork());
  const columns: Float32Array[][] = of.map(() => []);
  const ids: number[] = [];
  const batch = of.map((i, at): Segment => {
    const { before, rows, columns: isWanted } = SEQUENCES[i] as (typeof SEQUENCES)[number];
    ids.push(...idsOf(i, before, rows));
    const onColumns = (layer: number, values: Float32Array): void => {
      (columns[at] as Float32Array[])[layer] = values.slice();
    };
    return {
      ...{ cache: own[at] as KvCache, views: views[i] },
      positions: Array.from({ length: rows }, (_, row) => before + row),
      ...(isWanted && { onColumns }),
    };
  });
  const x = decoder.embed(ids);
  const y = await decoder.forward(x, batch, { pace });
  const v = decoder.config.vocabSize;
  const scores = decoder.scores(y, [...ids.keys()]);
  const values = floats(scores).slice();
  const ends = batch.map((_, at) => batch.slice(0, at + 1).reduce((sum, { positions }) => sum + positions.length, 0));
  const logits = ends.map((end, at) => values.slice((ends[at - 1] ?? 0) * v, end * v));
  const held = own.map((cache) => readRows(cache, decoder.config.headDim, 0, cache.lengths[0] ?? 0));
  for (const one of [x, y, scores, ...own]) one.dispose();
  return { logits, columns, caches: held };
}

test.each(levels())('a batch equals its parts at %s', async (level) => {
  start().native.isa(level);
  const caches = await Promise.all(SEQUENCES.map(({ before }, i) => filled(i, before)));
  const views = SEQUENCES.map(({ before, sees }) =>
    sees === 'all'
      ? undefined
      : Array.from({ length: model.decoder.config.layers }, (_, layer) => ({
          rows: int32(Array.from({ length: 30 }, (_unused, i) => 2 * i + (layer % 2))),
          tail: before - 20,
        })),
  );
  const apart = [];
  for (const i of SEQUENCES.keys()) apart.push(await together([i], caches, views));
  for (const of of [[0, 1, 2, 3], [3, 1, 0], [...DECODING.keys()]]) {
    const batch = await together(of, caches, views);
    for (const [at, i] of of.entries()) {
      const alone = apart[i] as Result;
      const pick = ({ logits, columns, caches: rows }: Result, from: number): Float32Array[] =>
        [logits[from], ...(columns[from] ?? []), ...(rows[from] ?? [])] as Float32Array[];
      expect(compareBits(pick(batch, at), pick(alone, 0))).toBe('identical');
      expect(batch.columns[at]).toHaveLength(SEQUENCES[i]?.columns ? model.decoder.config.layers : 0);
    }
  }
  for (const one of [...caches, ...views.flatMap((view) => view?.map(({ rows }) => rows) ?? [])]) one.dispose();
});

test('sequences that share a cache, have no row, or do not add up to x are refused', async () => {
  const { decoder } = model;
  const [cache, other] = [decoder.cache('bf16'), decoder.cache('bf16')];
  const x = decoder.embed([1, 2]);
  const refused = (batch: readonly Segment[]) =>
    expect(decoder.forward(x, batch, { pace })).rejects.toMatchObject({ code: 'ERR_INTERNAL' });
  await refused([
    { cache, positions: [0] },
    { cache, positions: [1] },
  ]);
  await refused([{ cache, positions: [0] }]);
  await refused([
    { cache, positions: [0, 1] },
    { cache: other, positions: [] },
  ]);
  expect(cache.bytes + other.bytes).toBe(0);
  x.dispose();
});

test('a failed call does not change the caches', async () => {
  const { decoder } = model;
  const cache = await filled(0, 20);
  const x = decoder.embed([1]);
  const broken = async (): Promise<void> => {
    throw new Error('aborted');
  };
  await expect(decoder.forward(x, [{ cache, positions: [20] }], { pace: broken })).rejects.toThrow('aborted');
  expect(cache.lengths).toEqual(cache.lengths.map(() => 20));
  for (const one of [x, cache]) one.dispose();
});
