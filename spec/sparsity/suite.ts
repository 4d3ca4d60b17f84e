// Properties of every sparsity method, on numbers and in sessions of the packaged model.

import { budget, dense, type MethodEntry, type Model, type Selection, type SparsityMethod } from '../../src';
import type { KvType } from '../../src/ops/kv_cache';
import { pointOf } from '../../src/session/conversation';
import { createSession } from '../../src/session/session';
import { keptOf } from '../../src/sparsity/method_entry';
import { scene } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { compareBits } from '../support/nmse';
import { watch } from '../support/watch';
import { dropThrough, grids, indicesOf, pictureOf, type Shape, towers } from './views';

/** One grid, several, and several of one medium: tiles with their thumbnail, videos. */
const TURNS: readonly (readonly [string, readonly Shape[]])[] = [
  ...[[1], [2], [9], [16, 16], [100], [25, 49, 9], [100, 100, 100]].map((sizes): [string, Shape[]] => [
    `pictures of ${sizes} tokens`,
    sizes.map((tokens, i) => pictureOf(tokens, i)),
  ]),
  ['three tiles and a thumbnail', [36, 36, 36, 16].map((tokens) => pictureOf(tokens))],
  ['a film of four frames', [{ t: 4, h: 3, w: 5, medium: 0 }]],
  [
    'a video, a tiled picture and frames of one token',
    [
      { t: 3, h: 6, w: 6, medium: 0 },
      ...[16, 16, 9].map((tokens) => pictureOf(tokens, 1)),
      { t: 5, h: 1, w: 1, medium: 2 },
    ],
  ],
];
/** The tokens of one picture of the packaged model. */
const SCENE = { t: 1, h: 10, w: 10 };
const FILM: Shape = { t: 3, h: 6, w: 4, medium: 0 };
const EQUAL = [false, true];
const RATIOS = [
  { prefillSparsity: 0.6, decodeSparsity: 0.75 },
  { prefillSparsity: 0.35, decodeSparsity: 0.5 },
  { prefillSparsity: 0.9, decodeSparsity: 0.9 },
];
const HALF = { prefillSparsity: 0.5, decodeSparsity: 0.5 };
const KEEP_ALL = { prefillSparsity: 0, decodeSparsity: 0 };
const ONE_LEFT = { prefillSparsity: 0.9999, decodeSparsity: 0.9999 };

function expectSelection(selection: Selection, n: number): void {
  const values = Array.from(indicesOf(selection));
  expect(values).toEqual([...new Set(values)].sort((a, b) => a - b));
  for (const value of values) expect(value >= 0 && value < n).toBe(true);
  if (!(selection instanceof Int32Array)) {
    expect(selection.rows.length % Math.max(1, values.length)).toBe(0);
    expect(selection.rows.every(Number.isFinite)).toBe(true);
  }
}

const places = (rows: number) =>
  Array.from({ length: rows }, (_, i) => ({ medium: 0, grid: 0, t: 0, row: Math.floor(i / 10), col: i % 10 }));
const relevanceOf = (rows: number, seed: number): Float32Array =>
  towers([rows], seed)[0]?.salience() ?? new Float32Array();

/** All selections of a method on seeded numbers. */
function said(method: SparsityMethod) {
  return {
    pruned: method.prune?.select(towers([36, 64], 8)),
    dropped: dropThrough(method, 60, 32, 4).drops.map(({ selection }) => selection),
    retrieved: method.retrieve?.select(relevanceOf(64, 8), 1, places(64)),
  };
}

/** Properties of a method on numbers. */
export function methodSuite(entry: MethodEntry): void {
  describe(`${entry.name}: as every method`, () => {
    it('has the name and parts given in the table', () => {
      const method = entry.create(HALF);
      expect(method.name).toBe(entry.name);
      expect([method.prune !== undefined || method.drop !== undefined, method.retrieve !== undefined]).toEqual([
        entry.uses.prefill,
        entry.uses.decode,
      ]);
      const isFinal =
        method.retrieve?.permanent === true || method.drop !== undefined || method.prune?.question === true;
      expect(isFinal && entry.queryAware).toBe(!entry.safeForLaterTurns);
    });

    const { prune, drop, retrieve } = entry.create(HALF);
    if (prune !== undefined) prunes(entry, drop !== undefined);
    if (drop !== undefined) drops(entry);
    if (retrieve !== undefined) retrieves(entry);

    if (entry.create(KEEP_ALL).encode === undefined)
      it('keeps everything unchanged at zero sparsity', () => {
        const method = entry.create(KEEP_ALL);
        const all = (n: number): Int32Array => Int32Array.from({ length: n }, (_, i) => i);
        const media = grids([pictureOf(49), FILM], 3);
        for (const [i, selection] of method.prune?.select(media).entries() ?? [])
          expect(selection).toEqual(all(media[i]?.tokens ?? 0));
        for (const { selection } of dropThrough(method, 49, 32, 3).drops) expect(selection).toEqual(all(49));
        for (const rows of [1, 49])
          expect(method.retrieve?.select(relevanceOf(rows, 3), 0, places(rows)) ?? all(rows)).toEqual(all(rows));
      });

    it('is deterministic, also in a new instance, and does not change its input', () => {
      const method = entry.create(HALF);
      const results = [said(method), said(method), said(entry.create(HALF))];
      expect(results[1]).toEqual(results[0]);
      expect(results[2]).toEqual(results[0]);
      const images = towers([36, 64], 8);
      method.prune?.select(images);
      const read = (views: typeof images) =>
        views.map((view) => [view.salience(), view.salience(1), view.keys(), view.features(), view.projected()]);
      expect(read(images)).toEqual(read(towers([36, 64], 8)));
    });

    it.each([{ prefillSparsity: 1 }, { decodeSparsity: -0.1 }, { prefillSparsity: Number.NaN }])(
      'refuses %j, even if it ignores that ratio',
      (wrong) => {
        const make = () => entry.create({ ...HALF, ...wrong });
        expect(make).toThrow(expect.objectContaining({ code: 'ERR_OPTION_INVALID' }));
      },
    );
  });
}

/** Properties of every `prune`; `isPart`: a drop provides the rest of the budget. */
function prunes(entry: MethodEntry, isPart: boolean): void {
  const select = (method: SparsityMethod, media: Parameters<typeof grids>): readonly Selection[] =>
    method.prune?.select(grids(...media)) ?? [];

  describe.each(TURNS)('prunes %s', (_, shapes) => {
    it.each(RATIOS)('at %j: ascending, unique, as budgeted in every plane', (ratios) => {
      for (const equal of EQUAL) {
        const selections = select(entry.create(ratios), [shapes, 5, equal]);
        expect(selections).toHaveLength(shapes.length);
        for (const [i, { t, h, w }] of shapes.entries()) {
          const selection = selections[i] as Selection;
          expectSelection(selection, t * h * w);
          const counts = Array.from({ length: t }, (_, plane) =>
            indicesOf(selection).reduce((n, token) => n + Number(Math.floor(token / (h * w)) === plane), 0),
          );
          if (isPart) expect(Math.min(...counts)).toBeGreaterThanOrEqual(1);
          else if (entry.keeps === undefined)
            expect(counts).toEqual(Array(t).fill(budget(h * w, ratios.prefillSparsity)));
          else expect(indicesOf(selection)).toHaveLength(entry.keeps({ t, h, w }, ratios.prefillSparsity));
        }
      }
    });
  });

  // One stream of random numbers serves all planes.
  if (entry.name.startsWith('random')) return;
  it('selects in a grid independently of other grids', () => {
    const shapes = TURNS.at(-1)?.[1] ?? [];
    const method = entry.create(HALF);
    const media = grids(shapes, 4);
    expect(method.prune?.select(media)).toEqual(media.map((grid) => method.prune?.select([grid])[0]));
  });

  // Frames of a film may share its budget.
  if (entry.keeps !== undefined) return;
  it('selects in a grid of several planes as in each plane alone, merged rows included', () => {
    const { t, h, w } = FILM;
    const [film] = grids([FILM], 9);
    if (film === undefined) throw new Error('no grid');
    const part = ({ data, width }: ReturnType<typeof film.keys>, i: number) => {
      const each = data.length / t;
      return { data: data.slice(i * each, (i + 1) * each), width };
    };
    const frames = Array.from({ length: t }, (_, i) => ({
      ...{ medium: 0, share: 1, tokens: h * w, grid: { t: 1, h, w } },
      salience: (of = 0) => part({ data: film.salience(of), width: 1 }, i).data,
      keys: () => part(film.keys(), i),
      features: () => part(film.features(), i),
      projected: () => part(film.projected(), i),
      question: () => film.question(),
    }));
    for (const ratios of RATIOS) {
      const { prune } = entry.create(ratios);
      const [whole] = prune?.select([film]) ?? [];
      const alone = frames.map((frame) => prune?.select([frame])[0]);
      expect(Array.from(indicesOf(whole))).toEqual(
        alone.flatMap((one, i) => Array.from(indicesOf(one), (token) => token + i * h * w)),
      );
      expect(rowsOf(whole)).toEqual(alone.flatMap(rowsOf));
    }
  });
}

const rowsOf = (selection: Selection | undefined): number[] =>
  selection === undefined || selection instanceof Int32Array ? [] : Array.from(selection.rows);

/** Properties of every `drop`. */
function drops(entry: MethodEntry): void {
  it.each([4, 32])('over %i layers keeps the budget in the mean, ascending, each once', (layers) => {
    for (const ratios of RATIOS)
      for (const equal of EQUAL) {
        const method = entry.create(ratios);
        const [image] = method.prune?.select(towers([100], 5, equal)) ?? [];
        const total = image === undefined ? 100 : indicesOf(image).length;
        const { drops, kept } = dropThrough(method, total, layers, 6, equal);
        expect(drops.length).toBeGreaterThan(0);
        for (const { view, selection } of drops) expectSelection(selection, view.scores.length);
        const mean = kept.reduce((a, b) => a + b) / layers;
        // Rows before the first stage are all there; rounding moves each stage by half a row.
        const least = (total * (drops[0]?.view.starts[0] ?? 0) + layers - (drops[0]?.view.starts[0] ?? 0)) / layers;
        expect(Math.abs(mean - Math.max(least, 100 * (1 - ratios.prefillSparsity)))).toBeLessThanOrEqual(1);
      }
  });
}

/** Properties of every `retrieve`. */
function retrieves(entry: MethodEntry): void {
  it.each([1, 2, 10, 40, 100])(
    'retrieves of %i rows ascending, unique ones, as many as budgeted, in every layer',
    (rows) => {
      for (const ratios of RATIOS) {
        const method = entry.create(ratios);
        for (const scores of [relevanceOf(rows, rows), new Float32Array(rows)])
          for (const layer of [0, 3]) {
            const selection = method.retrieve?.select(scores, layer, places(rows)) ?? new Int32Array();
            expectSelection(selection, rows);
            const sparsity = layer < (entry.denseLayers ?? 0) ? 0 : ratios.decodeSparsity;
            expect(selection).toHaveLength(budget(rows, sparsity));
          }
      }
    },
  );
}

interface Turn {
  readonly question: string;
  readonly images?: readonly number[];
}
const LOOK: Turn = { question: 'What is at b4?', images: [0] };
const WHERE: Turn = { question: 'Where is the A?' };
const COUNT: Turn = { question: 'How many cyan objects are there?' };

/** Properties of every method in sessions of a model. */
export function sessionSuite(entry: MethodEntry, model: () => Model): void {
  /** A session's turns, each with its text, statistics, logits and relevance. */
  function open(method: SparsityMethod, options: { kv?: KvType; history?: 'keep' | 'forget' } = {}) {
    const watched = watch(model());
    const chat = createSession(watched.model, { method, ...options });
    const ask = async ({ question, images = [] }: Turn) => {
      watched.clear();
      const answer = chat.ask(question, { images: images.map(scene), maxTokens: 12 });
      const text = await answer.text();
      if (answer.stats === undefined) throw new Error('a complete answer without stats');
      const { tokens, retrieved } = answer.stats;
      return { text, tokens, retrieved, logits: [...watched.logits] };
    };
    return { chat, ask, rows: () => watched.cacheRows(chat.length) };
  }
  type Said = Awaited<ReturnType<ReturnType<typeof open>['ask']>>;
  function expectSame(a: Said, b: Said): void {
    expect([a.text, a.retrieved]).toEqual([b.text, b.retrieved]);
    expect(compareBits(a.logits, b.logits)).toBe('identical');
  }

  describe(`${entry.name}: in a session, as every method`, () => {
    // What a method that selects by pixels keeps depends on the picture; its own specs have one of which it keeps everything.
    const kinds = entry.create(KEEP_ALL).encode === undefined ? (['bf16', 'f32'] as const) : [];
    if (kinds.length > 0)
      it.each(kinds)('keeping everything equals dense bit for bit, %s', async (kv) => {
        const [kept, plain] = [open(entry.create(KEEP_ALL), { kv }), open(dense(), { kv })];
        for (const turn of [LOOK, WHERE, { ...COUNT, images: [1, 2] }, WHERE]) {
          const [a, b] = [await kept.ask(turn), await plain.ask(turn)];
          expect(a.text).toBe(b.text);
          expect(compareBits(a.logits, b.logits)).toBe('identical');
        }
        expect(compareBits(kept.rows(), plain.rows())).toBe('identical');
        kept.chat.dispose();
        plain.chat.dispose();
      });

    // Without scores all frames are equal, for every question.
    const isSafe = entry.safeForLaterTurns || entry.frameScores === true;
    it(`a turn ${isSafe ? 'leaves all' : 'takes from what there is'} for the next`, async () => {
      const ratios = { prefillSparsity: 0.6, decodeSparsity: 0.75 };
      const [both, alone] = [0, 1].map(() => open(entry.create(ratios), { history: 'forget' })) as [
        ReturnType<typeof open>,
        ReturnType<typeof open>,
      ];
      const first = await both.ask(LOOK);
      const second = await both.ask(WHERE);
      const lonely = await alone.ask({ ...WHERE, images: LOOK.images ?? [] });
      if (isSafe) expectSame(second, lonely);
      else {
        expect(compareBits(second.logits, lonely.logits)).not.toBe('identical');
        const { retrieve } = entry.create(ratios);
        expect(second.tokens.activePrefill).toBe(
          retrieve?.permanent ? first.tokens.activeDecode : first.tokens.activePrefill,
        );
        if (retrieve?.permanent || !retrieve) expect(second.retrieved).toEqual(first.retrieved);
      }
      both.chat.dispose();
      alone.chat.dispose();
    });

    it('with several images, and with one token left, has the reported number of rows', async () => {
      const { chat, ask } = open(entry.create(ONE_LEFT));
      const turns = [await ask({ ...LOOK, images: [0, 1] }), await ask(WHERE), await ask({ ...COUNT, images: [2] })];
      for (const { tokens, retrieved } of turns) {
        const counts = retrieved?.map(({ length }) => length) ?? [tokens.visualKept];
        expect(tokens.activeDecode).toBeCloseTo(counts.reduce((a, b) => a + b) / counts.length, 9);
        for (const count of counts) expect(count).toBeGreaterThanOrEqual(1);
        expect(tokens.activePrefill).toBeLessThanOrEqual(tokens.visualKept);
      }
      // Of each image the budget stays, which is one token where pictures are pruned, if `prune` alone decides.
      const { prune, drop } = entry.create(HALF);
      const own = keptOf(entry, SCENE, ONE_LEFT.prefillSparsity);
      if (prune && !drop && entry.uses.prefill)
        expect(turns.map(({ tokens }) => tokens.visualKept)).toEqual([2 * own, 2 * own, 3 * own]);
      chat.dispose();
    });

    it('has original positions, or positions without gaps, as configured', async () => {
      if (!entry.stage.includes('tower')) return expect(entry.create(HALF).positions).toBeUndefined();
      for (const positions of ['original', 'compact'] as const) {
        const { chat, ask } = open(entry.create({ ...HALF, positions }));
        const { tokens, logits } = await ask({ ...LOOK, images: [0, 1] });
        const steps = logits.length - 1;
        const gaps = positions === 'compact' ? 0 : tokens.visualSeen - tokens.visualKept;
        expect(pointOf(chat.mark()).nextPosition - tokens.prompt - steps).toBe(gaps);
        // The scenes have no equal cells for a method that selects by pixels.
        const isFewer = keptOf(entry, SCENE, HALF.prefillSparsity) < SCENE.h * SCENE.w;
        if (isFewer && entry.create(HALF).encode === undefined)
          expect(tokens.visualKept).toBeLessThan(tokens.visualSeen);
        chat.dispose();
      }
    });

    it('asking again after a rewind gives the same answer and cache', async () => {
      const { chat, ask, rows } = open(entry.create({ prefillSparsity: 0.6, decodeSparsity: 0.75 }));
      const start = chat.mark();
      const first = await ask(LOOK);
      const point = chat.mark();
      const second = await ask({ ...COUNT, images: [1] });
      const end = chat.mark();
      const cache = rows();
      await ask({ ...WHERE, images: [2] });
      chat.rewind(point);
      expectSame(await ask({ ...COUNT, images: [1] }), second);
      expect(pointOf(chat.mark())).toEqual({ ...pointOf(end), state: pointOf(chat.mark()).state });
      for (const [i, { length }] of pointOf(end).layers.entries())
        expect(compareBits(upTo(rows()[i], length), upTo(cache[i], length))).toBe('identical');
      chat.rewind(start);
      expectSame(await ask(LOOK), first);
      chat.dispose();
    });

    it('frees all its memory', async () => {
      await withoutLeak(async () => {
        const { chat, ask } = open(entry.create(HALF), { history: 'forget' });
        await ask({ ...LOOK, images: [0, 1] });
        await ask(WHERE);
        chat.dispose();
      });
    });
  });

  /** The first rows of f32 [2 g, rows, c]. */
  function upTo(values: Float32Array | undefined, length: number): Float32Array[] {
    const { kvHeads, headDim } = model().decoder.config;
    const stride = (values?.length ?? 0) / (2 * kvHeads);
    return Array.from(
      { length: 2 * kvHeads },
      (_, i) => values?.slice(i * stride, i * stride + length * headDim) ?? new Float32Array(),
    );
  }
}
