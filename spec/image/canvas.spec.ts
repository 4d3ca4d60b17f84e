// Canvases and the values of their patches: Pillow's padding, Hugging Face's normalization, and the reference pixel_values of the demo model.

import { readFileSync } from 'node:fs';
import { draw } from '../../src/image/canvas';
import { decodeImage, type RgbImage } from '../../src/image/decode';
import { padded, resized, type Shape } from '../../src/models/families/vila_layouts';
import { STAGES } from '../support/assets';
import { bytesOf, difference, EXACT, errorOf, fixture, noise, planes, readCases, type Slice, scene } from './fixtures';

type Rgb = [number, number, number];
type Case =
  | { kind: 'pad'; width: number; height: number; color: Rgb; source: Slice; expected: Slice }
  | { kind: 'normalize'; name: string; mean: Rgb; std: Rgb; expected: Slice };

const { cases, array } = readCases<Case>('preprocess');
const floats = (slice: Slice) => new Float32Array(array(slice).buffer);
const HALF = { rescaleFactor: 0.00392156862745098, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] } as const;
const shape = (side: number): Shape => ({
  tower: { imageSize: side, patchSize: 1, classToken: false },
  block: 1,
  copies: 1,
  before: undefined,
  after: undefined,
});

/** The only canvas of a layout. */
function canvas(image: RgbImage, layout: ReturnType<typeof resized>): RgbImage {
  const [first, ...others] = layout.canvases;
  if (first === undefined || others.length > 0) throw new Error(`expected one canvas, got ${layout.canvases.length}`);
  return draw(image, first.steps);
}

describe('padding to a square', () => {
  it.each(cases.flatMap((c) => (c.kind === 'pad' ? [[`${c.width}×${c.height}`, c] as const] : [])))(
    '%s as Pillow pastes it',
    (_, c) => {
      const image = { data: array(c.source), width: c.width, height: c.height };
      const side = Math.max(c.width, c.height);
      const got = canvas(image, padded(shape(side), image, 'bicubic', c.color));
      expect([got.width, got.height]).toEqual([side, side]);
      expect(difference(got.data, array(c.expected))).toEqual(EXACT);
    },
  );

  it('comes before resizing', async () => {
    const image = await decodeImage(bytesOf('rgba.png'));
    const side = Math.max(image.width, image.height);
    const square = canvas(image, padded(shape(side), image, 'bicubic', [122, 116, 104]));
    const expected = canvas(square, resized(shape(9), square, 'bicubic'));
    const got = canvas(image, padded(shape(9), image, 'bicubic', [122, 116, 104]));
    expect(difference(got.data, expected.data)).toEqual(EXACT);
    expect(difference(got.data, canvas(image, resized(shape(9), image, 'bicubic')).data).largest).toBeGreaterThan(20);
  });

  it('refuses a square above the pixel limit without making it', async () => {
    const strip = noise(1, 10_000);
    const error = await errorOf(() => canvas(strip, padded(shape(9), strip, 'bicubic', [0, 0, 0])));
    expect(error.code).toBe('ERR_IMAGE_TOO_LARGE');
    expect(error.message).toMatch(/1×10000.+10000×10000/);
  });

  it('is not applied to a strip of 1×10,000 in mode resize', async () => {
    const strip = await decodeImage(fixture('strip.png'));
    expect(canvas(strip, resized(shape(9), strip, 'bicubic')).data.length).toBe(9 * 9 * 3);
  });
});

describe('pixel values', () => {
  it.each(cases.flatMap((c) => (c.kind === 'normalize' ? [[c.name, c] as const] : [])))(
    '%s, every byte value, exactly',
    (_, c) => {
      const data = new Uint8Array(256 * 3).map((_, i) => Math.floor(i / 3));
      const got = planes({ data, width: 16, height: 16 }, { ...HALF, mean: c.mean, std: c.std });
      expect(Buffer.from(got.buffer).equals(Buffer.from(floats(c.expected).buffer))).toBe(true);
    },
  );

  it('put channels first', () => {
    const image: RgbImage = { data: new Uint8Array([1, 2, 3, 4, 5, 6]), width: 2, height: 1 };
    const got = planes(image, { rescaleFactor: 1, mean: [0, 0, 0], std: [1, 2, 1] });
    expect([...got]).toEqual([1, 4, 1, 2.5, 3, 6]);
  });

  it.each([0, 1])('scene %i gives exactly the reference pixel_values', async (i) => {
    const image = await decodeImage(scene(`scene-0${i}.png`));
    const got = planes(canvas(image, resized(shape(280), image, 'bicubic')), HALF);
    expect(difference(got, readTensor(STAGES, `${i}.pixel_values`))).toEqual(EXACT);
  });
});

/** One f32 tensor of a safetensors file. */
function readTensor(file: string, name: string): Float32Array {
  const bytes = readFileSync(file);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + length));
  const [from, to] = header[name].data_offsets;
  return new Float32Array(new Uint8Array(bytes.subarray(8 + length + from, 8 + length + to)).buffer);
}
