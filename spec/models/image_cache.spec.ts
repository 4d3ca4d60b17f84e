// A model with an image cache: equal answers and numbers, one run of the tower, memory bounded and freed.

import { sparseVila } from '../../src';
import { withImageCache } from '../../src/models/image_cache';
import { loadModel } from '../../src/models/load';
import type { EncodedMedium, VisionLanguageModel } from '../../src/models/model';
import { createSession } from '../../src/session/session';
import { scene, TINY } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { encoded, prepared } from '../support/media';

/** Features of one picture, f32 [100, 512], and its salience. */
const PICTURE_BYTES = (100 * 512 + 100) * 4;
const SALIENCE = { salience: [-1], pace: async () => undefined };

let model: VisionLanguageModel;
let runs: number;
let counting: VisionLanguageModel;
beforeAll(async () => {
  model = await loadModel(TINY);
  // Makes constants that are kept for the process.
  (await encode(model, 0)).dispose();
});
beforeEach(() => {
  runs = 0;
  counting = {
    ...model,
    encode: (medium, options) => {
      runs++;
      return model.encode(medium, options);
    },
    dispose: () => undefined,
  };
});
afterAll(() => model.dispose());

async function encode(of: VisionLanguageModel, picture: number): Promise<EncodedMedium> {
  return of.encode(await prepared(of, scene(picture)), SALIENCE);
}

test('the tower runs once per picture and set of layers; a cached result has the same bits', async () => {
  await withoutLeak(async () => {
    const cached = withImageCache(counting, 1e9);
    const [one, two] = [await encode(cached, 0), await encode(cached, 0)];
    const features = one.features.dataSync().slice();
    expect(two.salience).toEqual(one.salience);
    one.dispose();
    expect(two.features.dataSync()).toEqual(features);
    two.dispose();
    expect(runs).toBe(1);
    const plain = await encoded(cached, scene(0));
    expect([plain.salience, runs]).toEqual([[], 2]);
    plain.dispose();
    (await encode(cached, 1)).dispose();
    expect(runs).toBe(3);
    cached.dispose();
  });
});

test('images that do not fit are evicted, the least recently used first', async () => {
  await withoutLeak(async () => {
    const cached = withImageCache(counting, 2 * PICTURE_BYTES);
    for (const picture of [0, 1, 0, 2]) (await encode(cached, picture)).dispose();
    expect(runs).toBe(3);
    (await encode(cached, 0)).dispose();
    (await encode(cached, 2)).dispose();
    expect(runs).toBe(3);
    (await encode(cached, 1)).dispose();
    expect(runs).toBe(4);
    cached.dispose();
    const tiny = withImageCache(counting, PICTURE_BYTES - 1);
    for (const picture of [0, 0]) (await encode(tiny, picture)).dispose();
    expect(runs).toBe(6);
    tiny.dispose();
  });
});

test('sessions answer as without the cache', async () => {
  const cached = withImageCache(counting, 1e9);
  const answers = async (of: VisionLanguageModel): Promise<string> => {
    const session = createSession(of, { method: sparseVila() });
    const first = await session.ask('Read row 1.', { images: [scene(3), scene(4)] }).text();
    const text = `${first} ${await session.ask('How many cyan objects are there?').text()}`;
    session.dispose();
    return text;
  };
  const expected = await answers(model);
  expect([await answers(cached), await answers(cached)]).toEqual([expected, expected]);
  expect(runs).toBe(2);
  cached.dispose();
});

test.each([-1, Number.NaN, '1'])('loading refuses imageCache %p', async (imageCache) => {
  await expect(loadModel(TINY, { imageCache: imageCache as number })).rejects.toThrow(
    /bytes, 0 or more, for imageCache/,
  );
});
