// STC-Cacher: which rows it selects, what a block makes of them, and films in sessions.

import { join } from 'node:path';
import { dense, load, type ReuseView, type SparsityMethod, sparseVila, stcCacher } from '../../src';
import type { PreparedMedium } from '../../src/models/media';
import type { TowerTaps } from '../../src/models/tower';
import type { ReuseRule } from '../../src/models/tower_reuse';
import { floats } from '../../src/ops/run';
import { createSession } from '../../src/session/session';
import { uniform } from '../../src/text/random';
import { errorOf } from '../image/fixtures';
import { FIXTURES, vilaCase } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { drawn } from '../support/media';
import { compareBits, nmse } from '../support/nmse';
import { runTower } from '../support/tower';
import { watch } from '../support/watch';

const FOLDER = vilaCase('linear');

const viewOf = (keys: readonly number[], reference: readonly number[], width: number): ReuseView => ({
  ...{ layer: 0, layers: 1, rows: keys.length / width },
  keys: { data: Float32Array.from(keys), width },
  reference: { data: Float32Array.from(reference), width },
});
const selected = (view: ReuseView, options = {}): number[] =>
  Array.from(stcCacher(options).reuse?.select(view) ?? [Number.NaN]);

describe('the rule', () => {
  // Cosines: 1, 0.6, -1, 0 (a key of zeros), whatever the lengths of the keys.
  const view = viewOf([2, 0, 3, 4, 0, -5, 0, 0], [1, 0, 7, 0, 0, 1, 1, 1], 2);

  it('selects the share of the rows whose keys have turned most, ascending', () => {
    expect(selected(view)).toEqual([2]);
    expect(selected(view, { computed: 0.5 })).toEqual([2, 3]);
    expect(selected(view, { computed: 0.51 })).toEqual([1, 2, 3]);
    expect(selected(view, { computed: 0 })).toEqual([]);
    expect(selected(view, { computed: 1 })).toEqual([0, 1, 2, 3]);
  });

  it('takes the first of rows that have changed equally', () => {
    expect(selected(viewOf([1, 1, 1, 1, 1], [1, 1, 1, 1, 1], 1), { computed: 0.4 })).toEqual([0, 1]);
  });

  it.each([{ every: 0 }, { every: 1.5 }, { computed: -0.1 }, { computed: 1.1 }, { computed: Number.NaN }])(
    'refuses %j',
    (options) => {
      expect(() => stcCacher(options)).toThrow(expect.objectContaining({ code: 'ERR_OPTION_INVALID' }));
    },
  );
});

/** Frames of noise, each with the pixels of the frame before it but for some rows of the picture. */
function frames(count: number, share = 0.3) {
  const random = uniform(5);
  const [width, height] = [28, 28];
  let data = Uint8Array.from({ length: width * height * 3 }, () => random() * 256);
  return Array.from({ length: count }, (_, i) => {
    if (i > 0) data = data.map((value, at) => (at < share * data.length ? random() * 256 : value));
    return { data, width, height, channels: 3 as const };
  });
}

async function mediumOf(count: number, share?: number): Promise<PreparedMedium> {
  using model = await load(FOLDER);
  const [medium] = await drawn(model, [{ kind: 'video', video: { frames: frames(count, share) } }]);
  return medium as PreparedMedium;
}

/** Rows of each frame, and what the tower gives for it. */
async function through(medium: PreparedMedium, reuse?: ReuseRule, { layers = 0, taps = {} as TowerTaps } = {}) {
  const change = layers === 0 ? {} : { layers, depth: layers };
  const seen = await runTower(FOLDER, medium, taps, change, reuse);
  const { segments } = medium.layout.patches;
  const width = seen.features.shape[1] as number;
  const all = floats(seen.features).slice();
  seen.features.dispose();
  const features = Array.from({ length: segments.length - 1 }, (_, i) =>
    all.subarray((segments[i] as number) * width, (segments[i + 1] as number) * width),
  );
  return { features, width, salience: seen.salience, keys: seen.keys };
}

const every = (n: number): Int32Array => Int32Array.from({ length: n }, (_, i) => i);

describe('a tower that reuses frames', () => {
  const taps = { salience: [0, -1], keys: [-1] };

  it.each<[string, ReuseRule]>([
    ['where every frame is computed whole', { every: 1, select: () => new Int32Array() }],
    ['where all rows are computed', { every: 2, select: ({ rows }) => every(rows) }],
  ])('equals one that does not, bit for bit, %s', async (_, rule) => {
    const medium = await mediumOf(4);
    const [plain, reused] = [await through(medium, undefined, { taps }), await through(medium, rule, { taps })];
    expect(compareBits(reused.features, plain.features)).toBe('identical');
    expect(compareBits(reused.salience, plain.salience)).toBe('identical');
    expect(compareBits(reused.keys, plain.keys)).toBe('identical');
  });

  it('computes the selected rows as a block does, and adds to the others what the block has added in the last whole frame', async () => {
    const medium = await mediumOf(5);
    const chosen: number[][] = [];
    const rule: ReuseRule = {
      every: 3,
      select: ({ rows, width, keys, reference }) => {
        expect([keys.length, reference.length]).toEqual([rows * width, rows * width]);
        chosen.push(Array.from(every(rows)).filter((row) => row % 3 === chosen.length % 3));
        return Int32Array.from(chosen.at(-1) ?? []);
      },
    };
    const plain = await through(medium, undefined, { layers: 1 });
    const reused = await through(medium, rule, { layers: 1 });
    const embedded = await embeddings(medium);
    expect(plain.features).toHaveLength(5);
    for (const frame of [0, 3])
      expect(compareBits(reused.features.slice(frame, frame + 1), plain.features.slice(frame, frame + 1))).toBe(
        'identical',
      );
    for (const [i, frame] of [1, 2, 4].entries()) {
      const reference = frame < 3 ? 0 : 3;
      const { width } = plain;
      const rowsOf = (values: readonly Float32Array[], of: number, row: number): Float32Array =>
        (values[of] as Float32Array).subarray(row * width, (row + 1) * width);
      for (const row of every((plain.features[frame] as Float32Array).length / width)) {
        const own = rowsOf(reused.features, frame, row);
        if (chosen[i]?.includes(row)) {
          expect(compareBits([own], [rowsOf(plain.features, frame, row)])).toBe('identical');
          continue;
        }
        const [from, to] = [rowsOf(embedded, reference, row), rowsOf(plain.features, reference, row)];
        const expected = rowsOf(embedded, frame, row).map((x, at) => x + (to[at] as number) - (from[at] as number));
        expect(nmse(own, expected)).toBeLessThan(1e-12);
      }
    }
  });

  /** The rows before the first block. */
  async function embeddings(medium: PreparedMedium): Promise<Float32Array[]> {
    const seen = await runTower(FOLDER, medium, {}, { layers: 1, depth: 0 });
    const all = floats(seen.features).slice();
    seen.features.dispose();
    const count = medium.layout.patches.segments.length - 1;
    return Array.from({ length: count }, (_, i) =>
      all.subarray((i * all.length) / count, ((i + 1) * all.length) / count),
    );
  }

  it('gives the salience of all rows of a frame, and its keys', async () => {
    const medium = await mediumOf(2);
    const none: ReuseRule = { every: 2, select: () => new Int32Array() };
    const first = { salience: [0], keys: [0] };
    const [plain, reused] = [
      await through(medium, undefined, { taps: first }),
      await through(medium, none, { taps: first }),
    ];
    // The first block sees the same rows.
    expect(compareBits(reused.salience, plain.salience)).toBe('identical');
    expect(compareBits(reused.keys, plain.keys)).toBe('identical');
    expect(compareBits(reused.features, plain.features)).not.toBe('identical');
  });

  it('gives a frame that has not changed what its reference has, whatever is computed', async () => {
    const medium = await mediumOf(2, 0);
    const rule = stcCacher().reuse as NonNullable<SparsityMethod['reuse']>;
    const { features } = await through(medium, {
      every: rule.every,
      select: ({ width, keys, reference, ...of }) =>
        rule.select({ ...of, keys: { data: keys, width }, reference: { data: reference, width } }),
    });
    expect(nmse(features[1] as Float32Array, features[0] as Float32Array)).toBeLessThan(1e-10);
  });
});

describe('in a session', () => {
  async function ask(method: SparsityMethod, options: { imageCache?: number; folder?: string; images?: boolean } = {}) {
    using model = await load(options.folder ?? FOLDER, options.imageCache ? { imageCache: options.imageCache } : {});
    const said = [];
    for (let i = 0; i < (options.imageCache ? 2 : 1); i++) {
      const watched = watch(model);
      using chat = createSession(watched.model, { method });
      const media = options.images ? { images: frames(2) } : { videos: [{ frames: frames(4) }] };
      const answer = chat.ask('What?', { ...media, maxTokens: 2 });
      await answer.text();
      said.push({ logits: [...watched.logits], tokens: answer.stats?.tokens });
    }
    return said as [(typeof said)[number], ...(typeof said)[number][]];
  }

  it('all tokens stay; films differ from dense, pictures do not', async () => {
    const [[film], [plain]] = [await ask(stcCacher()), await ask(dense())];
    expect(film.tokens?.visualKept).toBe(plain.tokens?.visualKept);
    expect(compareBits(film.logits, plain.logits)).not.toBe('identical');
    const [[whole], [pictures], [same]] = [
      await ask(stcCacher({ computed: 1 })),
      await ask(stcCacher(), { images: true }),
      await ask(dense(), { images: true }),
    ];
    expect(compareBits(whole.logits, plain.logits)).toBe('identical');
    expect(compareBits(pictures.logits, same.logits)).toBe('identical');
  });

  it('goes with a method that prunes, and frees its memory', async () => {
    await withoutLeak(async () => {
      const both = { ...sparseVila({ prefillSparsity: 0.5 }), reuse: stcCacher().reuse } as SparsityMethod;
      const [{ tokens }] = await ask(both);
      expect(tokens?.visualKept).toBeLessThan(tokens?.visualSeen ?? 0);
    });
  });

  it('an image cache keeps nothing that depends on other frames', async () => {
    const [alone, again] = await ask(stcCacher(), { imageCache: 1e8 });
    expect(compareBits(alone.logits, again?.logits ?? [])).toBe('identical');
    expect(compareBits(alone.logits, (await ask(stcCacher()))[0].logits)).toBe('identical');
  });

  it('frees its memory when a method fails in the middle of a film', async () => {
    await withoutLeak(async () => {
      let calls = 0;
      const select = ({ rows }: ReuseView): Int32Array => (++calls > 2 ? Int32Array.of(rows) : new Int32Array());
      const error = await errorOf(() => ask({ name: 'wrong', reuse: { every: 2, select } }));
      expect([error.code, error.message]).toEqual([
        'ERR_SELECTION',
        expect.stringContaining('reuse of method "wrong"'),
      ]);
    });
  });

  it.each([
    ['qwen_vl/qwen2.5-vl', 'attends within windows'],
    ['qwen_vl/qwen2-vl', 'rotates its keys'],
    ['internvl/layer', 'has a class row'],
  ])('refuses films of %s, whose tower %s', async (name, reason) => {
    const folder = join(FIXTURES, name);
    const error = await errorOf(() => ask(stcCacher(), { folder }));
    expect([error.code, error.message]).toEqual(['ERR_METHOD_UNSUPPORTED', expect.stringContaining(reason)]);
  });

  it('refuses a method that selects before the tower as well', async () => {
    const both = { ...stcCacher(), encode: { select: () => [] } };
    expect((await errorOf(() => ask(both))).code).toBe('ERR_METHOD');
  });
});
