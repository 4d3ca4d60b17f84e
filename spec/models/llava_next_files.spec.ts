// What LLaVA-NeXT's config and processor files leave out, write otherwise or ask for: as transformers 5.24 reads them (LlavaNextConfig,
// LlavaNextImageProcessor), or refused by name; its key layouts. Plans and headers alone.

import { join } from 'node:path';
import { inspect } from '../../src';
import { type Json, readJson } from '../../src/json';
import { planOf } from '../../src/models/load';
import { tokensOf } from '../../src/models/media';
import type { Plan } from '../../src/models/plan';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { changeJson, changeTensors, withCopy } from '../support/checkpoint';

const NEXT = join(FIXTURES, 'llava_next', 'mistral');
const [CONFIG, IMAGES] = ['config.json', 'preprocessor_config.json'];
const SIDE = 24;
const config = readJson(join(NEXT, CONFIG));

const planWith = (changes: Readonly<Record<string, Json>>): Promise<Plan> =>
  withCopy(NEXT, async (folder) => {
    for (const [file, change] of Object.entries(changes)) changeJson(join(folder, file), change);
    return planOf(folder);
  });

describe('LLaVA-NeXT files', () => {
  it('absent settings take the defaults of the classes: CLIP ViT-L/14 at 336 pixels, Llama, five resolutions', async () => {
    const absent = { vision_config: undefined, image_grid_pinpoints: undefined, image_token_index: undefined };
    const { model_type: _, ...text } = config.text_config as Json;
    const images = { size: { shortest_edge: 336 }, crop_size: 336, image_grid_pinpoints: undefined, image_mean: null };
    const plan = await planWith({ [CONFIG]: { ...absent, text_config: text }, [IMAGES]: images });
    expect(plan.tower).toMatchObject({ imageSize: 336, patchSize: 14, layers: 24, depth: 23, heads: 16 });
    expect(plan.marker).toEqual({ id: 32000 });
    // As transformers counts for llava-v1.6: 576 for the whole picture, and the map without padding, one newline in each row.
    const tokens = (width: number, height: number): number[] => {
      const { grids, runs } = plan.layout({ kind: 'image', width, height, frames: 1 }, { media: 1 });
      return [tokensOf({ grids }), runs.length - 1];
    };
    expect(tokens(672, 672)).toEqual([576 + 48 * 48, 48]);
    expect(tokens(1000, 300)).toEqual([576 + 22 * 72, 22]);
  });

  it('different pinpoints in config.json and in the processor are refused', async () => {
    const points = [[SIDE, 2 * SIDE]];
    const plan = await planWith({
      [CONFIG]: { image_grid_pinpoints: points },
      [IMAGES]: { image_grid_pinpoints: points },
    });
    const { canvases } = plan.layout({ kind: 'image', width: 9, height: 90, frames: 1 }, { media: 1 });
    expect(canvases).toHaveLength(3);
    const error = await errorOf(() => planWith({ [CONFIG]: { image_grid_pinpoints: points } }));
    expect([error.code, error.message]).toEqual([
      'ERR_CONFIG_UNSUPPORTED',
      expect.stringContaining('image_grid_pinpoints'),
    ]);
  });

  it.each([
    [CONFIG, { image_grid_pinpoints: [[SIDE, SIDE + 1]] }, 'ERR_CONFIG_INVALID', 'image_grid_pinpoints'],
    [CONFIG, { image_grid_pinpoints: '(1x1),...,(6x6)' }, 'ERR_CONFIG_INVALID', 'image_grid_pinpoints'],
    [CONFIG, { vision_feature_select_strategy: 'full' }, 'ERR_CONFIG_UNSUPPORTED', 'vision_feature_select_strategy'],
    [CONFIG, { vision_config: { model_type: 'siglip_vision_model' } }, 'ERR_CONFIG_UNSUPPORTED', 'model_type'],
    [IMAGES, { size: { shortest_edge: SIDE + 6 } }, 'ERR_CONFIG_INVALID', 'size'],
    [IMAGES, { crop_size: null }, 'ERR_CONFIG_INVALID', 'crop_size'],
    [IMAGES, { do_center_crop: false }, 'ERR_CONFIG_UNSUPPORTED', 'do_center_crop'],
    [IMAGES, { image_processor_type: 'CLIPImageProcessor' }, 'ERR_CONFIG_UNSUPPORTED', 'image_processor_type'],
  ])('%s with %j is refused: %s, naming %s', async (file, changes, code, key) => {
    const error = await errorOf(() => planWith({ [file]: changes }));
    expect(error.code).toBe(code);
    expect(error.message).toContain(key);
    expect(error.message).toContain(file);
  });

  const inMemory = (key: string): string =>
    key.startsWith('language_model.lm_head')
      ? key.replace('language_model.', '')
      : `model.${key.replace('language_model.model.', 'language_model.')}`;
  it.each([
    ['of transformers in memory', inMemory],
    ['without vision_model.', (key: string) => key.replace('vision_tower.vision_model.', 'vision_tower.')],
  ])('key layout %s', async (_, name) => {
    await withCopy(NEXT, async (folder) => {
      changeTensors(join(folder, 'model.safetensors'), (tensors) => {
        for (const [key, tensor] of [...tensors]) {
          tensors.delete(key);
          tensors.set(name(key), tensor);
        }
      });
      expect((await inspect(folder)).problems).toEqual([]);
    });
  });

  it('a missing newline row is named', async () => {
    await withCopy(NEXT, async (folder) => {
      changeTensors(join(folder, 'model.safetensors'), (tensors) => tensors.delete('image_newline'));
      const [problem] = (await inspect(folder)).problems;
      expect(problem).toMatchObject({ code: 'ERR_WEIGHT_MISSING', message: expect.stringContaining('image_newline') });
    });
  });
});
