// Bit-for-bit equivalences: a method that drops nothing, splits of a prompt, forgotten turns, instruction sets.

import { dense, load, type Model, type SparsityMethod, sparseVila } from '../../src';
import type { KvType } from '../../src/ops/kv_cache';
import type { Position } from '../../src/ops/rope';
import { float32 } from '../../src/ops/run';
import { start } from '../../src/runtime/start';
import type { Tensor } from '../../src/runtime/tensor';
import { createSession } from '../../src/session/session';
import { conversations, scene, TINY } from '../support/assets';
import { compareBits, F32_NMSE, nmse } from '../support/nmse';
import { joined, keepAll, recordTurn } from '../support/turn';
import { readRows, type Watched, watch } from '../support/watch';

const pace = async (): Promise<void> => undefined;
const QUESTIONS = conversations().map(({ turns }) => turns.map(({ question }) => question));
const q = (image: number, turn: number): string => QUESTIONS[image]?.[turn] ?? '';

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

/** Rows in the cache after the last forward call, forgotten ones included. */
function written({ calls }: Watched): number {
  const last = calls.at(-1);
  return last === undefined ? 0 : last.length + last.positions.length;
}

/** Texts, cache and logits of turns about picture 0, the image in the first. */
async function talk(
  session: { method: SparsityMethod; kv?: KvType; history?: 'keep' | 'forget' },
  questions: string[],
) {
  const watched = watch(model);
  using chat = createSession(watched.model, session);
  const texts: string[] = [];
  const retrieved: unknown[] = [];
  for (const [i, question] of questions.entries()) {
    watched.clear();
    const answer = chat.ask(question, i === 0 ? { images: [scene(0)] } : {});
    texts.push(await answer.text());
    retrieved.push(answer.stats?.retrieved);
  }
  return { texts, retrieved, logits: watched.logits, rows: watched.cacheRows(written(watched)) };
}

describe('a method that drops nothing', () => {
  it.each(['bf16', 'f32'] as const)('equals dense: text, cache and logits, %s', async (kv) => {
    const plain = await talk({ method: dense(), kv }, [q(0, 0), q(0, 1), q(0, 2)]);
    const sparse = await talk({ method: keepAll(), kv }, [q(0, 0), q(0, 1), q(0, 2)]);
    expect(sparse.texts).toEqual(plain.texts);
    expect(compareBits(sparse.rows, plain.rows)).toBe('identical');
    expect(compareBits(sparse.logits, plain.logits)).toBe('identical');
    expect(plain.logits.length).toBeGreaterThan(1);
  });

  it('a method that drops something does not equal dense', async () => {
    const plain = await talk({ method: dense() }, [q(0, 0)]);
    const pruned = await talk({ method: sparseVila({ decodeSparsity: 0 }) }, [q(0, 0)]);
    const chosen = await talk({ method: sparseVila({ prefillSparsity: 0 }) }, [q(0, 0)]);
    expect(compareBits(pruned.rows, plain.rows)).not.toBe('identical');
    expect(compareBits(chosen.logits, plain.logits)).not.toBe('identical');
    // Retrieval comes after the prefill: the first token's logits are those of dense.
    expect(compareBits(chosen.logits.slice(0, 1), plain.logits.slice(0, 1))).toBe('identical');
  });
});

/** Runs rows x [t, d] through the decoder in pieces of these lengths; cache and last logits. */
async function inPieces(x: Float32Array, positions: readonly Position[], pieces: readonly number[], kv: KvType) {
  const { decoder } = model;
  const d = decoder.config.hiddenSize;
  const cache = decoder.cache(kv, positions.length);
  let length = 0;
  let logits = new Float32Array();
  for (const n of pieces) {
    const rows = float32(x.slice(length * d, (length + n) * d), [n, d]);
    const segment = { cache, positions: positions.slice(length, length + n) };
    const y: Tensor = await decoder.forward(rows, [segment], { pace });
    length += n;
    logits = decoder.logits(y).slice();
    rows.dispose();
    y.dispose();
  }
  const result = [...readRows(cache, decoder.config.headDim, 0, length), logits];
  cache.dispose();
  return result;
}

describe('a prompt in pieces equals the whole', () => {
  it.each([
    ['bf16', 1],
    ['f32', 7],
  ] as const)('split anywhere in an image prompt, and token by token, %s (every %i rows)', async (kv, step) => {
    const { hidden, positions } = await recordTurn(model, { images: [scene(0)], question: q(0, 0), kv, maxTokens: 1 });
    const x = hidden[0] ?? new Float32Array();
    const t = positions.length;
    const whole = await inPieces(x, positions, [t], kv);
    const differing: string[] = [];
    for (let at = 1; at < t; at += step) {
      const compared = compareBits(await inPieces(x, positions, [at, t - at], kv), whole);
      if (compared !== 'identical') differing.push(`split at ${at}: ${compared}`);
    }
    expect(differing).toEqual([]);
    expect(
      compareBits(
        await inPieces(
          x,
          positions,
          positions.map(() => 1),
          kv,
        ),
        whole,
      ),
    ).toBe('identical');
  });

  it("over the boundary of the session's chunks: 512 rows", async () => {
    const watched = watch(model, { hidden: true });
    using chat = createSession(watched.model, { kv: 'f32' });
    await chat.ask(`${'Where is the red A? '.repeat(200)}`, { maxTokens: 1 }).text();
    const lengths = watched.calls.map(({ positions }) => positions.length);
    const t = lengths.reduce((a, b) => a + b);
    expect(t).toBeGreaterThan(1024);
    expect(lengths.slice(0, 2)).toEqual([512, 512]);
    const x = joined(watched.calls.map(({ hidden }) => hidden[0]));
    const positions = watched.calls.flatMap((call) => call.positions);
    const whole = await inPieces(x, positions, [t], 'f32');
    expect(compareBits([...watched.cacheRows(t), ...watched.logits], whole)).toBe('identical');
  });

  it('relevance of a question of several chunks is that of the question in one call', async () => {
    const seen: Float32Array[] = [];
    const method: SparsityMethod = {
      name: 'looking',
      retrieve: {
        select: (relevance, layer) => {
          seen[layer] = relevance.slice();
          return Int32Array.of(0);
        },
      },
    };
    const watched = watch(model, { hidden: true });
    using chat = createSession(watched.model, { method, kv: 'f32' });
    await chat.ask('Where is the red A? '.repeat(120), { images: [scene(0)], maxTokens: 1 }).text();
    const [opening, ...chunks] = watched.calls;
    if (opening === undefined) throw new Error('no calls');
    expect(chunks.length).toBeGreaterThan(1);
    const { decoder } = model;
    const x = joined(chunks.map(({ hidden }) => hidden[0]));
    const rows = float32(x, [x.length / decoder.config.hiddenSize, decoder.config.hiddenSize]);
    const cache = decoder.cache('f32', 4096);
    const first = float32(opening.hidden[0] ?? [], [opening.positions.length, decoder.config.hiddenSize]);
    const columns: Float32Array[] = [];
    (await decoder.forward(first, [{ cache, positions: opening.positions }], { pace })).dispose();
    const positions = chunks.flatMap((call) => call.positions);
    const onColumns = (_: number, values: Float32Array): number => columns.push(values.slice());
    (await decoder.forward(rows, [{ cache, positions, onColumns }], { pace })).dispose();
    for (const tensor of [rows, first, cache]) tensor.dispose();
    for (const [layer, values] of columns.entries())
      expect(nmse(seen[layer] ?? [], values.subarray(3, 103))).toBeLessThanOrEqual(F32_NMSE);
    expect(seen).toHaveLength(4);
  });
});

describe('turns', () => {
  it('a turn after forgotten turns equals the same turn alone', async () => {
    for (const method of [dense(), sparseVila()]) {
      const after = await talk({ method, history: 'forget' }, [q(0, 0), q(0, 1), q(0, 2)]);
      const alone = await talk({ method, history: 'forget' }, [q(0, 2)]);
      expect(after.texts[2]).toBe(alone.texts[0]);
      expect(after.retrieved[2]).toEqual(alone.retrieved[0]);
      expect(compareBits(after.rows, alone.rows)).toBe('identical');
      expect(compareBits(after.logits, alone.logits)).toBe('identical');
    }
  });

  it('a sparse turn changes no row that was there, and turns retrieve other rows', async () => {
    const watched = watch(model);
    using chat = createSession(watched.model, { method: sparseVila() });
    const retrieved: string[] = [];
    for (const turn of [0, 1, 2, 3]) {
      const end = chat.length;
      const before = watched.cacheRows(end);
      const answer = chat.ask(q(0, turn), turn === 0 ? { images: [scene(0)] } : {});
      await answer.text();
      expect(chat.length).toBeGreaterThan(end);
      if (turn > 0) expect(compareBits(watched.cacheRows(end), before)).toBe('identical');
      retrieved.push(JSON.stringify(answer.stats?.retrieved?.map((rows) => Array.from(rows))));
    }
    expect(new Set(retrieved).size).toBe(4);
  });
});

describe('instruction sets', () => {
  const { native } = start();
  const has = native.cpuFeatures();
  const restore = native.isa();
  afterAll(() => native.isa(restore));
  const at = async (level: string) => {
    native.isa(level);
    expect(native.isa()).toBe(level);
    const result = await talk({ method: sparseVila() }, [q(0, 0), q(0, 1), q(0, 2)]);
    native.isa(restore);
    return result;
  };
  const both = has.avx2 === true && has.avx512 === true;

  (both ? it : it.skip)(
    `avx2 and avx512 give the same bits${both ? '' : ' (this processor lacks one of them)'}`,
    async () => {
      const [a, b] = [await at('avx2'), await at('avx512')];
      expect(b.texts).toEqual(a.texts);
      expect(b.retrieved).toEqual(a.retrieved);
      expect(compareBits(b.rows, a.rows)).toBe('identical');
      expect(compareBits(b.logits, a.logits)).toBe('identical');
    },
  );

  it('portable code gives the same answers', async () => {
    const [a, b] = [await at('portable'), await at(restore)];
    expect(a.texts).toEqual(b.texts);
    expect(a.retrieved).toEqual(b.retrieved);
  });
});
