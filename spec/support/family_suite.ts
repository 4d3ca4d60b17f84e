// The suite of all families, against transformers: canvases, tower, salience, rows for the decoder, prompts, logits and greedy ids; every
// sparsity method; keeping everything; pruning to one token. Fixtures: scripts/fixtures/families.py; its README names the tensors.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { convert, dense, load, METHODS, type Model, quantize, type SparsityMethod, uniform } from '../../src';
import { readJson } from '../../src/json';
import { type MediaInput, type PreparedMedium, tokensOf } from '../../src/models/media';
import type { VisionLanguageModel } from '../../src/models/model';
import { whyNoReuse } from '../../src/models/tower_reuse';
import { createSession } from '../../src/session/session';
import { TOLERANCES } from '../../testing/ops/tolerance';
import { FIXTURES } from './assets';
import { withCopy } from './checkpoint';
import { drawn, pause, pixelsOf, prepared } from './media';
import { compareBits, F32_NMSE, largestDifference, nmse, PIXELS_ABSOLUTE } from './nmse';
import { readExpected } from './tensors';
import { runTower } from './tower';
import { argmax, joined, recordTurn } from './turn';
import { watch } from './watch';

interface Facts {
  readonly turns: readonly { readonly question: string; readonly images: number }[];
  readonly pair: readonly { readonly question: string }[];
  readonly film?: readonly { readonly question: string; readonly frames: number }[];
  /** Widths and heights of the pictures whose canvases are stored. */
  readonly sizes: readonly (readonly [width: number, height: number])[];
  /** Widths, heights and the numbers of rows that transformers' processor reserves. */
  readonly counts: readonly (readonly [width: number, height: number, rows: number])[];
}

const NEW_TOKENS = 8;
const UNSUPPORTED = { code: 'ERR_METHOD_UNSUPPORTED' };
/** A few layers of products on 4-bit weights, each within the tolerance of one. */
const PACKED_NMSE = 10 * TOLERANCES.int4Exact;

/** The pictures of the fixture scripts: red 3x + 5y, green xy, blue 7x + y, all modulo 256. */
export function formula(width: number, height: number) {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++, at += 3) data.set([3 * x + 5 * y, x * y, 7 * x + y], at);
  return { data, width, height, channels: 3 as const };
}

/** Runs the suite on `spec/fixtures/<name>`. */
export function familySuite(name: string): void {
  describe(name, () => {
    const folder = join(FIXTURES, name);
    const facts = readJson(join(folder, 'expected.json')) as unknown as Facts;
    const expected = readExpected(join(folder, 'expected.safetensors'));
    const file = (stem: string, i: number): string => join(folder, `${stem}${i}.png`);
    const frames = Array.from({ length: facts.film?.[0]?.frames ?? 0 }, (_, i) => file('frame', i));
    const film: MediaInput = { kind: 'video', video: { frames } };
    let model: Model;
    beforeAll(async () => {
      model = await load(folder);
    });
    afterAll(() => model.dispose());

    it.each(facts.sizes)('a picture of %i x %i is drawn as by Pillow', async (width, height) => {
      const { canvases } = await prepared(model, formula(width, height));
      expect(compareBytes(bytesOf(canvases), expected.u8(`canvases.${width}x${height}`))).toBe('identical');
    });

    it('a picture takes as many rows as transformers reserves', () => {
      const rows = facts.counts.map(([width, height]) => {
        const layout = model.plan.layout({ kind: 'image', width, height, frames: 1 }, { media: 1 });
        const tags = model.tokenizer.encode(layout.text.replaceAll('\uFFFC', '')).length;
        return layout.runs.reduce((sum, { from, to, newlines = 0 }) => sum + to - from + newlines, tags);
      });
      expect(rows).toEqual(facts.counts.map(([, , count]) => count));
    });

    it.each([0, 1])('pixels, tower, salience and rows of picture %i', async (i) => {
      await stages(await prepared(model, file('image', i)), (stage) => `${stage}.${i}`);
    });
    const itOfVideos = facts.film === undefined ? (): void => undefined : it;
    itOfVideos('pixels, tower, salience and rows of a video', async () => {
      const [medium] = await drawn(model, [film]);
      await stages(medium as PreparedMedium, (stage) => `film.${stage}`);
    });

    async function stages(medium: PreparedMedium, tensor: (stage: string) => string): Promise<void> {
      const of = (stage: string): Float32Array => expected.f32(tensor(stage));
      expect(largestDifference(pixelsOf(model, medium), of('pixel_values'))).toBeLessThanOrEqual(PIXELS_ABSOLUTE);
      const tower = await runTower(folder, medium);
      expect(nmse(patchRows(model, medium, tower.features.dataSync()), of('tower'))).toBeLessThanOrEqual(F32_NMSE);
      tower.features.dispose();
      const seen = await model.encode(medium, { salience: [-1], keys: [0], pace: pause });
      expect(nmse(seen.salience[0] ?? [], of('salience'))).toBeLessThanOrEqual(F32_NMSE);
      const rows = model.project(seen.features, seen.layout);
      const all = withNewlines(model, medium, rows.dataSync<'float32'>());
      expect(nmse(all, of('projected'))).toBeLessThanOrEqual(F32_NMSE);
      for (const one of [rows, seen]) one.dispose();
    }

    it('answers three turns about two pictures with the tokens of transformers', async () => {
      const watched = watch({ ...model, stopIds: [] });
      using session = createSession(watched.model, { kv: 'f32' });
      const lengths: number[] = [];
      for (const [turn, { question, images }] of facts.turns.entries()) {
        watched.clear();
        const given = Array.from({ length: images }, () => file('image', turn));
        const answer = session.ask(question, { images: given, maxTokens: NEW_TOKENS, temperature: 0 });
        await answer.text();
        expect(watched.logits.map(argmax)).toEqual(expected.ids(`${turn}.greedy`));
        const tail = expected.f32(`${turn}.logits_tail`).subarray(-model.decoder.config.vocabSize);
        expect(nmse(watched.logits[0] ?? [], tail)).toBeLessThanOrEqual(F32_NMSE);
        lengths.push(watched.calls[0]?.length ?? Number.NaN);
      }
      // The cache keeps the rows that the rendered conversation has in common with the turn before, whose last token was not run; none where
      // all rows of a prompt attend to each other.
      const keepsNone = model.decoder.config.bidirectional === 'prompt';
      const kept = facts.turns.map((_, turn) => {
        if (turn === 0 || keepsNone) return 0;
        const before = [...expected.ids(`${turn - 1}.input_ids`), ...expected.ids(`${turn - 1}.greedy`).slice(0, -1)];
        return expected.ids(`${turn}.input_ids`).findIndex((id, row) => id !== before[row]);
      });
      expect(lengths).toEqual(kept);
    });

    it('answers about two pictures in one turn', () =>
      oneTurn('pair', { images: [file('pair', 0), file('pair', 1)] }, facts.pair[0]?.question ?? ''));
    itOfVideos('answers about a video', () =>
      oneTurn('film', { images: [], videos: [{ frames }] }, facts.film?.[0]?.question ?? ''),
    );

    async function oneTurn(
      prefix: string,
      media: { images: string[]; videos?: { frames: string[] }[] },
      question: string,
    ): Promise<void> {
      const turn = await recordTurn(model, { ...media, question, kv: 'f32', maxTokens: NEW_TOKENS });
      expect(turn.positions).toHaveLength(expected.ids(`${prefix}.0.input_ids`).length);
      const tail = expected.f32(`${prefix}.0.logits_tail`);
      expect(nmse(turn.promptLogits.subarray(-tail.length), tail)).toBeLessThanOrEqual(F32_NMSE);
      expect(turn.greedy).toEqual(expected.ids(`${prefix}.0.greedy`));
    }

    const both = { images: [file('image', 0), file('image', 1)], question: 'What?', kv: 'bf16', maxTokens: 6 } as const;
    it('equals dense attention bit for bit if everything is kept', async () => {
      const [all, none] = [await recordTurn(model, both), await recordTurn(model, { ...both, method: dense() })];
      expect(compareBits([all.promptLogits], [none.promptLogits])).toBe('identical');
      expect(all.text).toBe(none.text);
    });

    it('prunes each grid to one token, and keeps all newlines', async () => {
      const pruned = await recordTurn(model, { ...both, method: uniform({ prefillSparsity: 0.9999 }) });
      const { media, tokens } = pruned.stats;
      expect(tokens.visualKept).toBe(media.reduce((sum, { layout }) => sum + layout.grids.length, 0));
      const all = await recordTurn(model, both);
      expect(all.positions.length - pruned.positions.length).toBe(tokens.visualSeen - tokens.visualKept);
    });

    it.each(METHODS.map((entry) => [entry.name, entry] as const))(
      'runs %s, pictures and videos alike',
      async (_, entry) => {
        const ask = async (method: SparsityMethod, images: string[], videos: { frames: string[] }[] = []) => {
          using chat = model.session({ method });
          const answer = chat.ask('What?', { images, videos, maxTokens: 3 });
          await answer.text();
          return answer.stats;
        };
        const half = () => entry.create({ prefillSparsity: 0.5, decodeSparsity: 0.5 });
        // Tokens that are pooled behind the projector cannot be left out before the tower.
        const isRefused = async (media: MediaInput[]): Promise<boolean> =>
          (half().reuse !== undefined && media.includes(film) && whyNoReuse(model.plan.tower) !== undefined) ||
          (half().encode !== undefined && (await model.prepare(media)).some(({ layout }) => layout.pool !== undefined));
        if (await isRefused([{ kind: 'image', image: file('image', 0) }]))
          return expect(ask(half(), [file('image', 0)])).rejects.toMatchObject(UNSUPPORTED);
        const seen = await ask(half(), [file('image', 0)]);
        expect(seen?.tokens.visualSeen).toBe(seen?.media.reduce((sum, { layout }) => sum + tokensOf(layout), 0));
        if (facts.film === undefined) return;
        if (await isRefused([film])) await expect(ask(half(), [], [{ frames }])).rejects.toMatchObject(UNSUPPORTED);
        else expect((await ask(half(), [], [{ frames }]))?.tokens.visualKept).toBeGreaterThan(0);
      },
    );

    const text = readJson(join(folder, 'config.json')).text_config as Readonly<Record<string, number>>;
    // Whole groups of 32 fit the decoder of one case of each family.
    const isWhole = ['hidden_size', 'intermediate_size'].every((key) => Number(text[key]) % 32 === 0);
    const itInGroups = isWhole ? it : (): void => undefined;
    itInGroups('its decoder in 4 bits loads, and answers like its own weights', () =>
      withCopy(folder, async (copy) => {
        const at = (stem: string): string => join(copy, stem);
        const turns = [{ question: 'a b c', answer: 'd e' }];
        writeFileSync(at('set.jsonl'), JSON.stringify({ image: file('image', 0), turns }));
        const settings = { calibration: at('set.jsonl'), groupSize: 32, rows: 200 } as const;
        await quantize({ model: folder, out: at('packed'), format: 'autoawq', modules: ['decoder'], ...settings });
        await convert({ model: at('packed'), out: at('plain'), format: 'float', dtype: 'f32' });
        const logits = async (path: string): Promise<Float32Array> => {
          using loaded = await load(path);
          return (await recordTurn(loaded, { ...both, kv: 'f32' })).promptLogits;
        };
        const [packed, plain, float] = [await logits(at('packed')), await logits(at('plain')), await logits(folder)];
        expect(nmse(packed, plain)).toBeLessThanOrEqual(PACKED_NMSE);
        expect(nmse(packed, float)).toBeGreaterThan(1e-6);
        expect(nmse(packed, float)).toBeLessThan(0.3);
      }),
    );
  });
}

function compareBytes(a: Uint8Array, b: Uint8Array): string {
  if (a.length !== b.length) return `${a.length} bytes against ${b.length}`;
  const at = a.findIndex((byte, i) => byte !== b[i]);
  return at < 0 ? 'identical' : `byte ${at} of ${a.length}: ${a[at]} against ${b[at]}`;
}

/** The bytes of canvases, one channel after another, as processors store them. */
function bytesOf(canvases: PreparedMedium['canvases']): Uint8Array {
  const planes = canvases.flatMap(({ data }) => [0, 1, 2].map((channel) => data.filter((_, i) => i % 3 === channel)));
  return new Uint8Array(Buffer.concat(planes));
}

/** The rows of a tower's output without the class rows. */
function patchRows({ plan }: VisionLanguageModel, { layout }: PreparedMedium, rows: ArrayLike<number>): Float32Array {
  const { classToken, hiddenSize: e } = plan.tower;
  if (!classToken) return Float32Array.from(rows);
  const { segments } = layout.patches;
  const all = Float32Array.from(rows);
  return joined(
    Array.from({ length: segments.length - 1 }, (_, i) => {
      const [begin, end] = [segments[i] ?? 0, segments[i + 1] ?? 0];
      return all.subarray((begin + i + 1) * e, (end + i + 1) * e);
    }),
  );
}

/** Rows of tokens with the learned newline rows between them. */
function withNewlines(
  { plan, newline }: VisionLanguageModel,
  { layout }: PreparedMedium,
  rows: Float32Array,
): Float32Array {
  const d = plan.decoder.hiddenSize;
  return joined(
    layout.runs.flatMap(({ from, to, newlines = 0 }) => [
      rows.subarray(from * d, to * d),
      ...Array.from({ length: newlines }, () => newline?.dataSync<'float32'>()),
    ]),
  );
}
