// Films are seen part by part and prefilled as they come: with the bits of a film that is encoded, pruned and prefilled as a whole.

import { join } from 'node:path';
import { load, METHODS, type Model, type RawPixels, type SparsityMethod } from '../../src';
import { partsOf } from '../../src/models/parts';
import { createSession } from '../../src/session/session';
import { dense } from '../../src/sparsity/dense';
import { FIXTURES } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { drawn, pause } from '../support/media';
import { compareBits } from '../support/nmse';
import { watch } from '../support/watch';

const random = (seed: number) => (i: number) => (Math.imul(i + seed, 2654435761) >>> 24) & 255;

/** Frames of noise, all of them different. */
function noise(count: number, width: number, height: number): RawPixels[] {
  return Array.from({ length: count }, (_, frame) => {
    const value = random(frame * 7919);
    return { data: Uint8Array.from({ length: 3 * width * height }, (__, i) => value(i)), width, height, channels: 3 };
  });
}

describe('the parts of a film', () => {
  it.each([
    ['nvila/film', 8],
    ['qwen_vl/qwen2-vl', 5],
    ['qwen_vl/qwen2.5-vl', 5],
    ['qwen_vl/qwen3-vl', 6],
    ['qwen_vl/qwen3.5', 6],
    ['internvl/layer', 3],
    ['llava_onevision/tied', 4],
    ['smolvlm/smolvlm', 3],
  ])('%s: the tower gives the tokens of parts the bits that they have in the whole', async (folder, frames) => {
    using model = await load(join(FIXTURES, folder));
    const [film] = await drawn(model, [{ kind: 'video', video: { frames: noise(frames, 60, 44) } }]);
    if (film === undefined) throw new Error('a medium');
    const taps = { salience: [-1], keys: [0], pace: pause };
    const whole = await model.encode(film, taps);
    const parts = [...partsOf(film.layout, model.plan.tower, 1)];
    expect(parts.length).toBeGreaterThan(1);
    const seen = new Uint8Array(whole.tokens);
    let canvases = 0;
    for (const { layout, tokens } of parts) {
      const own = film.canvases.slice(canvases, canvases + layout.canvases.length);
      canvases += own.length;
      const part = await model.encode({ layout, canvases: own, made: film.made }, taps);
      let at = 0;
      for (const { from, to } of tokens) {
        seen.fill(1, from, to);
        const pairs = [
          [part.features.dataSync<'float32'>(), whole.features.dataSync<'float32'>()],
          [part.salience[0], whole.salience[0]],
          [part.keys[0]?.data, whole.keys[0]?.data],
        ] as [Float32Array, Float32Array][];
        for (const [few, all] of pairs) {
          const [each, width] = [few.length / part.tokens, all.length / whole.tokens];
          expect(
            compareBits([few.slice(at * each, (at + to - from) * each)], [all.slice(from * width, to * width)]),
          ).toBe('identical');
        }
        at += to - from;
      }
      expect(at).toBe(part.tokens);
      part.dispose();
    }
    expect([canvases, seen.every((one) => one === 1)]).toEqual([film.canvases.length, true]);
    whole.dispose();
  });
});

describe('a film of many parts', () => {
  const FRAMES = 152;
  let model: Model;
  beforeAll(async () => {
    model = await load(join(FIXTURES, 'nvila', 'film'));
  });
  afterAll(() => model.dispose());

  /** Answers, rows and statistics of two questions about a film. */
  async function asked(method: SparsityMethod) {
    // Positions are rotary, so that there may be more of them than the fixture's config says.
    const decoder = { ...model.decoder, config: { ...model.decoder.config, maxPositions: 1024 } };
    const watched = watch({ ...model, decoder });
    using chat = createSession(watched.model, { method });
    const frames = noise(FRAMES, 20, 20);
    const first = chat.ask('What?', { videos: [{ frames }], maxTokens: 3, temperature: 0 });
    const texts = [await first.text(), await chat.ask('And then?', { maxTokens: 3, temperature: 0 }).text()];
    const { media, tokens } = first.stats ?? {};
    return { texts, media, tokens, prefills: watched.calls.length, rows: watched.cacheRows(chat.length) };
  }

  const pruning = METHODS.filter(({ stage }) => stage.startsWith('tower')).map(({ name, create }) => ({
    name,
    method: create({ prefillSparsity: 0.25, decodeSparsity: 0.5 }),
  }));
  it.each([{ name: 'dense', method: dense() }, ...pruning])(
    'is seen and prefilled as it comes: $name',
    async ({ method }) => {
      const streamed = await asked(method);
      // A method that may look at all of a turn has the features of the whole film; one that may drop rows has all rows before the first layer.
      const whole = await asked({
        ...method,
        ...(method.prune && { prune: { ...method.prune, scope: 'turn' } }),
        drop: method.drop ?? { layers: [], select: () => new Int32Array() },
      });
      expect([streamed.texts, streamed.media, streamed.tokens]).toEqual([whole.texts, whole.media, whole.tokens]);
      // Deeper layers hold fewer rows where a method drops some.
      if (method.drop === undefined) expect(compareBits(streamed.rows, whole.rows)).toBe('identical');
      if (method.name === 'dense') expect(streamed.tokens?.visualKept).toBe(4 * FRAMES);
    },
  );

  it('leaves nothing behind', async () => {
    await asked(dense());
    await withoutLeak(() => asked(dense()));
  });
});
