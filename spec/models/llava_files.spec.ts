// What LLaVA's config and processor files leave out, write otherwise or ask for: as transformers 5.24 reads them (LlavaConfig,
// CLIPImageProcessor), or refused by name. Plans alone, without weights.

import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Json, readJson } from '../../src/json';
import { planOf } from '../../src/models/load';
import type { Plan } from '../../src/models/plan';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { changeJson, withCopy } from '../support/checkpoint';

const LLAVA = join(FIXTURES, 'llava', 'llava-llama');
const CONFIG = 'config.json';
const IMAGES = 'preprocessor_config.json';
const CROP = 42;
const vision = readJson(join(LLAVA, CONFIG)).vision_config as Json;
const text = readJson(join(LLAVA, CONFIG)).text_config as Json;

const planWith = (file: string, changes: Json): Promise<Plan> =>
  withCopy(LLAVA, async (folder) => {
    changeJson(join(folder, file), changes);
    return planOf(folder);
  });

/** How a picture of 100 x 50 pixels is resized before it is cropped. */
const resizedTo = ({ layout }: Plan): unknown =>
  layout({ kind: 'image', width: 100, height: 50, frames: 1 }, { media: 1 }).canvases[0]?.steps[0]?.to;

describe('LLaVA files', () => {
  it('a text config without a type is Llama', async () => {
    const { model_type: _, ...rest } = text;
    expect((await planWith(CONFIG, { text_config: rest })).decoder).toEqual(planOf(LLAVA).decoder);
  });

  it('a vision config takes the defaults of CLIP, and only a missing one those of ViT-L/14-336', async () => {
    const { num_attention_heads: _, ...rest } = vision;
    expect((await planWith(CONFIG, { vision_config: rest })).tower.heads).toBe(12);
    const crop = { size: { shortest_edge: 336 }, crop_size: 336 };
    const plan = await withCopy(LLAVA, async (folder) => {
      changeJson(join(folder, IMAGES), crop);
      changeJson(join(folder, CONFIG), { vision_config: undefined });
      return planOf(folder);
    });
    expect(plan.tower).toMatchObject({ heads: 16, hiddenSize: 1024, layers: 24, imageSize: 336, patchSize: 14 });
  });

  it('a list of one layer is that layer', async () => {
    expect((await planWith(CONFIG, { vision_feature_layer: [-1] })).tower.depth).toBe(3);
  });

  it.each([
    [{ shortest_edge: 50 }, { width: 100, height: 50 }],
    [50, { width: 100, height: 50 }],
    [
      { shortest_edge: null, height: CROP, width: 60 },
      { width: 60, height: CROP },
    ],
    [undefined, { width: 448, height: 224 }],
  ])('size %j brings 100 x 50 to %j', async (size, to) => {
    expect(resizedTo(await planWith(IMAGES, { size }))).toEqual(to);
  });

  it('mean and deviation are by default those of CLIP, and the processor may lie in processor_config.json', async () => {
    const { pixels } = planOf(LLAVA);
    expect((await planWith(IMAGES, { image_mean: undefined, image_std: null })).pixels).toEqual(pixels);
    const nested = await withCopy(LLAVA, async (folder) => {
      const images = readJson(join(folder, IMAGES));
      renameSync(join(folder, IMAGES), join(folder, 'unread.json'));
      writeFileSync(join(folder, 'processor_config.json'), JSON.stringify({ image_processor: images }));
      return planOf(folder);
    });
    expect(nested.pixels).toEqual(pixels);
  });

  it.each([
    [CONFIG, { vision_feature_layer: [-2, -1] }, 'ERR_CONFIG_UNSUPPORTED', 'vision_feature_layer'],
    [CONFIG, { vision_feature_select_strategy: 'full' }, 'ERR_CONFIG_UNSUPPORTED', 'vision_feature_select_strategy'],
    [CONFIG, { model_type: { toString: 1 } }, 'ERR_MODEL_TYPE', 'model_type'],
    [CONFIG, { model_type: ['llava'] }, 'ERR_MODEL_TYPE', 'model_type'],
    [IMAGES, { size: { shortest_edge: CROP, longest_edge: 60 } }, 'ERR_CONFIG_UNSUPPORTED', 'size'],
    [IMAGES, { size: {} }, 'ERR_CONFIG_UNSUPPORTED', 'size'],
    [IMAGES, { size: { shortest_edge: CROP - 1 } }, 'ERR_CONFIG_UNSUPPORTED', 'size'],
    [IMAGES, { crop_size: null }, 'ERR_CONFIG_INVALID', 'crop_size'],
    [IMAGES, { crop_size: { height: CROP, width: CROP - 1 } }, 'ERR_CONFIG_INVALID', 'crop_size'],
    [IMAGES, { do_pad: true }, 'ERR_CONFIG_UNSUPPORTED', 'do_pad'],
    [IMAGES, { do_flip_channel_order: 1 }, 'ERR_CONFIG_UNSUPPORTED', 'do_flip_channel_order'],
    [IMAGES, { do_resize: false }, 'ERR_CONFIG_UNSUPPORTED', 'do_resize'],
    [IMAGES, { image_processor_type: 'LlavaNextImageProcessor' }, 'ERR_CONFIG_UNSUPPORTED', 'image_processor_type'],
    [IMAGES, { feature_extractor_type: 'ViTFeatureExtractor' }, 'ERR_CONFIG_UNSUPPORTED', 'feature_extractor_type'],
    [IMAGES, { resample: 0 }, 'ERR_CONFIG_UNSUPPORTED', 'resample'],
    [IMAGES, { rescale_factor: 0 }, 'ERR_CONFIG_INVALID', 'rescale_factor'],
    [IMAGES, { image_std: [1e-50, 1, 1] }, 'ERR_CONFIG_INVALID', 'image_std'],
    [IMAGES, { image_std: [1e-44, 1, 1] }, 'ERR_CONFIG_INVALID', 'image_std'],
    [IMAGES, { image_mean: [1e39, 0, 0] }, 'ERR_CONFIG_INVALID', 'image_mean'],
  ])('%s with %j is refused: %s, naming %s', async (file, changes, code, key) => {
    const error = await errorOf(() => planWith(file, changes));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(new RegExp(`"?${key}"?`));
    expect(error.message).toContain(file);
  });
});
