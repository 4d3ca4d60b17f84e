// ReKV-style retrieval finds the frame that shows the answer wherever it stands in a film, and permuted frames permute what is retrieved.

import { load, type Model, type ReKvOptions, reKv } from '../../src';
import { sceneFilm } from '../../src/scenes/film';
import type { ScenePixels } from '../../src/scenes/render';
import { frameKeysOf, largestProducts } from '../../src/session/frames';
import { matrixOf } from '../sparsity/views';
import { TINY_FILM } from '../support/assets';

let model: Model;
beforeAll(async () => {
  model = await load(TINY_FILM);
});
afterAll(() => model.dispose());

const FRAMES = 8;
/** Per layer, the frames that a question's answer attends, and the answer. */
async function asked(frames: readonly ScenePixels[], question: string, options: ReKvOptions) {
  using chat = model.session({ method: reKv(options) });
  const answer = chat.ask(question, { videos: [{ frames: [...frames] }], temperature: 0 });
  const text = (await answer.text()).trim();
  const rows = answer.stats?.tokens.visualKept ?? 0;
  const frameOf = (row: number): number => Math.floor((row * frames.length) / rows);
  return { text, frames: answer.stats?.retrieved?.map((own) => [...new Set(Array.from(own, frameOf))]) ?? [] };
}

const moved = <T>(list: readonly T[], from: number, to: number): T[] => {
  const others = list.filter((_, i) => i !== from);
  return [...others.slice(0, to), list[from] as T, ...others.slice(to)];
};

it.each([[2, 3]])('finds the needle of film %i, question %i at any place', async (index, turn) => {
  const film = sceneFilm({ seed: 1, index, frames: FRAMES, turns: 6 });
  const pixels = film.render();
  const { question = '', answer, frame = -1 } = film.turns[turn] ?? {};
  for (const place of [0, FRAMES - 1]) {
    const found = await asked(moved(pixels, frame, place), question, { frames: 3 });
    expect([place, found.text]).toEqual([place, answer]);
    // The third of four layers reads what the question names.
    expect(found.frames[2]).toContain(place);
  }
});

it('permuted frames permute what is retrieved, where keys and queries do not depend on the frames before', async () => {
  const pixels = sceneFilm({ seed: 1, index: 0, frames: FRAMES, turns: 1 }).render();
  const first = async (frames: readonly ScenePixels[], frameKeys: number | 'mean') =>
    new Set((await asked(frames, 'What color is the E?', { frames: 4, frameKeys })).frames[0]);
  for (const frameKeys of [8, 'mean'] as const) {
    const chosen = await first(pixels, frameKeys);
    expect(chosen.size).toBe(4);
    const reversed = await first([...pixels].reverse(), frameKeys);
    expect(reversed).toEqual(new Set([...chosen].map((frame) => FRAMES - 1 - frame).sort((a, b) => a - b)));
  }
});

it('a frame is compared by its mean key, or by the keys that differ most from it', () => {
  const keys = matrixOf([1, 0], [1, 1], [1, 0], [5, 0]);
  expect([...frameKeysOf(keys, undefined)]).toEqual([2, 0.25]);
  expect([...frameKeysOf(keys, 1)]).toEqual([5, 0]);
  expect([...frameKeysOf(keys, 2)]).toEqual([1, 1, 5, 0]);
  expect([...frameKeysOf(keys, 9)]).toEqual([1, 0, 1, 1, 1, 0, 5, 0]);
});

it('the score is the sum over heads of the largest product, with key heads repeated', () => {
  const score = (query: number[], keys: number[], kvHeads: number) =>
    largestProducts(Float32Array.from(query), Float32Array.from(keys), { headDim: 2, kvHeads });
  // Two query heads share a key head: the first is nearest to (3, 0), the second to (0, 2).
  expect(score([1, 0, 0, 1], [3, 0, 0, 2], 1)).toBe(5);
  // Each has its own: rows ((1, 0), (0, 7)) and ((2, 0), (0, -1)).
  expect(score([1, 0, 0, 1], [1, 0, 0, 7, 2, 0, 0, -1], 2)).toBe(9);
  expect(score([-1, 0], [3, 0, 4, 0], 1)).toBe(-3);
});
