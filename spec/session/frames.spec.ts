// Retrieval in two levels: keys and queries before rotary embedding equal those of the small ops; frames are scored per layer, and the question and
// the answer attend the rows of the chosen ones alone; choosing all frames equals the retrieval in one level bit for bit.

import { join } from 'node:path';
import { budget, dense, fastV, load, type Model, reKv, type SparsityMethod, snapKv, sparseVila, topK } from '../../src';
import { openCheckpoint, readFloats } from '../../src/checkpoint/safetensors';
import { attendsAll } from '../../src/models/config';
import { decoderBlock } from '../../src/models/decoder_blocks';
import { canonicalName, DECODER_NAMES } from '../../src/models/names';
import type { Position } from '../../src/ops/rope';
import { float32, floats } from '../../src/ops/run';
import { floatOps, readBlock } from '../../src/quantize/block_weights';
import { start } from '../../src/runtime/start';
import { frameScores } from '../../src/session/frames';
import { createSession } from '../../src/session/session';
import { FIXTURES, scene, TINY } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { compareBits, F32_NMSE, nmse } from '../support/nmse';
import { watch } from '../support/watch';

const fixture = (...names: string[]): string => join(FIXTURES, ...names);
const FAMILIES = {
  'the packaged model': { folder: TINY, pictures: [0, 1, 2, 3].map((i) => scene(i)) },
  'Qwen2.5-VL (M-RoPE)': { folder: fixture('qwen_vl', 'qwen2.5-vl'), pictures: undefined },
  'Qwen3.5 (states, gates)': { folder: fixture('qwen_vl', 'qwen3.5'), pictures: undefined },
  'Gemma 3 (windows)': { folder: fixture('gemma3', 'plain'), pictures: undefined },
};

describe.each(Object.entries(FAMILIES))('%s', (_, { folder, pictures }) => {
  const images = pictures ?? ['image0.png', 'image1.png', 'image1.png', 'image0.png'].map((name) => join(folder, name));
  let model: Model;
  beforeAll(async () => {
    model = await load(folder);
  });
  afterAll(() => model.dispose());

  async function said(method: SparsityMethod) {
    const watched = watch({ ...model, stopIds: [] });
    using chat = createSession(watched.model, { method });
    const texts: string[] = [];
    const retrieved: unknown[] = [];
    for (const [question, given] of [
      ['What is where?', images.slice(0, 3)],
      ['Why?', []],
      ['And this?', images.slice(3)],
    ] as const) {
      const answer = chat.ask(question, { images: given, maxTokens: 4, temperature: 0 });
      texts.push(await answer.text());
      retrieved.push(answer.stats?.retrieved);
    }
    return { texts, retrieved, logits: [...watched.logits], calls: watched.calls };
  }

  it('mean queries and keys before rotary embedding are those of the small ops', async () => {
    const { config } = model.decoder;
    const layer = Array.from({ length: config.layers }).findLastIndex((_, at) => attendsAll(config, at));
    const entries = new Map(
      [...openCheckpoint(folder === TINY ? join(folder, 'llm') : folder)].map(([name, entry]) => [
        canonicalName(name, DECODER_NAMES) ?? name,
        entry,
      ]),
    );
    const block = decoderBlock(config, layer);
    const prefix = `model.layers.${layer}.`;
    const read = (name: string): Float32Array => {
      const own = [...entries].find(([full]) => full.endsWith(prefix + name));
      if (own === undefined) throw new Error(`no ${prefix}${name}`);
      return readFloats(own[1]);
    };
    const ops = floatOps(block, readBlock(block, read));
    const t = 5;
    const values = Float32Array.from({ length: t * config.hiddenSize }, (_, i) => Math.sin(1 + 0.7 * i * (i % 13)));
    const x = float32(values, [t, config.hiddenSize]);
    const seen: Float32Array[] = [];
    start().tf.tidy(() => {
      const attend = (q: typeof x, k: typeof x) => {
        for (const one of [q, k]) seen.push(floats(one).slice());
        return q;
      };
      block.run({ ...ops, attend }, x);
    });
    const [q = new Float32Array(), k = new Float32Array()] = seen;
    const mean = new Float32Array(q.length / t).map((_, j) =>
      q.reduce((sum, v, i) => (i % (q.length / t) === j ? sum + v / t : sum), 0),
    );
    expect(nmse(model.decoder.meanQuery(layer, x), mean)).toBeLessThanOrEqual(F32_NMSE);
    const isMrope = config.ropeAxes !== undefined;
    const positions = Array.from({ length: t }, (_, i): Position => (isMrope ? [9, 2 + i, 7 * i] : 40 + 3 * i));
    const cache = model.decoder.cache('f32', 100);
    const range = { from: layer, to: layer + 1 };
    const y = await model.decoder.forward(x, [{ cache, positions }], { layers: range, pace: async () => undefined });
    const [all = new Float32Array()] = model.decoder.keys([layer], cache, 0, positions);
    expect(nmse(all, k)).toBeLessThanOrEqual(F32_NMSE);
    const [last = new Float32Array()] = model.decoder.keys([layer], cache, 3, positions.slice(3));
    expect(compareBits([last], [all.slice(3 * (k.length / t))])).toBe('identical');
    // Rotated keys are others.
    const [wrong = new Float32Array()] = model.decoder.keys(
      [layer],
      cache,
      0,
      positions.map(() => 0),
    );
    expect(nmse(wrong, k)).toBeGreaterThan(0.01);
    for (const tensor of [x, y]) tensor.dispose();
    cache.dispose();
    ops.dispose();
  });

  it('choosing all frames equals dense, and retrieving in them equals the retrieval in one level, bit for bit', async () => {
    const [all, plain] = [await said(reKv({ frames: 1000 })), await said(dense())];
    expect(all.texts).toEqual(plain.texts);
    expect(compareBits(all.logits, plain.logits)).toBe('identical');
    const [two, one] = [
      await said(reKv({ frames: 1000, decodeSparsity: 0.8 })),
      await said(sparseVila({ prefillSparsity: 0, decodeSparsity: 0.8 })),
    ];
    expect(compareBits(two.logits, one.logits)).toBe('identical');
    expect(two.retrieved).toEqual(one.retrieved);
  });

  it('question and answer attend all text and the rows of the chosen frames, in layers that attend everything', async () => {
    const { config } = model.decoder;
    const seen: { layer: number; scores: Float32Array; rows: number[] }[] = [];
    const { retrieve } = reKv({ frames: 2 });
    const candidates: number[] = [];
    const method: SparsityMethod = {
      name: 'two frames',
      retrieve: {
        frames: (scores, layer, frames) => {
          seen.push({ layer, scores, rows: frames.map(({ rows }) => rows) });
          return retrieve?.frames?.(scores, layer, frames) ?? new Int32Array();
        },
        select: (relevance, _, places, total) => {
          candidates.push(places.length);
          return topK(relevance, budget(total ?? 0, 0.9));
        },
      },
    };
    const { retrieved } = await said(method);
    const full = Array.from({ length: config.layers }).flatMap((_, layer) =>
      attendsAll(config, layer) ? [layer] : [],
    );
    expect(seen.slice(0, full.length).map(({ layer }) => layer)).toEqual(full);
    expect(seen).toHaveLength(3 * full.length);
    for (const [i, { scores, rows }] of seen.entries()) {
      expect(scores.every((score) => Math.abs(score) <= 1.0001)).toBe(true);
      const chosen = topK(scores, 2).reduce((sum, frame) => sum + (rows[frame] ?? 0), 0);
      expect(candidates[i]).toBe(chosen);
    }
    // The scores of earlier frames do not change with later questions' frames: they depend on the question alone.
    const [first, second] = retrieved as (readonly Int32Array[] | undefined)[];
    expect(first?.length).toBe(config.layers);
    expect(second?.length).toBe(config.layers);
  });

  it('an earlier question changes no later one: the frames were not touched', async () => {
    const open = () => createSession({ ...model, stopIds: [] }, { method: reKv({ frames: 1 }), history: 'forget' });
    using both = open();
    using alone = open();
    await both.ask('What is where?', { images: images.slice(0, 3), maxTokens: 3, temperature: 0 }).text();
    const second = both.ask('Why?', { maxTokens: 3, temperature: 0 });
    const lonely = alone.ask('Why?', { images: images.slice(0, 3), maxTokens: 3, temperature: 0 });
    expect(await second.text()).toBe(await lonely.text());
    expect(second.stats?.retrieved).toEqual(lonely.stats?.retrieved);
    expect(second.stats?.retrieved?.length).toBe(model.decoder.config.layers);
  });

  it('rewinds, forks and frees its memory', async () => {
    const ask = async (chat: ReturnType<typeof createSession>, i: number) => {
      const answer = chat.ask('Which?', { images: images.slice(i, i + 2), maxTokens: 3, temperature: 0 });
      return [await answer.text(), answer.stats?.retrieved];
    };
    const turn = async () => {
      using chat = createSession({ ...model, stopIds: [] }, { method: reKv({ frames: 2 }) });
      await ask(chat, 0);
    };
    await turn();
    await withoutLeak(async () => {
      using chat = createSession({ ...model, stopIds: [] }, { method: reKv({ frames: 2, decodeSparsity: 0.5 }) });
      await ask(chat, 0);
      const mark = chat.mark();
      const first = await ask(chat, 1);
      chat.rewind(mark);
      await ask(chat, 2);
      chat.rewind(mark);
      using other = chat.fork();
      expect(await ask(other, 1)).toEqual(first);
      expect(await ask(chat, 1)).toEqual(first);
    });
  });
});

describe('scores of frames', () => {
  const score = (query: number[], ...means: number[][]): number[] =>
    Array.from(
      frameScores(
        Float32Array.from(query),
        means.map((mean) => Float32Array.from(mean)),
        2,
      ),
    );

  it('are cosines of all heads side by side', () => {
    // One head: (3, 4) with (3, 4), (-4, 3) and (6, 0).
    expect(score([3, 4], [3, 4], [-4, 3], [6, 0])).toEqual([1, 0, Math.fround(0.6)]);
    // Two query heads share the key head (1, 0): (1, 0, 0, 1) . (1, 0, 1, 0) / (sqrt 2 sqrt 2) = 0.5.
    expect(score([1, 0, 0, 1], [1, 0])[0]).toBeCloseTo(0.5, 6);
    // Four query heads, of which the first two share the first of two key heads: 1 / (sqrt 2 sqrt 2).
    expect(score([1, 0, 0, 0, 1, 0, 0, 0], [1, 0, 0, 0])[0]).toBeCloseTo(0.5, 6);
    expect(score([1, 0, 0, 0, 1, 0, 0, 0], [0, 1, 0, 0])[0]).toBe(0);
    expect(score([1, 1], [0, 0])).toEqual([0]);
  });
});

describe('methods with frames', () => {
  it('are refused with verify: the answer is not that of dense decoding', async () => {
    using model = await load(TINY);
    using chat = model.session({ method: reKv() });
    expect(() => chat.ask('What?', { verify: 'dense' })).toThrow(
      expect.objectContaining({ code: 'ERR_OPTION_INVALID' }),
    );
  });

  it.each([
    ['drop', { ...fastV(), ...reKv() }],
    ['permanent', { name: 'x', retrieve: { ...snapKv().retrieve, ...reKv().retrieve, permanent: true } }],
  ])('are refused with %s', async (_, method) => {
    using model = await load(TINY);
    expect(() => model.session({ method: method as SparsityMethod })).toThrow(
      expect.objectContaining({ code: 'ERR_METHOD', message: expect.stringMatching(/frames without drop/) }),
    );
  });
});
