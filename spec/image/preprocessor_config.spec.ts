// preprocessor_config.json: accepted values, defaults, and refusals.

import { parsePreprocessorConfig } from '../../src/image/preprocessor_config';
import { errorOf } from './fixtures';

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

  it('reads all forms of sizes', () => {
    expect(parse({ size: 384 }).size).toEqual({ height: 384, width: 384 });
    expect(parse({ size: { height: 2, width: 3 } }).size).toEqual({ height: 2, width: 3 });
    expect(parse({ size: { shortest_edge: 336, longest_edge: null } }).size).toEqual({ height: 336, width: 336 });
  });

  it('has the common defaults, and accepts a crop that has no effect', () => {
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
