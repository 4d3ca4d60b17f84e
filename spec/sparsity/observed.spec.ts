// An observed method selects as without observation, and its inputs are recorded; every method of the table can be drawn.

import sharp from 'sharp';
import {
  dense,
  explain,
  load,
  METHODS,
  type Model,
  observed,
  type SparsityMethod,
  sparseVila,
  type VisualPlace,
} from '../../src';
import { scene, TINY } from '../support/assets';
import { viewOf } from './views';

const image = viewOf({ t: 1, h: 2, w: 3 }, Float32Array.of(0.1, 0.3, 0.2, 0.05, 0.15, 0.2));
const scores = Float32Array.of(0.3, 0.1, 0.4, 0.2);
const places: VisualPlace[] = Array.from(scores, (_, col) => ({ medium: 0, grid: 0, t: 0, row: 0, col }));

describe('observed', () => {
  it('selects as the method itself', () => {
    const inner = sparseVila({ positions: 'compact', salienceLayer: -2 });
    const { method } = observed(inner);
    expect(method).toMatchObject({ name: 'sparsevila', positions: 'compact', prune: { taps: { salience: [-2] } } });
    expect(method.prune?.select([image])).toEqual(inner.prune?.select([image]));
    expect(method.retrieve?.select(scores, 2, places)).toEqual(inner.retrieve?.select(scores, 2, places));
  });

  it('requests salience and retrieves everything if the method does neither', () => {
    const retrieving: SparsityMethod = { name: 'retrieving', retrieve: { select: () => Int32Array.of(3) } };
    for (const inner of [dense(), retrieving]) {
      const { method } = observed(inner);
      expect(method.prune?.taps).toEqual({ salience: [-1] });
      expect(method.prune?.select([image])).toEqual([Int32Array.of(0, 1, 2, 3, 4, 5)]);
      expect([...(method.retrieve?.select(scores, 0, places) ?? [])]).toEqual(
        inner === retrieving ? [3] : [...scores.keys()],
      );
    }
  });

  it('gives the relevance of each turn once', () => {
    const { method, takeRelevance } = observed(dense());
    const turn = (scale: number): void => {
      for (let layer = 0; layer < 3; layer++)
        method.retrieve?.select(Float32Array.of(scale, layer), layer, places.slice(0, 2));
    };
    expect(takeRelevance()).toBeUndefined();
    turn(1);
    const first = takeRelevance();
    expect(takeRelevance()).toBeUndefined();
    turn(2);
    expect(first?.map((layer) => [...layer.scores])).toEqual([
      [1, 0],
      [1, 1],
      [1, 2],
    ]);
    expect(takeRelevance()?.[2]).toEqual({ scores: Float32Array.of(2, 2), places: places.slice(0, 2) });
  });
});

describe('a watched conversation', () => {
  let model: Model;
  beforeAll(async () => {
    model = await load(TINY);
  });
  afterAll(() => model.dispose());

  const RATIOS = { prefillSparsity: 0.6, decodeSparsity: 0.75 };
  const QUESTIONS = ['What is at b4?', 'How many cyan objects are there?'];

  it.each(METHODS.map((entry) => [entry.name, entry] as const))(
    'of %s gives the same answers and rows, and can be drawn',
    async (_, entry) => {
      const watched = observed(entry.create(RATIOS));
      using plain = model.session({ method: entry.create(RATIOS) });
      using chat = model.session({ method: watched.method });
      const turns = [];
      for (const [i, question] of QUESTIONS.entries()) {
        const pictures = i === 0 ? [scene(0)] : [];
        const [expected, answer] = [plain, chat].map((session) => session.ask(question, { images: pictures }));
        const [said, watchedSaid = ''] = [await expected?.text(), await answer?.text()];
        expect(watchedSaid).toBe(said);
        const stats = answer?.stats;
        if (stats === undefined) throw new Error('no statistics');
        expect([stats.tokens, stats.media[0]?.kept]).toEqual([
          expected?.stats?.tokens,
          expected?.stats?.media[0]?.kept,
        ]);
        if (i === 0) expect(stats.media[0]?.salience).toHaveLength(100);
        turns.push({ question, answer: watchedSaid, images: pictures, stats, relevance: watched.takeRelevance() });
      }
      const { width, height } = await sharp(await explain(turns)).metadata();
      // Salience, kept cells and two turns.
      expect([width, (height ?? 0) > 400]).toEqual([2988, true]);
    },
  );
});
