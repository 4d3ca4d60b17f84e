// Padding, normalising, the checkpoint file, and the whole way to the demo model's reference pixel_values.

import { readFileSync } from 'node:fs';
import { decodeImage, type RgbImage } from '../../src/image/decode';
import { padToSquare, parsePreprocessorConfig, preprocess, rescaleNormalize } from '../../src/image/preprocess';
import { resize } from '../../src/image/resample';
import { STAGES } from '../support/assets';
import { bytesOf, difference, EXACT, errorOf, fixture, noise, readCases, type Slice, scene } from './fixtures';

type Rgb = [number, number, number];
type Case =
  | { kind: 'pad'; width: number; height: number; colour: Rgb; source: Slice; expected: Slice }
  | { kind: 'normalize'; name: string; mean: Rgb; std: Rgb; expected: Slice };

const { cases, array } = readCases<Case>('preprocess');
const floats = (slice: Slice) => new Float32Array(array(slice).buffer);

/** The packaged model's vision_tower/preprocessor_config.json. */
const JSON_CONFIG = {
  do_rescale: true,
  do_normalize: true,
  do_resize: true,
  image_mean: [0.5, 0.5, 0.5],
  image_std: [0.5, 0.5, 0.5],
  image_processor_type: 'SiglipImageProcessor',
  resample: 3,
  rescale_factor: 0.00392156862745098,
  size: { height: 280, width: 280 },
};
const CONFIG = parsePreprocessorConfig(JSON_CONFIG, 'preprocessor_config.json');
const SMALL = { ...CONFIG, size: { height: 6, width: 9 } };

describe('padToSquare', () => {
  it.each(cases.flatMap((c) => (c.kind === 'pad' ? [[`${c.width}×${c.height}`, c] as const] : [])))(
    '%s as Pillow pastes it',
    (_, c) => {
      const result = padToSquare({ data: array(c.source), width: c.width, height: c.height }, c.colour);
      expect(result.width).toBe(Math.max(c.width, c.height));
      expect(result.height).toBe(result.width);
      expect(difference(result.data, array(c.expected))).toEqual(EXACT);
    },
  );

  it('refuses a square above the pixel limit without making it', async () => {
    const error = await errorOf(() => padToSquare(noise(1, 10_000), [0, 0, 0]));
    expect(error.code).toBe('ERR_IMAGE_TOO_LARGE');
    expect(error.message).toMatch(/1×10000.+10000×10000 = 100000000/);
  });
});

describe('rescaleNormalize', () => {
  it.each(cases.flatMap((c) => (c.kind === 'normalize' ? [[c.name, c] as const] : [])))(
    '%s, every level, to the bit',
    (_, c) => {
      const data = new Uint8Array(256 * 3).map((_, i) => Math.floor(i / 3));
      const config = { rescaleFactor: 0.00392156862745098, mean: c.mean, std: c.std };
      const got = rescaleNormalize({ data, width: 16, height: 16 }, config);
      expect(Buffer.from(got.buffer).equals(Buffer.from(floats(c.expected).buffer))).toBe(true);
    },
  );

  it('puts channels first', () => {
    const image: RgbImage = { data: new Uint8Array([1, 2, 3, 4, 5, 6]), width: 2, height: 1 };
    const got = rescaleNormalize(image, { rescaleFactor: 1, mean: [0, 0, 0], std: [1, 2, 1] });
    expect([...got]).toEqual([1, 4, 1, 2.5, 3, 6]);
  });
});

describe('preprocess', () => {
  it.each([0, 1])('scene %i gives the reference pixel_values to the bit', async (i) => {
    const { pixels, width, height } = await preprocess(scene(`scene-0${i}.png`), CONFIG, 'resize');
    expect([width, height]).toEqual([280, 280]);
    expect(difference(pixels, readTensor(STAGES, `${i}.pixel_values`))).toEqual(EXACT);
  });

  it('is decode, pad with int(255·mean), resize, normalise, in this order', async () => {
    const config = { ...SMALL, mean: [0.48145466, 0.4578275, 0.40821073] as const };
    const image = await decodeImage(bytesOf('rgba.png'));
    const padded = resize(padToSquare(image, [122, 116, 104]), 9, 6, 'bicubic');
    const inPad = await preprocess(bytesOf('rgba.png'), config, 'pad');
    expect(difference(inPad.pixels, rescaleNormalize(padded, config))).toEqual(EXACT);
    const inResize = await preprocess(bytesOf('rgba.png'), config, 'resize');
    expect(difference(inResize.pixels, rescaleNormalize(resize(image, 9, 6, 'bicubic'), config))).toEqual(EXACT);
    expect(difference(inPad.pixels, inResize.pixels).largest).toBeGreaterThan(0.1);
  });

  it('leaves out the steps the checkpoint leaves out', async () => {
    const raw = { data: new Uint8Array([0, 100, 255]), width: 1, height: 1, channels: 3 as const };
    const only = async (doRescale: boolean, doNormalize: boolean) => [
      ...(await preprocess(raw, { ...SMALL, doResize: false, doRescale, doNormalize }, 'resize')).pixels,
    ];
    expect(await only(false, false)).toEqual([0, 100, 255]);
    expect(await only(true, false)).toEqual([0, Math.fround(100 * JSON_CONFIG.rescale_factor), 1]);
    expect(await only(false, true)).toEqual([-1, 199, 509]);
  });

  it('takes a strip of 1×10,000 by resizing, and says why not by padding', async () => {
    const { pixels } = await preprocess(fixture('strip.png'), SMALL, 'resize');
    expect(pixels.length).toBe(3 * 6 * 9);
    expect((await errorOf(() => preprocess(fixture('strip.png'), SMALL, 'pad'))).code).toBe('ERR_IMAGE_TOO_LARGE');
  });

  it("refuses an unknown mode, passes on the decoder's errors, and stops when told", async () => {
    const call = (mode: string) => preprocess(bytesOf('rgb.png'), SMALL, mode as 'pad');
    expect((await errorOf(() => call('crop'))).message).toMatch(/'resize' or 'pad'.+crop/);
    expect((await errorOf(() => preprocess(bytesOf('flipped.png'), SMALL, 'pad'))).code).toBe('ERR_IMAGE_CORRUPT');
    await expect(preprocess(bytesOf('rgb.png'), SMALL, 'pad', { signal: AbortSignal.abort('left') })).rejects.toBe(
      'left',
    );
  });
});

describe('parsePreprocessorConfig', () => {
  const parse = (changes: Record<string, unknown>) => parsePreprocessorConfig({ ...JSON_CONFIG, ...changes }, 'p.json');

  it('reads the packaged file', () => {
    expect(CONFIG).toEqual({
      size: { height: 280, width: 280 },
      resample: 'bicubic',
      rescaleFactor: 0.00392156862745098,
      mean: [0.5, 0.5, 0.5],
      std: [0.5, 0.5, 0.5],
      doResize: true,
      doRescale: true,
      doNormalize: true,
    });
  });

  it('reads sizes in all forms', () => {
    expect(parse({ size: 384 }).size).toEqual({ height: 384, width: 384 });
    expect(parse({ size: { height: 2, width: 3 } }).size).toEqual({ height: 2, width: 3 });
    expect(parse({ size: { shortest_edge: 336, longest_edge: null } }).size).toEqual({ height: 336, width: 336 });
  });

  it('has the common defaults, and takes a crop that crops nothing', () => {
    const { image_mean, image_std, resample, size } = JSON_CONFIG;
    const sparse = parsePreprocessorConfig({ image_mean, image_std, resample, size }, 'p.json');
    expect(sparse).toEqual({ ...CONFIG, rescaleFactor: 1 / 255 });
    expect(parse({ do_center_crop: true, crop_size: 280, do_pad: false }).size.width).toBe(280);
    expect(parse({ do_normalize: false }).doNormalize).toBe(false);
  });

  it.each([
    [{ size: undefined }, /size.+nothing/],
    [{ size: 0 }, /size.+0/],
    [{ size: '384' }, /size.+"384"/],
    [{ size: { height: 384 } }, /size.+"height":384/],
    [{ size: { height: 384, width: 1.5 } }, /size/],
    [{ size: { shortest_edge: 3, longest_edge: 9 } }, /longest_edge/],
    [{ size: { max_pixels: 9, min_pixels: 3 } }, /max_pixels/],
    [{ resample: undefined }, /resample.+nothing/],
    [{ resample: 0 }, /1 \(lanczos\).+resample.+0/],
    [{ resample: 'bicubic' }, /resample.+"bicubic"/],
    [{ rescale_factor: 'x' }, /rescale_factor/],
    [{ rescale_factor: 0 }, /rescale_factor/],
    [{ image_mean: undefined }, /image_mean.+nothing/],
    [{ image_mean: [0.5, 0.5] }, /image_mean/],
    [{ image_std: [0.5, 0.5, '1'] }, /image_std/],
    [{ image_std: [0.5, 0, 0.5] }, /positive.+image_std/],
    [{ do_resize: 'yes' }, /do_resize.+"yes"/],
    [{ do_image_splitting: true }, /do_image_splitting/],
    [{ do_center_crop: true, crop_size: 224 }, /crop_size.+224/],
    [{ do_center_crop: true }, /crop_size.+nothing/],
  ])('refuses %j', async (changes, part) => {
    const error = await errorOf(() => parse(changes));
    expect(error.code).toBe('ERR_PREPROCESSOR_CONFIG');
    expect(error.message).toMatch(part);
    expect(error.message).toMatch(/p\.json/);
  });

  it.each([[null], [[]], ['text'], [undefined]])('refuses %p for the file', async (json) => {
    expect((await errorOf(() => parsePreprocessorConfig(json, 'p.json'))).message).toMatch(/object.+p\.json/);
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
