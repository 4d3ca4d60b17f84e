// The host tier: with a byte budget, rows of cold frames lie in a file and return when a question chooses them. Answers and logits are those without the
// budget, bit for bit; the tensors of the cache stay within it; the file has no name, and a full disk costs no row.

import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dense, load, type Model, reKv } from '../../src';
import { hostRows } from '../../src/models/host_rows';
import { type KvCache, kvCache, rowBytes } from '../../src/models/kv_cache';
import { tieredCache } from '../../src/models/tiered_cache';
import { appendKv, readKv } from '../../src/ops/kv_cache';
import { float32, floats } from '../../src/ops/run';
import { createSession, type Session } from '../../src/session/session';
import { errorOf } from '../image/fixtures';
import { FIXTURES, scene, TINY } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { compareBits } from '../support/nmse';
import { watch } from '../support/watch';

const fixture = (...names: string[]): string => join(FIXTURES, ...names);
const FAMILIES = {
  'the packaged model': { folder: TINY, images: Array.from({ length: 4 }, (_, i) => scene(i)) },
  'Qwen2.5-VL (M-RoPE)': { folder: fixture('qwen_vl', 'qwen2.5-vl'), images: undefined },
  'Qwen3.5 (states, gates)': { folder: fixture('qwen_vl', 'qwen3.5'), images: undefined },
  'Gemma 3 (windows)': { folder: fixture('gemma3', 'plain'), images: undefined },
};
const METHOD = reKv({ frames: 2, localFrames: 2, decodeSparsity: 0.7 });
const files = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith(`sparsevila-kv-${process.pid}-`));

describe.each(Object.entries(FAMILIES))('%s', (_, { folder, images: given }) => {
  const images = given ?? Array.from({ length: 4 }, (_, i) => join(folder, `image${i % 2}.png`));
  let model: Model;
  beforeAll(async () => {
    model = await load(folder);
  });
  afterAll(() => model.dispose());

  const open = (kvBudget?: number, kv: 'bf16' | 'f32' = 'bf16') => {
    let tensors: KvCache | undefined;
    const cache: typeof model.decoder.cache = (...options) => {
      tensors = model.decoder.cache(...options);
      return tensors;
    };
    const watched = watch({ ...model, decoder: { ...model.decoder, cache }, stopIds: [] });
    const session = createSession(watched.model, { method: METHOD, kv, ...(kvBudget && { kvBudget }) });
    const ask = async (question: string, some: typeof images = [], from: Session = session) => {
      watched.clear();
      const answer = from.ask(question, { images: some, maxTokens: 3, temperature: 0 });
      const text = await answer.text();
      return { text, retrieved: answer.stats?.retrieved, logits: [...watched.logits] };
    };
    return { session, ask, held: () => Math.min(...(tensors?.lengths ?? [])) };
  };
  const expectSame = (a: Awaited<ReturnType<ReturnType<typeof open>['ask']>>, b: typeof a): void => {
    expect([a.text, a.retrieved]).toEqual([b.text, b.retrieved]);
    expect(compareBits(a.logits, b.logits)).toBe('identical');
  };

  it.each(given ? (['bf16', 'f32'] as const) : (['bf16'] as const))(
    'with a budget answers as without it, bit for bit, %s',
    async (kv) => {
      const [whole, small] = [open(undefined, kv), open(1, kv)];
      const mark = small.session.mark();
      const turns = [
        ['What?', images],
        ['Where is it?', []],
        ['And now?', images.slice(1, 3)],
        ['Why?', []],
      ] as const;
      const first = [];
      for (const [question, some] of turns) {
        const answer = await small.ask(question, [...some]);
        expectSame(answer, await whole.ask(question, [...some]));
        first.push(answer);
      }
      expect(files()).toEqual([]);
      expect(whole.held()).toBe(whole.session.length);
      expect(small.held()).toBeLessThan(small.session.length);
      using fork = small.session.fork();
      const forked = await fork.ask('Which?', { maxTokens: 3, temperature: 0 }).text();
      expect(forked).toBe((await whole.ask('Which?')).text);
      small.session.rewind(mark);
      for (const [i, [question, some]] of turns.slice(0, 2).entries())
        expectSame(await small.ask(question, [...some]), first[i] as (typeof first)[number]);
      const error = await errorOf(() => small.session.save(join(tmpdir(), 'never')));
      expect(error).toMatchObject({ code: 'ERR_CONFIG_UNSUPPORTED' });
      for (const { session } of [whole, small]) session.dispose();
    },
  );
});

describe('a tiered cache', () => {
  const config = { layers: 1, kvHeads: 2, headDim: 16 } as Model['decoder']['config'];
  const rows = (from: number, n: number) =>
    float32(
      Float32Array.from({ length: n * 32 }, (_, i) => from + Math.floor(i / 32) + (i % 32) / 64),
      [n, 2, 16],
    );
  const write = (cache: ReturnType<typeof kvCache>, n: number): void => {
    const from = cache.lengths[0] as number;
    cache.reserve(n);
    const [k, v] = [rows(from, n), rows(1000 + from, n)];
    appendKv(cache.tensor(0), k, v, cache.held[0] as number);
    cache.extend(n);
    for (const one of [k, v]) one.dispose();
  };
  const open = (folder?: string) =>
    tieredCache(kvCache(config, 'f32', 8192), config, { type: 'f32', budget: 512 * rowBytes(config, 'f32'), folder });
  /** The first key and value of rows. */
  const read = (cache: ReturnType<typeof kvCache>, at: readonly number[]): number[][] =>
    at.map((row) => {
      const tensor = readKv(cache.tensor(0), row, row + 1, 16);
      const values = floats(tensor);
      const both = [values[0] ?? Number.NaN, values[32] ?? Number.NaN];
      tensor.dispose();
      return both;
    });
  const upTo = (n: number, from = 0): number[] => Array.from({ length: n }, (_, i) => from + i);

  it('holds no more than the budget, and gives every row where it is asked for', async () => {
    await withoutLeak(async () => {
      const cache = open();
      write(cache, 200);
      const { bytes } = cache;
      for (let i = 0; i < 20; i++) {
        // The first ten rows and the last hundred.
        const length = cache.lengths[0] as number;
        cache.locate(0, { rows: upTo(10), tail: length - 100 }, 150);
        write(cache, 150);
        expect(cache.held[0]).toBeLessThanOrEqual(512);
      }
      expect(cache.lengths).toEqual([3200]);
      expect(cache.bytes).toBe(bytes);
      expect(bytes).toBe(512 * rowBytes(config, 'f32'));
      const wanted = [0, 5, 700, 701, 1500, 2999];
      const { rows: at, tail } = cache.locate(0, { rows: wanted, tail: 3100 });
      expect(at).toEqual([...at].sort((a, b) => a - b));
      expect(read(cache, at)).toEqual(wanted.map((row) => [row, 1000 + row]));
      expect(read(cache, upTo(100, tail))).toEqual(upTo(100, 3100).map((row) => [row, 1000 + row]));
      // Rows behind a point go, those before it stay, wherever they lie.
      cache.truncate([1600]);
      const fork = cache.fork();
      write(cache, 100);
      const again = fork.locate(0, { rows: [3, 1500], tail: 1600 }).rows;
      expect(read(fork, again)).toEqual([
        [3, 1003],
        [1500, 2500],
      ]);
      cache.dispose();
      expect(read(fork, fork.locate(0, { rows: [2, 900], tail: 1600 }).rows)).toEqual([
        [2, 1002],
        [900, 1900],
      ]);
      expect(() => fork.at(0, 1234)).toThrow(expect.objectContaining({ code: 'ERR_INTERNAL' }));
      fork.dispose();
    });
    expect(files()).toEqual([]);
  });

  it('loses no row where the file cannot be written', () => {
    const cache = open(join(tmpdir(), 'no-such-folder'));
    write(cache, 500);
    expect(() => cache.locate(0, { rows: [1], tail: 450 })).toThrow(
      expect.objectContaining({ code: 'ERR_OUTPUT_UNWRITABLE' }),
    );
    expect(cache.held).toEqual([500]);
    expect(read(cache, [0, 499])).toEqual([
      [0, 1000],
      [499, 1499],
    ]);
    cache.dispose();
  });

  it('the file grows only by new rows', () => {
    const host = hostRows(4, 'f32');
    expect(host.write(Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8))).toBe(0);
    expect(Array.from(host.read(1, 1))).toEqual([5, 6, 7, 8]);
    const other = host.share();
    host.truncate(1);
    expect(host.bytes).toBe(32);
    other.dispose();
    expect(host.bytes).toBe(16);
    // What a fork has written is free when the fork is gone, unless it lies before rows of another cache.
    for (let i = 0; i < 3; i++) {
      const [fork, late] = [host.share(), host.share()];
      expect(fork.write(Float32Array.of(7, 7, 7, 7))).toBe(1);
      expect(late.write(Float32Array.of(8, 8, 8, 8))).toBe(2);
      fork.dispose();
      expect(Array.from(late.read(2, 1))).toEqual([8, 8, 8, 8]);
      expect(host.bytes).toBe(48);
      late.dispose();
      expect(host.bytes).toBe(16);
    }
    expect(host.write(Float32Array.of(9, 9, 9, 9))).toBe(1);
    host.dispose();
    expect(() => host.read(0, 1)).toThrow(expect.objectContaining({ code: 'ERR_FILE_UNREADABLE' }));
  });
});

it('needs a method that chooses frames and attends local ones', async () => {
  using model = await load(TINY);
  for (const method of [dense(), reKv()])
    expect(() => model.session({ method, kvBudget: 2 ** 20 })).toThrow(
      expect.objectContaining({ code: 'ERR_OPTION_INVALID', message: expect.stringContaining('localFrames') }),
    );
});
