// Rows that are removed from the cache: dropping between layers compared with masked attention, the attention that methods see, permanent retrieval,
// and refusals.

import { compose, type Drop, dense, fastV, load, type Model, type SparsityMethod, sparseVila } from '../../src';
import { float32, int32 } from '../../src/ops/run';
import { pointOf } from '../../src/session/conversation';
import { createSession } from '../../src/session/session';
import { errorOf } from '../image/fixtures';
import { scene, TINY } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { compareBits, F32_NMSE, nmse } from '../support/nmse';
import { joined } from '../support/turn';
import { watch } from '../support/watch';

const pace = async (): Promise<void> => undefined;
const QUESTION = 'What is at b4?';
/** More rows than one chunk of a prefill. */
const LONG = 'Where is the red A? '.repeat(100);

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

/** Every `step`-th of n. */
const every = (n: number, step: number): Int32Array =>
  Int32Array.from({ length: Math.ceil(n / step) }, (_, i) => i * step);

async function turn(method: SparsityMethod, question = QUESTION, images: readonly number[] = [0]) {
  const watched = watch(model);
  using chat = createSession(watched.model, { method, kv: 'f32' });
  const answer = chat.ask(question, { images: images.map(scene), maxTokens: 4 });
  const text = await answer.text();
  const { layers } = pointOf(chat.mark());
  return {
    text,
    stats: answer.stats,
    logits: [...watched.logits],
    layers,
    rows: watched.cacheRows(chat.length),
    watched,
  };
}

/** The prompt's last logits, row by row with no row left out of the cache, but those in `gone[layer]` never attended. */
async function masked(question: string, gone: readonly ReadonlySet<number>[]): Promise<Float32Array> {
  const watched = watch(model, { hidden: true });
  using chat = createSession(watched.model, { kv: 'f32' });
  await chat.ask(question, { images: [scene(0)], maxTokens: 1 }).text();
  const positions = watched.calls.flatMap((call) => call.positions);
  const entering = joined(watched.calls.map(({ hidden }) => hidden[0]));
  const { decoder } = model;
  const d = decoder.config.hiddenSize;
  const cache = decoder.cache('f32', positions.length);
  let logits = new Float32Array();
  for (const [i, position] of positions.entries()) {
    const x = float32(entering.slice(i * d, (i + 1) * d), [1, d]);
    const views = gone.map((rows) => ({
      rows: int32(Array.from({ length: i }, (_, row) => row).filter((row) => !rows.has(row))),
      tail: i,
    }));
    const y = await decoder.forward(x, [{ cache, positions: [position], views }], { pace });
    if (i === positions.length - 1) logits = decoder.logits(y).slice();
    for (const tensor of [x, y, ...views.map(({ rows }) => rows)]) tensor.dispose();
  }
  cache.dispose();
  return logits;
}

/** Rows of the image's tokens that are not among `kept`. */
const without = (kept: ReadonlySet<number>): Set<number> =>
  new Set(
    Array.from({ length: 100 }, (_, i) => i)
      .filter((i) => !kept.has(i))
      .map((i) => i + 3),
  );

describe('visual rows that are dropped between layers', () => {
  it.each([
    ['a short question', QUESTION],
    ['a question of several chunks', LONG],
  ])('do not exist for later layers, bit for bit: %s', async (_, question) => {
    const select: Drop['select'] = ({ stage, scores }) => every(scores.length, stage === 0 ? 3 : 2);
    const dropped = await turn({ name: 'thirds', drop: { layers: [1, 3], select } }, question);
    const third = new Set(every(100, 3));
    const sixth = new Set(every(100, 6));
    const expected = await masked(question, [new Set(), without(third), without(third), without(sixth)]);
    expect(compareBits(dropped.logits.slice(0, 1), [expected])).toBe('identical');
    expect(dropped.layers.map(({ visual }) => visual)).toEqual([100, 34, 34, 17]);
    expect(dropped.stats?.retrieved?.map(({ length }) => length)).toEqual([100, 34, 34, 17]);
    expect(Array.from(dropped.stats?.retrieved?.[3] ?? [])).toEqual([...sixth]);
    expect(dropped.stats?.tokens).toMatchObject({ visualKept: 100, activePrefill: 46.25, activeDecode: 46.25 });
  });

  it('are lost for later turns, which drop only rows of their own images', async () => {
    const method: SparsityMethod = {
      name: 'tenth',
      drop: { layers: [2], select: ({ scores }) => every(scores.length, 10) },
    };
    using chat = createSession(model, { method });
    const counts: number[][] = [];
    for (const images of [[0], [], [1, 2], []]) {
      const answer = chat.ask(QUESTION, { images: images.map(scene), maxTokens: 2 });
      await answer.text();
      counts.push(answer.stats?.retrieved?.map(({ length }) => length) ?? []);
    }
    expect(counts).toEqual([
      [100, 100, 10, 10],
      [100, 100, 10, 10],
      [300, 300, 30, 30],
      [300, 300, 30, 30],
    ]);
  });

  it('leave the other rows for retrieval', async () => {
    const method = compose(fastV({ prefillSparsity: 0.5 }), sparseVila({ decodeSparsity: 0.5 }));
    const { stats } = await turn(method);
    // (100 + 3 * 33) / 4 is 49.75 of 100.
    expect(stats?.retrieved?.map(({ length }) => length)).toEqual([50, 16, 16, 16]);
    expect(stats?.tokens).toMatchObject({ activePrefill: 49.75, activeDecode: 24.5 });
  });

  it('merged rows replace the kept ones', async () => {
    const select = (rows?: (x: Float32Array) => Float32Array): SparsityMethod => ({
      name: 'merged',
      drop: {
        layers: [2],
        select: ({ hidden, scores }) => {
          const kept = every(scores.length, 4);
          const { data, width } = hidden();
          const own = Float32Array.from(
            { length: kept.length * width },
            (_, i) => data[4 * width * Math.floor(i / width) + (i % width)] ?? 0,
          );
          return rows === undefined ? kept : { kept, rows: rows(own) };
        },
      },
    });
    const plain = await turn(select());
    const same = await turn(select((x) => x));
    const zeros = await turn(select((x) => x.map(() => 0)));
    expect(compareBits(same.logits, plain.logits)).toBe('identical');
    expect(compareBits(zeros.logits, plain.logits)).not.toBe('identical');
  });
});

describe('the attention that `drop` sees', () => {
  /** Scores of the one stage before `layer`, and the relevance per layer that retrieve sees. */
  async function seen(
    layer: number,
    { window, ...more }: Partial<Drop> & { readonly window?: number } = {},
    question = QUESTION,
  ) {
    let scores = new Float32Array();
    const relevance: Float32Array[] = [];
    const keep = (n: number): Int32Array => every(n, 1);
    const method: SparsityMethod = {
      name: 'watching',
      drop: {
        layers: [layer],
        select: (view) => {
          scores = view.scores.slice();
          return keep(view.scores.length);
        },
        ...more,
      },
      retrieve: {
        ...(window !== undefined && { window }),
        select: (values) => {
          relevance.push(values.slice());
          return keep(values.length);
        },
      },
    };
    const { logits } = await turn(method, question);
    return { scores, relevance, logits };
  }

  it.each([QUESTION, LONG])(
    'is that of the last row in the layer that ran, or in the next one (%#)',
    async (question) => {
      const { logits: plain } = await turn(dense(), question);
      for (const layer of [1, 2]) {
        const next = await seen(layer, { scores: 'next', window: 1 }, question);
        const previous = await seen(layer + 1, { window: 1 }, question);
        expect(compareBits([next.scores], [previous.scores])).toBe('identical');
        // A window of one row is the last row too.
        expect(compareBits([previous.scores], [previous.relevance[layer] ?? new Float32Array()])).toBe('identical');
        for (const { logits } of [next, previous]) expect(compareBits(logits, plain)).toBe('identical');
      }
    },
  );

  it('is the mean over raters', async () => {
    const rows = [0, 1, 3, 6];
    const together = await seen(2, { raters: () => Int32Array.from(rows) });
    const singly = await Promise.all(
      rows.map(async (row) => (await seen(2, { raters: () => Int32Array.of(row) })).scores),
    );
    const mean = together.scores.map((_, i) => singly.reduce((sum, scores) => sum + (scores[i] ?? 0), 0) / rows.length);
    expect(nmse(together.scores, mean)).toBeLessThanOrEqual(F32_NMSE);
    expect(nmse(together.scores, singly[0] ?? [])).toBeGreaterThan(1e-3);
    // With all rows as raters the score is the relevance.
    const all = await seen(2, { raters: ({ data, width }) => every(data.length / width, 1) });
    expect(nmse(all.scores, all.relevance[1] ?? [])).toBeLessThanOrEqual(F32_NMSE);
    // Without raters the last row is used.
    const none = await seen(2, { raters: () => new Int32Array() });
    expect(compareBits([none.scores], [(await seen(2)).scores])).toBe('identical');
  });
});

describe('rows that a permanent retrieval leaves out', () => {
  const select = (relevance: Float32Array, layer: number) => every(relevance.length, 2 + layer);

  it('are not attended, and are removed from the cache', async () => {
    const [removing, viewing] = [
      await turn({ name: 'e', retrieve: { permanent: true, select } }),
      await turn({ name: 'v', retrieve: { select } }),
    ];
    expect(removing.text).toBe(viewing.text);
    expect(compareBits(removing.logits, viewing.logits)).toBe('identical');
    expect(removing.stats?.retrieved).toEqual(viewing.stats?.retrieved);
    expect(removing.layers.map(({ visual }) => visual)).toEqual([50, 34, 25, 20]);
    const { headDim: c, kvHeads } = model.decoder.config;
    for (const [i, { length }] of removing.layers.entries()) {
      const [whole, left] = [viewing.rows[i] ?? new Float32Array(), removing.rows[i] ?? new Float32Array()];
      const kept = new Set(every(100, 2 + i));
      const stays = Array.from({ length: whole.length / (2 * kvHeads * c) }, (_, row) => row).filter(
        (row) => row < 3 || row >= 103 || kept.has(row - 3),
      );
      expect(length).toBe(stays.length);
      for (let half = 0; half < 2 * kvHeads; half++) {
        const at = (values: Float32Array, row: number): Float32Array => {
          const begin = (half * (values.length / (2 * kvHeads * c)) + row) * c;
          return values.slice(begin, begin + c);
        };
        expect(
          compareBits(
            stays.map((_, row) => at(left, row)),
            stays.map((row) => at(whole, row)),
          ),
        ).toBe('identical');
      }
    }
  });

  it("are selected once, among the rows of a turn's new images", async () => {
    const asked: number[] = [];
    const method: SparsityMethod = {
      name: 'e',
      retrieve: {
        permanent: true,
        select: (relevance, layer, places) => {
          if (layer === 0) asked.push(relevance.length, ...new Set(places.map(({ medium }) => medium)));
          return every(relevance.length, 10);
        },
      },
    };
    using chat = createSession(model, { method, history: 'forget' });
    const kept: number[] = [];
    for (const images of [[0], [], [1, 2]]) {
      await chat.ask(QUESTION, { images: images.map(scene), maxTokens: 2 }).text();
      kept.push(pointOf(chat.mark()).layers[0]?.visual ?? -1);
    }
    expect(asked).toEqual([100, 0, 200, 1, 2]);
    expect(kept).toEqual([10, 10, 30]);
  });
});

describe('refused', () => {
  const width = 256;
  const none = () => new Int32Array();
  it.each<[string, string, Partial<SparsityMethod>]>([
    ['rows out of order', 'ERR_SELECTION', { drop: { layers: [1], select: () => Int32Array.of(3, 1) } }],
    ['a row that is not there', 'ERR_SELECTION', { drop: { layers: [1], select: () => Int32Array.of(100) } }],
    [
      'merged rows of another size',
      'ERR_SELECTION',
      { drop: { layers: [1], select: () => ({ kept: Int32Array.of(1), rows: new Float32Array(width - 1) }) } },
    ],
    [
      'a rater that is not there',
      'ERR_SELECTION',
      { drop: { layers: [1], select: none, raters: () => Int32Array.of(900) } },
    ],
    ['dropping before the first layer', 'ERR_OPTION_INVALID', { drop: { layers: [0], select: none } }],
    ['layers out of order', 'ERR_OPTION_INVALID', { drop: { layers: [2, 1], select: none } }],
    ['half a layer', 'ERR_METHOD', { drop: { layers: [1.5], select: none } }],
    [
      'a permanent retrieval of rows that are not there',
      'ERR_SELECTION',
      { retrieve: { permanent: true, select: () => Int32Array.of(100) } },
    ],
    [
      'merged features of another size',
      'ERR_SELECTION',
      { prune: { select: (all) => all.map(() => ({ kept: Int32Array.of(1), rows: new Float32Array(3) })) } },
    ],
    [
      'a tower layer that was not named',
      'ERR_METHOD',
      { prune: { select: (all) => all.map((image) => Int32Array.of(image.salience()[0] ?? 0)) } },
    ],
    [
      'a tower layer that is not there',
      'ERR_OPTION_INVALID',
      { prune: { taps: { keys: [9] }, select: (all) => all.map(none) } },
    ],
  ])('%s', async (_, code, method) => {
    const error = await withoutLeak(() =>
      errorOf(async () => {
        using chat = createSession(model, { method: { name: 'wrong', ...method } });
        try {
          await chat.ask(QUESTION, { images: [scene(0)] }).text();
        } finally {
          expect(chat.length).toBe(0);
        }
      }),
    );
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(/wrong|layer/)]);
  });

  it('nothing is dropped without images, and all rows may be dropped', async () => {
    const method: SparsityMethod = { name: 'none', drop: { layers: [1], select: () => new Int32Array() } };
    const { layers } = await turn(method);
    expect(layers.map(({ visual }) => visual)).toEqual([100, 0, 0, 0]);
    const [text, plain] = [await turn(method, QUESTION, []), await turn(dense(), QUESTION, [])];
    expect(compareBits(text.logits, plain.logits)).toBe('identical');
  });
});
