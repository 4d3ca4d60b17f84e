// Sliding windows and pictures whose rows attend each other, through the whole decoder of Gemma 3: what lies outside of a window changes no
// bit, a picture is one block, a cache and a batch give the bits of one pass, and retrieval leaves layers with windows alone.

import { join } from 'node:path';
import { load, type Model, sparseVila } from '../../src';
import { windowOf } from '../../src/models/config';
import { floats } from '../../src/ops/run';
import { FIXTURES } from '../support/assets';
import { compareBits } from '../support/nmse';
import { recordTurn } from '../support/turn';

const FOLDER = join(FIXTURES, 'gemma3', 'plain');
const pace = async (): Promise<void> => undefined;
const ROWS = 60;

let model: Model;
beforeAll(async () => {
  model = await load(FOLDER);
});
afterAll(() => model.dispose());

const idsOf = (count: number, seed = 5): number[] =>
  Array.from({ length: count }, (_, i) => ((i * 37 + seed) % 100) + 4);
const POSITIONS = Array.from({ length: ROWS }, (_, i) => i);

interface Pass {
  readonly ids?: readonly number[];
  readonly positions?: readonly number[];
  /** Rows at which a new call begins. */
  readonly cuts?: readonly number[];
  /** A block of rows that attend each other, from … to - 1. */
  readonly block?: readonly [number, number];
  readonly layers?: number;
}

/** The hidden states of rows that pass through the first layers in one or more calls. */
async function hidden({
  ids = idsOf(ROWS),
  positions = POSITIONS,
  cuts = [],
  block,
  layers,
}: Pass): Promise<Float32Array[]> {
  const { decoder } = model;
  const cache = decoder.cache('f32');
  const rows: Float32Array[] = [];
  const [from, to] = block ?? [0, 0];
  for (const [i, begin] of [0, ...cuts].entries()) {
    const end = cuts[i] ?? ids.length;
    const x = decoder.embed(ids.slice(begin, end));
    const ends = Int32Array.from(
      { length: end - begin },
      (_, row) => (begin + row >= from && begin + row < to ? to : begin + row + 1) - begin,
    );
    const segment = { cache, positions: positions.slice(begin, end), ends: block && ends };
    const range = { from: 0, to: layers ?? decoder.config.layers };
    const y = await decoder.forward(x, [segment], { layers: range, pace });
    const d = decoder.config.hiddenSize;
    const values = floats(y);
    for (let row = 0; row < end - begin; row++) rows.push(values.slice(row * d, (row + 1) * d));
    for (const tensor of [x, y]) tensor.dispose();
  }
  cache.dispose();
  return rows;
}

const differing = (a: readonly Float32Array[], b: readonly Float32Array[]): number[] =>
  a.flatMap((row, i) => (compareBits([row], [b[i] ?? new Float32Array()]) === 'identical' ? [] : [i]));

test('in one layer a row reaches as many rows as the window has, by positions', async () => {
  const window = windowOf(model.decoder.config, 0) ?? 0;
  const changed = idsOf(ROWS);
  changed[10] = 4;
  const gaps = POSITIONS.map((at) => (at < 20 ? at : at + 8));
  const reach = async (positions: readonly number[]): Promise<number[]> => {
    const [one, other] = [await hidden({ positions, layers: 1 }), await hidden({ positions, layers: 1, ids: changed })];
    return differing(one, other);
  };
  expect(await reach(POSITIONS)).toEqual(Array.from({ length: window }, (_, i) => 10 + i));
  // The positions of pruned rows count: eight of them lie behind row 19, so that row 20 is 18 positions away.
  expect(await reach(gaps)).toEqual(Array.from({ length: 10 }, (_, i) => 10 + i));
});

test('rows of a block reach its earlier rows, within the window, and no others do', async () => {
  const changed = idsOf(ROWS);
  changed[29] = 4;
  const block = [20, 30] as const;
  const [one, other] = [await hidden({ block, layers: 1 }), await hidden({ block, layers: 1, ids: changed })];
  const window = windowOf(model.decoder.config, 0) ?? 0;
  expect(differing(one, other)).toEqual(Array.from({ length: 9 + window }, (_, i) => 20 + i));
});

test('calls over a growing cache give the bits of one call, at every border outside of a block', async () => {
  const block = [20, 30] as const;
  const whole = await hidden({ block });
  for (let cut = 1; cut < ROWS; cut++) {
    if (cut > block[0] && cut < block[1]) continue;
    expect([cut, differing(await hidden({ block, cuts: [cut] }), whole)]).toEqual([cut, []]);
  }
  const tail = Array.from({ length: ROWS - 30 }, (_, i) => 30 + i);
  expect(differing(await hidden({ block, cuts: tail }), whole)).toEqual([]);
});

test('a batch of sequences in different windows gives the bits of each', async () => {
  const { decoder } = model;
  const lengths = [3, 40, 25];
  const alone: Float32Array[] = [];
  const [caches, others] = [lengths.map(() => decoder.cache('f32')), lengths.map(() => decoder.cache('f32'))];
  const run = async (batch: { cache: (typeof caches)[0]; positions: number[] }[], ids: number[]) => {
    const x = decoder.embed(ids);
    const y = await decoder.forward(x, batch, { pace });
    const values = floats(y).slice();
    for (const tensor of [x, y]) tensor.dispose();
    return values;
  };
  for (const [i, length] of lengths.entries()) {
    const positions = Array.from({ length }, (_, at) => at);
    for (const set of [caches, others])
      await run([{ cache: set[i] as (typeof caches)[0], positions }], idsOf(length, i));
    alone.push(await run([{ cache: others[i] as (typeof caches)[0], positions: [length] }], [50 + i]));
  }
  const batch = lengths.map((length, i) => ({ cache: caches[i] as (typeof caches)[0], positions: [length] }));
  const together = await run(
    batch,
    lengths.map((_, i) => 50 + i),
  );
  const d = decoder.config.hiddenSize;
  expect(lengths.map((_, i) => together.slice(i * d, (i + 1) * d))).toEqual(alone);
  for (const cache of [...caches, ...others]) cache.dispose();
});

test.each(['original', 'compact'] as const)(
  'retrieval acts in layers without a window: %s positions',
  async (positions) => {
    const method = sparseVila({ prefillSparsity: 0.3, decodeSparsity: 0.5, positions });
    const images = [0, 1].map((i) => join(FOLDER, `image${i}.png`));
    const turn = await recordTurn(model, { images, question: 'What?', method, maxTokens: 4, kv: 'f32' });
    const counts = turn.stats.retrieved?.map(({ length }) => length) ?? [];
    const { config } = model.decoder;
    const isWindowed = counts.map((_, layer) => windowOf(config, layer) !== undefined);
    expect(isWindowed.includes(false)).toBe(true);
    for (const [layer, count] of counts.entries())
      expect(count < turn.stats.tokens.visualKept).toBe(isWindowed[layer] === false);
  },
);
