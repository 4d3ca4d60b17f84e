// InfiniPot-V: rows of a film shrink to the budget after each block of frames, in layers that attend everything; what stays is as the formulas say.

import { join } from 'node:path';
import { dense, infiniPotV, load, type Model, PACKAGED_FILM_MODEL, reKv, type SparsityMethod } from '../../src';
import { attendsAll } from '../../src/models/config';
import { createSession } from '../../src/session/session';
import type { BoundView } from '../../src/sparsity/method';
import { FIXTURES, scene } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { compareBits } from '../support/nmse';
import { watch } from '../support/watch';

const FAMILIES = {
  'the packaged film model': {
    folder: PACKAGED_FILM_MODEL,
    frames: Array.from({ length: 8 }, (_, i) => scene(i % 4)),
  },
  'Qwen2.5-VL (M-RoPE)': { folder: join(FIXTURES, 'qwen_vl', 'qwen2.5-vl'), frames: undefined },
  'Qwen3.5 (states)': { folder: join(FIXTURES, 'qwen_vl', 'qwen3.5'), frames: undefined },
};

describe.each(Object.entries(FAMILIES))('%s', (_, { folder, frames: given }) => {
  const frames = given ?? Array.from({ length: 20 }, (_, i) => join(folder, `image${(i >> 1) % 2}.png`));
  const videos = given ? [{ frames }] : [{ frames: frames.map(() => join(folder, 'image0.png')) }];
  let model: Model;
  beforeAll(async () => {
    model = await load(folder);
  });
  afterAll(() => model.dispose());

  async function said(method: SparsityMethod) {
    const watched = watch({ ...model, stopIds: [] });
    using chat = createSession(watched.model, { method });
    const ask = async (question: string, film: typeof videos) => {
      const answer = chat.ask(question, { videos: film, maxTokens: 3, temperature: 0 });
      return [await answer.text(), answer.stats?.retrieved] as const;
    };
    const start = chat.mark();
    const first = await ask('What?', videos);
    const second = await ask('Why?', []);
    const logits = [...watched.logits];
    chat.rewind(start);
    expect(await ask('What?', videos)).toEqual(first);
    using fork = chat.fork();
    expect(await fork.ask('Why?', { maxTokens: 3, temperature: 0 }).text()).toBe(second[0]);
    return { first, second, logits };
  }

  it('keeps the budget exactly, after every block, in layers that attend everything', async () => {
    const blocks: { layer: number; planes: number[]; budget: number }[] = [];
    const { bound } = infiniPotV({ block: 4, frames: 2 });
    if (bound === undefined) throw new Error('no bound');
    const select = (view: BoundView): Int32Array => {
      blocks.push({ layer: view.layer, planes: [...new Set(view.places.map(({ t }) => t))], budget: view.budget });
      expect(view.keys().data).toHaveLength(view.places.length * view.keys().width);
      const kept = bound.select(view);
      expect(kept).toHaveLength(view.budget);
      return kept;
    };
    const { first, second } = await said({ name: 'bounded', bound: { ...bound, select } });
    const { config } = model.decoder;
    const full = [...Array(config.layers).keys()].filter((layer) => attendsAll(config, layer));
    const own = blocks.filter(({ layer }) => layer === full[0]);
    expect(new Set(blocks.map(({ layer }) => layer))).toEqual(new Set(full));
    // Four planes twice, in each of two readings of the film; the last of eight ends a block, the last of ten does not.
    expect(own.map(({ planes }) => planes.at(-1))).toEqual([3, 7, 3, 7]);
    const each = (own[0]?.budget ?? 0) / 2;
    for (const layer of full) expect(first[1]?.[layer]).toHaveLength((given ? 2 : 4) * each);
    expect(second[1]).toEqual(first[1]);
  });

  if (given === undefined)
    it('a budget that holds the film equals dense, bit for bit', async () => {
      const [all, plain] = [await said(infiniPotV({ block: 4, frames: 100 })), await said(dense())];
      expect(compareBits(all.logits, plain.logits)).toBe('identical');
      expect(all.first).toEqual(plain.first);
      await withoutLeak(async () => {
        await said(infiniPotV({ block: 4, frames: 2 }));
      });
    });
});

describe('InfiniPot-V', () => {
  const select = (keys: number[][], values: number[][], budget: number, options = {}): number[] => {
    const matrix = (rows: number[][]) => ({ data: Float32Array.from(rows.flat()), width: 2 });
    const places = keys.map((_, i) => ({ medium: 0, grid: 0, t: i >> 1, row: 0, col: i % 2 }));
    const view = { layer: 0, places, budget, heads: 1, keys: () => matrix(keys), values: () => matrix(values) };
    return Array.from(infiniPotV({ newest: 0.25, ...options }).bound?.select(view) ?? []);
  };
  // Four frames of two places; the newest frame is the last one.
  const keys = [
    [1, 0],
    [0, 1],
    [0, 2],
    [0, 3],
    [1, 1],
    [-1, 0],
    [3, 0],
    [0, 1],
  ];
  const small = keys.map((_, i) => [i / 100, 0]);

  it('TaR keeps the newest frame, and the rows that differ most from it at their place', () => {
    // Cosines with (3, 0) and (0, 1): 1, 1, 0, 1, 0.7, 0. Half of a budget of 8 less the newest two: rows 2 and 5, of equal scores.
    expect(select(keys, small, 4, { tarShare: 0.99 })).toEqual([2, 5, 6, 7]);
    expect(select(keys, small, 5, { tarShare: 0.99 })).toEqual([2, 4, 5, 6, 7]);
  });

  it('VaN fills the rest with the largest values', () => {
    const values = [
      [0, 9],
      [1, 0],
      [1, 0],
      [3, 4],
      [0, 1],
      [1, 0],
      [0, 0],
      [0, 0],
    ];
    // Half of 4: the newest two. Then the lengths 9 and 5.
    expect(select(keys, values, 4)).toEqual([0, 3, 6, 7]);
    expect(select(keys, values, 5, { tarShare: 0.6 })).toEqual([0, 2, 3, 6, 7]);
  });

  it('is refused with frames and drop', async () => {
    using model = await load(PACKAGED_FILM_MODEL);
    expect(() => model.session({ method: { ...reKv(), ...infiniPotV(), name: 'x' } })).toThrow(
      expect.objectContaining({ code: 'ERR_METHOD', message: expect.stringContaining('bound without') }),
    );
  });
});
