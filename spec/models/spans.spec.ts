// Masks of the decoder by layer and row: a causal mask given as spans changes no bit, a window equals a view of the same rows, and rows of a
// block see each other.

import { load, type Model } from '../../src';
import type { Segment } from '../../src/models/segments';
import { floats, int32 } from '../../src/ops/run';
import { TINY } from '../support/assets';
import { compareBits, F32_NMSE, nmse } from '../support/nmse';

const pace = async (): Promise<void> => undefined;
const ROWS = 150;

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

/** The hidden states of `rows` rows that follow `before` others, whose masks are the given ones in layers 1 and up. */
async function hidden(
  before: number,
  rows: number,
  masks: Pick<Segment, 'spans' | 'views'>,
  from: 'ids' | 'changed' = 'ids',
): Promise<Float32Array> {
  const { decoder } = model;
  const cache = decoder.cache('f32');
  const ids = Array.from({ length: before + rows }, (_, i) => (i * 37 + 5) % 400);
  if (from === 'changed') ids[ids.length - 1] = 7;
  const run = async (begin: number, end: number, more: Pick<Segment, 'spans' | 'views'>) => {
    const x = decoder.embed(ids.slice(begin, end));
    const positions = Array.from({ length: end - begin }, (_, i) => begin + i);
    const y = await decoder.forward(x, [{ cache, positions, ...more }], { pace });
    const values = floats(y).slice();
    for (const tensor of [x, y]) tensor.dispose();
    return values;
  };
  if (before > 0) await run(0, before, {});
  const y = await run(before, before + rows, masks);
  cache.dispose();
  return y;
}

/** The same spans in all layers but the first. */
const inLayers = (span: (row: number) => readonly [number, number], rows: number) => {
  const spans = Int32Array.from(Array.from({ length: rows }, (_, row) => span(row)).flat());
  return Array.from({ length: model.decoder.config.layers }, (_, layer) => (layer === 0 ? undefined : spans));
};

test.each([
  [0, ROWS],
  [ROWS, 1],
])('causal spans change no bit: %i rows, then %i', async (before, rows) => {
  const spans = inLayers((row) => [0, before + row + 1], rows);
  expect(compareBits([await hidden(before, rows, { spans })], [await hidden(before, rows, {})])).toBe('identical');
});

test('a window equals a view of its rows', async () => {
  const spans = inLayers(() => [ROWS - 20, ROWS + 1], 1);
  const none = int32([]);
  const views = spans.map((span) => ({ rows: none, tail: span === undefined ? 0 : ROWS - 20 }));
  const [windowed, viewed, all] = [
    await hidden(ROWS, 1, { spans }),
    await hidden(ROWS, 1, { views }),
    await hidden(ROWS, 1, {}),
  ];
  none.dispose();
  expect(nmse(windowed, viewed)).toBeLessThanOrEqual(F32_NMSE);
  expect(nmse(windowed, all)).toBeGreaterThan(1e-6);
});

test('rows of a block see the rows behind them, and no others do', async () => {
  const [begin, end] = [100, ROWS];
  const spans = inLayers((row) => [0, row >= begin && row < end ? end : row + 1], ROWS);
  const [one, other] = [await hidden(0, ROWS, { spans }), await hidden(0, ROWS, { spans }, 'changed')];
  const d = model.decoder.config.hiddenSize;
  const rowOf = (values: Float32Array, row: number) => values.slice(row * d, (row + 1) * d);
  expect(compareBits([rowOf(one, begin - 1)], [rowOf(other, begin - 1)])).toBe('identical');
  expect(compareBits([rowOf(one, begin)], [rowOf(other, begin)])).not.toBe('identical');
});
