// LLaVA-1.5 against transformers: two random checkpoints (Llama and Mistral decoders), three turns with two pictures each.
// Fixtures: scripts/fixtures/llava.py; the names of tensors are in its README.

import { join } from 'node:path';
import { load, type Model } from '../../src';
import { FIXTURES } from '../support/assets';
import { encoded, pixelsOf, prepared } from '../support/media';
import { F32_NMSE, largestDifference, nmse, PIXELS_ABSOLUTE } from '../support/nmse';
import { readExpected } from '../support/tensors';
import { runTower } from '../support/tower';

const SIZES = [
  [40, 40],
  [30, 150],
  [150, 30],
  [50, 37],
  [2000, 1500],
] as const;

/** The pictures of the fixture script: red 3x + 5y, green xy, blue 7x + y, all modulo 256. */
function formula(width: number, height: number) {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++, at += 3) data.set([3 * x + 5 * y, x * y, 7 * x + y], at);
  return { data, width, height, channels: 3 as const };
}

describe.each(['llava-llama', 'llava-mistral'])('%s', (name) => {
  const folder = join(FIXTURES, 'llava', name);
  const expected = readExpected(join(folder, 'expected.safetensors'));
  const image = (i: number): string => join(folder, `image${i}.png`);
  /** The part of a tensor that is about picture i of two. */
  const of = (tensor: string, i: number): Float32Array => {
    const all = expected.f32(tensor);
    return all.subarray((i * all.length) / 2, ((i + 1) * all.length) / 2);
  };
  let model: Model;
  beforeAll(async () => {
    model = await load(folder);
  });
  afterAll(() => model.dispose());

  it.each(SIZES)('a picture of %i x %i is resized and cropped as by Pillow', async (width, height) => {
    const { canvases } = await prepared(model, formula(width, height));
    const planes = expected.u8(`crop.${width}x${height}`);
    const pixels = planes.length / 3;
    const rows = Uint8Array.from(
      { length: planes.length },
      (_, i) => planes[(i % 3) * pixels + Math.floor(i / 3)] ?? 0,
    );
    expect(canvases).toHaveLength(1);
    expect(Buffer.compare(canvases[0]?.data ?? Buffer.alloc(0), rows)).toBe(0);
  });

  it.each([0, 1])('pixels, tower, salience of the class row and projected rows of picture %i', async (i) => {
    const medium = await prepared(model, image(i));
    expect(largestDifference(pixelsOf(model, medium), of('pixel_values', i))).toBeLessThanOrEqual(PIXELS_ABSOLUTE);
    const tower = await runTower(folder, medium);
    const e = model.plan.tower.hiddenSize;
    expect(nmse(tower.features.dataSync().subarray(e), of('tower', i))).toBeLessThanOrEqual(F32_NMSE);
    tower.features.dispose();
    const seen = await encoded(model, image(i), { salience: [-1] });
    expect(nmse(seen.features.dataSync(), of('tower', i))).toBeLessThanOrEqual(F32_NMSE);
    expect(nmse(seen.salience[0] ?? [], of('salience', i))).toBeLessThanOrEqual(F32_NMSE);
    const rows = model.project(seen.features, seen.layout);
    expect(nmse(rows.dataSync(), of('projected', i))).toBeLessThanOrEqual(F32_NMSE);
    rows.dispose();
    seen.dispose();
  });
});
