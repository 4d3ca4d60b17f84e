// Qwen2-VL, Qwen2.5-VL and Qwen3-VL against transformers: three random checkpoints, three turns with two pictures each, and a video of an
// odd number of frames. Fixtures: scripts/fixtures/qwen_vl.py; the names of tensors are in its README.

import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { dense, load, METHODS, type Model, type SparsityMethod, uniform } from '../../src';
import { smartResize, smartResizeVideo } from '../../src/image/smart_resize';
import { readJson } from '../../src/json';
import { stateOf } from '../../src/models/deepstack';
import type { KvCache } from '../../src/models/kv_cache';
import type { PreparedMedium } from '../../src/models/media';
import type { Position } from '../../src/ops/rope';
import { float32 } from '../../src/ops/run';
import type { Tensor } from '../../src/runtime/tensor';
import { createSession } from '../../src/session/session';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { formula } from '../support/family_suite';
import { drawn, patchesOf, pause } from '../support/media';
import { compareBits, F32_NMSE, nmse } from '../support/nmse';
import { readExpected } from '../support/tensors';
import { argmax, joined, recordTurn } from '../support/turn';
import { type Watched, watch } from '../support/watch';

const QWEN = join(FIXTURES, 'qwen_vl');
const SIZES = [
  [40, 40],
  [30, 150],
  [150, 30],
  [50, 37],
  [2000, 1500],
] as const;

interface Turn {
  readonly question: string;
  readonly media: readonly ('image' | 'video')[];
}
interface Facts extends Readonly<Record<`${string}.pixel_values`, string>> {
  readonly turns: readonly Turn[];
  readonly film: readonly Turn[];
  readonly fps: number;
  readonly resized: Readonly<Record<string, { readonly grid: readonly number[]; readonly sha256: string }>>;
}

const sha = (values: Float32Array | Uint8Array): string =>
  createHash('sha256')
    .update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
    .digest('hex');

const triple = (position: Position): readonly number[] =>
  typeof position === 'number' ? [position, position, position] : position;

it('sizes and refusals equal those of smart_resize', async () => {
  const { rows, films } = readJson(join(QWEN, 'smart_resize.json')) as unknown as Record<'rows' | 'films', number[][]>;
  expect([rows.length > 200, films.length > 150]).toEqual([true, true]);
  let refused = 0;
  for (const [frames = 0, width = 0, height = 0, factor = 0, min = 0, max = 0, w, h] of [
    ...rows.map((row) => [0, ...row]),
    ...films,
  ]) {
    const limits = { min, max };
    const resize = async () =>
      frames === 0
        ? smartResize({ width, height }, factor, limits)
        : smartResizeVideo({ width, height }, frames, { factor, span: 2 }, limits);
    if (w === null) {
      expect((await errorOf(resize)).code).toBe('ERR_IMAGE_TOO_LARGE');
      refused++;
    } else expect([frames, width, height, await resize()]).toEqual([frames, width, height, { width: w, height: h }]);
  }
  expect(refused).toBeGreaterThan(3);
});

/** Rows from … to - 1. */
type Piece = readonly [from: number, to: number];

describe.each(['qwen2.5-vl', 'qwen2-vl', 'qwen3-vl', 'qwen3.5'])('%s', (name) => {
  const folder = join(QWEN, name);
  const expected = readExpected(join(folder, 'expected.safetensors'));
  const facts = readJson(join(folder, 'expected.json')) as unknown as Facts;
  const image = (i: number): string => join(folder, `image${i}.png`);
  const frames = Array.from({ length: name === 'qwen2-vl' ? 3 : 5 }, (_, i) => join(folder, `frame${i}.png`));
  const film = { frames, fps: facts.fps };
  let model: Model;
  beforeAll(async () => {
    model = await load(folder);
  });
  afterAll(() => model.dispose());

  const media = {
    image0: () => model.prepare([{ kind: 'image', image: image(0) }]),
    image1: () => model.prepare([{ kind: 'image', image: image(1) }]),
    film: () => drawn(model, [{ kind: 'video', video: film }]),
  };
  const mediumOf = async (of: keyof typeof media): Promise<PreparedMedium> => {
    const [medium] = await media[of]();
    if (medium === undefined) throw new Error('a medium');
    return medium;
  };

  it.each(SIZES)('a picture of %i x %i is resized as by Pillow, and cut into its patches', async (width, height) => {
    const [medium] = await model.prepare([{ kind: 'image', image: formula(width, height) }]);
    if (medium === undefined) throw new Error('a medium');
    const bytes = Float32Array.from({ length: 256 }, (_, i) => i);
    const { grid, sha256 } = facts.resized[`${width}x${height}`] ?? { grid: [] };
    const { t, h, w } = medium.layout.grids[0] ?? { t: 0, h: 0, w: 0 };
    expect([t, 2 * h, 2 * w]).toEqual(grid);
    expect(sha(Uint8Array.from(patchesOf(model, medium, [bytes, bytes, bytes])))).toBe(sha256);
  });

  it.each(['image0', 'image1', 'film'] as const)(
    'patches, merged tower, salience and projected rows of %s',
    async (of) => {
      const medium = await mediumOf(of);
      const { t, h, w } = medium.layout.grids[0] ?? { t: 0, h: 0, w: 0 };
      expect([t, 2 * h, 2 * w]).toEqual(expected.ids(`${of}.grid`));
      expect(sha(patchesOf(model, medium))).toBe(facts[`${of}.pixel_values`]);
      if (name === 'qwen2.5-vl')
        expect(Array.from(medium.layout.patches.windows ?? [])).toEqual(expected.ids(`${of}.windows`));
      const seen = await model.encode(medium, { salience: [-1], keys: [-1], pace: pause });
      const states = 1 + (model.plan.deepstack?.length ?? 0);
      const nameOf = (what: string, i: number): string => `${of}.${i === 0 ? '' : `deepstack${i - 1}.`}${what}`;
      const isClose = (own: Tensor, i: number, what: string): void => {
        expect(nmse(own.dataSync(), expected.f32(nameOf(what, i)))).toBeLessThanOrEqual(F32_NMSE);
        own.dispose();
      };
      for (let i = 0; i < states; i++)
        isClose(stateOf(seen.features, i, states, model.plan.tower.hiddenSize), i, 'merged');
      expect(nmse(seen.salience[0] ?? [], expected.f32(`${of}.salience`))).toBeLessThanOrEqual(F32_NMSE);
      const rows = model.project(seen.features, seen.layout);
      for (let i = 0; i < states; i++)
        isClose(stateOf(rows, i, states, model.decoder.config.hiddenSize), i, 'projected');
      rows.dispose();
      seen.dispose();
    },
  );

  /** Asks, and compares positions of the prompt, the first logits and the greedy tokens with those of `turn`. */
  async function checkTurn(ask: (watched: Watched) => Promise<unknown>, turn: string, watched: Watched): Promise<void> {
    watched.clear();
    await ask(watched);
    const want = expected.ids(`${turn}.positions`);
    const length = want.length / 3;
    // Eight tokens of an answer, of which the last is not run.
    const own = watched.calls.flatMap(({ positions }) => positions.map(triple)).slice(0, -7);
    const begin = length - own.length;
    expect(own).toEqual(own.map((_, i) => [0, 1, 2].map((axis) => want[axis * length + begin + i])));
    const tail = expected.f32(`${turn}.logits_tail`).subarray(-model.decoder.config.vocabSize);
    expect(nmse(watched.logits[0] ?? [], tail)).toBeLessThanOrEqual(F32_NMSE);
    expect(watched.logits.map(argmax)).toEqual(expected.ids(`${turn}.greedy`));
  }

  it('answers three turns about two pictures with the tokens of transformers', async () => {
    const watched = watch({ ...model, stopIds: [] });
    using session = createSession(watched.model, { kv: 'f32' });
    for (const [turn, { question, media: kinds }] of facts.turns.entries()) {
      const options = { images: kinds.length === 1 ? [image(turn)] : [], maxTokens: 8, temperature: 0 };
      await checkTurn(() => session.ask(question, options).text(), `${turn}`, watched);
    }
  });

  it('answers about a video of an odd number of frames, using its rate', async () => {
    const watched = watch({ ...model, stopIds: [] });
    const [{ question } = { question: '' }] = facts.film;
    const ask = async (fps: number | undefined): Promise<void> => {
      using session = createSession(watched.model, { kv: 'f32' });
      const video = { frames, ...(fps !== undefined && { fps }) };
      await session.ask(question, { videos: [video], maxTokens: 8, temperature: 0 }).text();
    };
    await checkTurn(() => ask(facts.fps), 'film.0', watched);
    const seen = ({ calls, embedded }: Watched) => [calls.map(({ positions }) => positions), embedded];
    const asGiven = structuredClone(seen(watched));
    watched.clear();
    await ask(undefined);
    // Positions of Qwen2.5 count seconds, and Qwen3 reads them. Of Qwen2 a rate changes nothing.
    if (name === 'qwen2-vl') expect(seen(watched)).toEqual(asGiven);
    else expect(seen(watched)).not.toEqual(asGiven);
  });

  it('equals dense attention bit for bit if everything is kept', async () => {
    const ask = (method?: SparsityMethod) =>
      recordTurn(model, {
        ...{ images: [image(0), image(1)], videos: [film], question: 'What?', kv: 'bf16', maxTokens: 6 },
        ...(method && { method }),
      });
    const [all, none] = [await ask(), await ask(dense())];
    expect(compareBits([all.promptLogits], [none.promptLogits])).toBe('identical');
    expect(all.text).toBe(none.text);
  });

  it.each(Object.values(METHODS).map((entry) => [entry.name, entry] as const))('runs %s', async (_, entry) => {
    using session = model.session({ method: entry.create({ prefillSparsity: 0.5, decodeSparsity: 0.5 }) });
    const first = session.ask('What is in the picture?', { images: [image(0)], maxTokens: 4 });
    const second = session.ask('And here?', { videos: [film], maxTokens: 4 });
    await first.text();
    // Its tower attends within windows, or rotates its keys.
    if (entry.name === 'stc') {
      await expect(second.text()).rejects.toMatchObject({ code: 'ERR_METHOD_UNSUPPORTED' });
      return;
    }
    await second.text();
    const tokens = (of: string): number => expected.ids(`${of}.grid`).reduce((all, side) => all * side, 1) / 4;
    const seen = [first.stats, second.stats].map((stats) => stats?.tokens.visualSeen ?? 0);
    const whole = [tokens('image0'), tokens('film')];
    if (entry.name !== 'downsample') return expect(seen).toEqual(whole);
    // Smaller pictures have fewer tokens, of half the number at most.
    for (const [i, count] of seen.entries()) expect(count).toBeLessThanOrEqual((whole[i] as number) / 2);
  });

  it.each(['original', 'compact'] as const)('prunes to one token of each plane, %s positions', async (positions) => {
    const watched = watch({ ...model, stopIds: [] });
    const method = uniform({ prefillSparsity: 0.99, positions });
    using session = createSession(watched.model, { method, kv: 'f32' });
    const answer = session.ask('What?', { images: [image(0)], maxTokens: 2 });
    await answer.text();
    expect(answer.stats?.tokens).toMatchObject({ visualKept: 1 });
    const placed = watched.calls.flatMap((call) => call.positions);
    const at = placed.findIndex((position) => typeof position !== 'number');
    const [token] = answer.stats?.media[0]?.kept ?? [];
    const [, h = 0, w = 0] = expected.ids('image0.grid').map((side) => side / 2);
    const begin = Number(placed[at - 1]) + 1;
    const own = [0, Math.floor((token ?? 0) / w), (token ?? 0) % w];
    expect(triple(placed[at] ?? 0)).toEqual(own.map((p) => begin + (positions === 'compact' ? 0 : p)));
    expect(placed[at + 1]).toBe(begin + (positions === 'compact' ? 1 : Math.max(h, w)));
  });

  it('a prompt in two pieces equals the whole at every split, and a batch its parts', async () => {
    const request = { images: [image(0)], videos: [film], question: 'What?', kv: 'f32', maxTokens: 1 } as const;
    const { hidden, positions, added } = await recordTurn(model, request);
    const { decoder } = model;
    const [x = new Float32Array(), d, t] = [hidden[0], decoder.config.hiddenSize, positions.length];
    const rowsOf = (values: Float32Array, pieces: readonly Piece[]): Tensor => {
      const rows = joined(pieces.map(([from, to]) => values.slice(from * d, to * d)));
      return float32(rows, [rows.length / d, d]);
    };
    /** Logits of all rows of pieces run in one call, each behind what its cache holds. */
    const logitsOf = async (pieces: readonly Piece[], caches: readonly KvCache[]): Promise<Float32Array> => {
      const input = rowsOf(x, pieces);
      const batch = pieces.map((piece, i) => ({
        cache: caches[i] as KvCache,
        positions: positions.slice(...piece),
        added: added.map((rows) => rowsOf(rows, [piece])),
      }));
      const y = await decoder.forward(input, batch, { pace: pause });
      const logits = decoder.logits(y, true).slice();
      for (const tensor of [input, y, ...batch.flatMap((one) => one.added)]) tensor.dispose();
      return logits;
    };
    const cacheOf = (): KvCache => decoder.cache('f32', t);
    const split = async (at: number): Promise<Float32Array> => {
      const cache = cacheOf();
      const first = await logitsOf([[0, at]], [cache]);
      const rest = at < t ? await logitsOf([[at, t]], [cache]) : new Float32Array();
      cache.dispose();
      return joined([first, rest]);
    };
    const whole = await split(t);
    const differing: string[] = [];
    for (let at = 1; at < t; at++) {
      const compared = compareBits([await split(at)], [whole]);
      if (compared !== 'identical') differing.push(`split at ${at}: ${compared}`);
    }
    expect(differing).toEqual([]);
    const parts = [
      [0, t],
      [3, 40],
      [t - 9, t],
    ] as const;
    const caches = [...parts, ...parts].map(cacheOf);
    const together = await logitsOf(parts, caches);
    const alone: Float32Array[] = [];
    for (const [i, part] of parts.entries()) alone.push(await logitsOf([part], caches.slice(parts.length + i)));
    expect(compareBits([together], [joined(alone)])).toBe('identical');
    for (const cache of caches) cache.dispose();
  });
});
