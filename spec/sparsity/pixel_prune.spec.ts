// PixelPrune: its rule on small grids, and the tower over a part of its patches, for every kind of tower and row map.

import { join } from 'node:path';
import { dense, load, type Matrix, type PixelView, pixelPrune, type SparsityMethod, sparseVila } from '../../src';
import type { PreparedMedium } from '../../src/models/media';
import { floats } from '../../src/ops/run';
import { createSession } from '../../src/session/session';
import { uniform } from '../../src/text/random';
import { errorOf } from '../image/fixtures';
import { FIXTURES, vilaCase } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { pause } from '../support/media';
import { compareBits } from '../support/nmse';
import { watch } from '../support/watch';

/** A grid whose tokens have one pixel each. */
function view(h: number, w: number, values: readonly number[], t = 1): PixelView {
  const pixels = (): Matrix => ({ data: Float32Array.from(values), width: 1 });
  return { tokens: t * h * w, grid: { t, h, w }, pixels };
}
const kept = (of: PixelView, options = {}): number[] => Array.from(pixelPrune(options).encode?.select([of])[0] ?? []);
const fill = (h: number, w: number, at: (row: number, col: number) => number) =>
  view(
    h,
    w,
    Array.from({ length: h * w }, (_, i) => at(Math.floor(i / w), i % w)),
  );
const noise = (h: number, w: number, seed = 1) => {
  const random = uniform(seed);
  return fill(h, w, () => random());
};

describe('the rule', () => {
  it('keeps one token of a page of one color, and all tokens of noise', () => {
    expect(kept(fill(9, 7, () => 3))).toEqual([0]);
    expect(kept(noise(9, 7))).toHaveLength(63);
  });

  it('keeps the corners of rectangles, and not their edges', () => {
    const inside = (row: number, col: number, top: number, left: number, side: number) =>
      row >= top && row < top + side && col >= left && col < left + side;
    const page = (side: number) =>
      fill(40, 40, (row, col) => Number(inside(row, col, 3, 4, side)) + 2 * Number(inside(row, col, 22, 20, side)));
    // More for larger rectangles would be more for longer edges.
    expect(kept(page(15)).length).toBe(kept(page(8)).length);
    expect(kept(page(15)).length).toBeLessThanOrEqual(12);
  });

  it('predicts from the left in the first row, from above in the first column', () => {
    expect(kept(view(1, 6, [1, 1, 2, 2, 1, 1]))).toEqual([0, 2, 4]);
    expect(kept(view(6, 1, [1, 1, 2, 2, 1, 1]))).toEqual([0, 2, 4]);
    // C = A, not C = B: what is above B goes on below it.
    expect(kept(view(2, 2, [1, 2, 1, 2]))).toEqual([0, 1]);
    expect(kept(view(2, 2, [1, 2, 1, 1]))).toEqual([0, 1, 3]);
  });

  it('compares with kept tokens, so that differences do not add up', () => {
    const ramp = view(1, 8, [0, 1, 2, 3, 4, 5, 6, 7]);
    expect(kept(ramp, { tau: 1 })).toEqual([0, 2, 4, 6]);
    expect(kept(ramp, { tau: 2.5, metric: 'mae' })).toEqual([0, 3, 6]);
    expect(kept(ramp, { tau: 2.5, metric: 'rmse' })).toEqual([0, 3, 6]);
  });

  it('at threshold 0 equals the prediction from the neighbors themselves', () => {
    const random = uniform(4);
    for (let round = 0; round < 50; round++) {
      const [h, w] = [1 + Math.floor(random() * 9), 1 + Math.floor(random() * 9)];
      const x = Array.from({ length: h * w }, () => Math.floor(random() * 2));
      const plain = x.flatMap((value, i) => {
        const [row, col] = [Math.floor(i / w), i % w];
        const [left, up, corner] = [x[i - 1], x[i - w], x[i - w - 1]];
        const inner = corner === left && corner !== up ? up : left;
        const from = row === 0 ? (col === 0 ? undefined : left) : col === 0 ? up : inner;
        return value === from ? [] : [i];
      });
      expect(kept(view(h, w, x))).toEqual(plain);
    }
  });

  it('selects in each frame and each grid by itself', () => {
    expect(kept(view(1, 2, [1, 1, 1, 1], 2))).toEqual([0, 2]);
    const grids = [noise(3, 3), fill(2, 2, () => 1)];
    const one = pixelPrune().encode?.select(grids);
    expect(pixelPrune().encode?.select([...grids].reverse())).toEqual([...(one ?? [])].reverse());
  });
});

const CASES = [
  vilaCase('linear'),
  ...[
    'qwen_vl/qwen2-vl',
    'qwen_vl/qwen2.5-vl',
    'qwen_vl/qwen3-vl',
    'internvl/layer',
    'llava/llava-llama',
    'gemma3/plain',
  ],
].map((name) => (name.includes('vila/') ? name : join(FIXTURES, name)));

/** A picture with noise in its upper left part, and one color elsewhere. */
function picture(share: number) {
  const random = uniform(3);
  const [width, height] = [168, 140];
  const data = new Uint8Array(width * height * 3).fill(200);
  for (let y = 0; y < height * share; y++)
    for (let x = 0; x < width * share * 3; x++) data[y * width * 3 + x] = Math.floor(random() * 256);
  return { data, width, height, channels: 3 as const };
}

describe.each(CASES)('%s', (folder) => {
  it('computes a part of its tokens, with zeros for the others, and all of them as in dense', async () => {
    using model = await load(folder);
    const [medium] = (await model.prepare([{ kind: 'image', image: picture(0.5) }])) as [PreparedMedium];
    const taps = { salience: [-1], keys: [-1], pace: pause };
    const whole = await model.encode(medium, taps);
    const every = Int32Array.from({ length: whole.tokens }, (_, i) => i);
    const all = await model.encode(medium, { ...taps, tokens: every });
    expect(compareBits([floats(all.features)], [floats(whole.features)])).toBe('identical');
    expect([all.salience, all.keys]).toEqual([whole.salience, whole.keys]);
    const tokens = every.filter((i) => i % 3 !== 1);
    const part = await model.encode(medium, { ...taps, tokens });
    const width = part.features.shape[1] as number;
    const rows = floats(part.features);
    for (const i of every) {
      const isZero = rows.subarray(i * width, (i + 1) * width).every((value) => value === 0);
      expect([i, isZero]).toEqual([i, !tokens.includes(i)]);
    }
    expect(part.salience[0]?.filter((value) => value === 0)).toHaveLength(every.length - tokens.length);
    for (const one of [whole, all, part]) one.dispose();
  });

  it('answers with fewer tokens, and noise with the bits of dense', async () => {
    using model = await load(folder);
    const ask = async (method: SparsityMethod, share: number) => {
      const watched = watch(model);
      using chat = createSession(watched.model, { method });
      const answer = chat.ask('What?', { images: [picture(share)], maxTokens: 2 });
      await answer.text();
      return { logits: [...watched.logits], tokens: answer.stats?.tokens };
    };
    const half = await ask(pixelPrune(), 0.5);
    expect(half.tokens?.visualKept).toBeLessThan(half.tokens?.visualSeen ?? 0);
    const [noisy, plain] = [await ask(pixelPrune(), 1), await ask(dense(), 1)];
    expect(compareBits(noisy.logits, plain.logits)).toBe('identical');
    const both = { ...sparseVila({ prefillSparsity: 0.3 }), encode: pixelPrune().encode };
    const pruned = await ask(both as SparsityMethod, 0.5);
    expect(pruned.tokens?.visualKept).toBeLessThanOrEqual(half.tokens?.visualKept ?? 0);
  });
});

it('an image cache does not mix what was computed', async () => {
  await withoutLeak(async () => {
    using model = await load(vilaCase('linear'), { imageCache: 1e8 });
    const said = [];
    for (const method of [pixelPrune(), dense(), pixelPrune()]) {
      using chat = model.session({ method });
      const answer = chat.ask('What?', { images: [picture(0.5)], maxTokens: 2 });
      await answer.text();
      said.push(answer.stats?.tokens.visualKept);
    }
    expect(said[0]).toBe(said[2]);
    expect(said[0]).toBeLessThan(said[1] ?? 0);
  });
});

it('refuses tokens that are pooled behind the projector, and a grid without tokens', async () => {
  using model = await load(join(FIXTURES, 'llava_onevision/large'));
  using chat = model.session({ method: pixelPrune() });
  const { data, width, height, channels } = picture(1);
  const frames = [0, 1].map(() => ({ data, width, height, channels }));
  expect((await errorOf(() => chat.ask('What?', { videos: [{ frames }] }).text())).code).toBe('ERR_METHOD_UNSUPPORTED');
  using other = model.session({
    method: { name: 'none', encode: { select: (grids) => grids.map(() => new Int32Array()) } },
  });
  expect((await errorOf(() => other.ask('What?', { images: [picture(1)] }).text())).code).toBe('ERR_SELECTION');
});
