// A schedule: which decoder layers attend retrieved visual rows, all, or none.

import { dense, load, METHODS, scheduled, snapKv, sparseVila, tune } from '../../src';
import { scenesSet } from '../../src/evaluate/data_set';
import { scene, TINY } from '../support/assets';

const half = sparseVila({ prefillSparsity: 0, decodeSparsity: 0.5 });

it('selects all rows, none, or those of the method by layer', () => {
  const relevance = Float32Array.of(0.1, 0.4, 0.2, 0.3);
  const { retrieve } = scheduled(half, { dense: [0], none: [2] });
  const selected = [0, 1, 2].map((layer) => Array.from(retrieve?.select(relevance, layer, []) ?? []));
  expect(selected).toEqual([[0, 1, 2, 3], [1, 3], []]);
  const { retrieve: plain } = scheduled(dense(), { none: [1] });
  expect([0, 1].map((layer) => plain?.select(relevance, layer, []).length)).toEqual([4, 0]);
});

it('refuses a layer in both lists, wrong layers, and a permanent retrieval', () => {
  expect(() => scheduled(half, { dense: [1], none: [1] })).toThrow('layer 1 in dense and none');
  expect(() => scheduled(half, { none: [-1] })).toThrow('integer of at least 0');
  expect(() => scheduled(snapKv(), { none: [1] })).toThrow('which discards them');
});

it('counts what each layer attends, and loses nothing for the next turn', async () => {
  using model = await load(TINY);
  using chat = model.session({ method: scheduled(half, { dense: [0], none: [3] }) });
  for (const options of [{ images: [scene(0)] }, {}]) {
    const answer = chat.ask('Read row 7.', { maxTokens: 2, ...options });
    await answer.text();
    expect(answer.stats?.retrieved?.map(({ length }) => length)).toEqual([100, 50, 50, 0]);
  }
});

it('tune finds layers that need no visual rows', async () => {
  using model = await load(TINY);
  const method = METHODS.find(({ name }) => name === 'sparsevila');
  if (method === undefined) throw new Error('a method');
  const data = scenesSet({ scenes: 2, turns: 2, frames: 1, seed: 1 });
  const grid = { prefill: [0], decode: [0] };
  const least = (goal: number) =>
    tune({ model, data, method, grid, goal: { measure: 'agreement', least: goal }, schedule: true });
  const { best } = (await least(0)) ?? {};
  expect(best?.none).toEqual([3, 2, 1, 0]);
  const strict = (await least(1))?.best;
  expect(strict?.value).toBe(1);
  expect(strict?.none?.length).toBeLessThan(4);
});
