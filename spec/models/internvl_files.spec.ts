// What InternVL's config and processor files leave out, write otherwise or ask for: as transformers 5.24 reads them, or refused by name; its
// key layouts. Plans and headers alone.

import { join } from 'node:path';
import { inspect } from '../../src';
import { type Json, readJson } from '../../src/json';
import { planOf } from '../../src/models/load';
import { tokensOf } from '../../src/models/media';
import type { Plan } from '../../src/models/plan';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { changeJson, changeTensors, withCopy } from '../support/checkpoint';

const FOLDER = join(FIXTURES, 'internvl', 'rms');
const [CONFIG, IMAGES, VIDEOS] = ['config.json', 'preprocessor_config.json', 'video_preprocessor_config.json'];
const vision = readJson(join(FOLDER, CONFIG)).vision_config as Json;

const planWith = (changes: Readonly<Record<string, Json>>): Promise<Plan> =>
  withCopy(FOLDER, async (folder) => {
    for (const [file, change] of Object.entries(changes)) changeJson(join(folder, file), change);
    return planOf(folder);
  });

describe('InternVL files', () => {
  it('what is absent takes the defaults of the classes: InternViT-300M at 448 pixels, a tied Qwen2, 1 to 12 tiles', async () => {
    const absent = { vision_config: undefined, tie_word_embeddings: undefined, image_token_id: undefined };
    const size = { size: { height: 448, width: 448 } };
    const images = { ...size, min_patches: undefined, max_patches: undefined };
    const plan = await planWith({ [CONFIG]: absent, [IMAGES]: images, [VIDEOS]: size });
    expect(plan.tower).toMatchObject({
      imageSize: 448,
      patchSize: 14,
      layers: 24,
      depth: 24,
      heads: 16,
      norm: 'layer',
    });
    expect(plan.tower).toMatchObject({ qkvBias: false, qkNorm: false, layerScale: true, salience: 'columns' });
    expect([plan.decoder.tieWordEmbeddings, plan.marker]).toEqual([true, { id: 151667 }]);
    // InternVL3 has 256 tokens for each tile, and for the whole picture if there is more than one tile.
    const tokens = (width: number, height: number): number =>
      tokensOf(plan.layout({ kind: 'image', width, height, frames: 1 }, { media: 1 })) / 256;
    expect([tokens(448, 448), tokens(896, 448), tokens(1344, 1792), tokens(4480, 100)]).toEqual([1, 3, 13, 13]);
    const film = plan.layout({ kind: 'video', width: 900, height: 40, frames: 2 }, { media: 1 });
    expect([tokensOf(film), film.text]).toEqual([512, 'Frame1: <img>\uFFFC</img>\nFrame2: <img>\uFFFC</img>']);
  });

  it.each([
    [CONFIG, { downsample_ratio: 0.25 }, 'ERR_CONFIG_INVALID', 'downsample_ratio'],
    [CONFIG, { vision_feature_select_strategy: 'full' }, 'ERR_CONFIG_UNSUPPORTED', 'vision_feature_select_strategy'],
    [CONFIG, { text_config: { model_type: 'internlm2' } }, 'ERR_CONFIG_UNSUPPORTED', 'model_type'],
    [CONFIG, { vision_config: { ...vision, use_mean_pooling: false } }, 'ERR_CONFIG_UNSUPPORTED', 'use_mean_pooling'],
    [CONFIG, { vision_config: { ...vision, image_size: [36, 24] } }, 'ERR_CONFIG_UNSUPPORTED', 'image_size'],
    [CONFIG, { vision_config: { ...vision, layer_norm_eps: 1e-5 } }, 'ERR_CONFIG_UNSUPPORTED', 'layer_norm_eps'],
    [CONFIG, { vision_config: { ...vision, norm_type: 'batch_norm' } }, 'ERR_CONFIG', 'norm_type'],
    [IMAGES, { size: { height: 30, width: 30 } }, 'ERR_CONFIG_INVALID', 'size'],
    [IMAGES, { max_patches: 0 }, 'ERR_CONFIG_INVALID', 'max_patches'],
    [IMAGES, { image_processor_type: 'CLIPImageProcessor' }, 'ERR_CONFIG_UNSUPPORTED', 'image_processor_type'],
    [VIDEOS, { image_std: [1, 1, 1] }, 'ERR_CONFIG_UNSUPPORTED', 'image_mean'],
  ])('%s with %j is refused: %s, naming %s', async (file, changes, code, key) => {
    const error = await errorOf(() => planWith({ [file]: changes }));
    expect(error.code).toContain(code);
    expect(error.message).toContain(key);
    expect(error.message).toContain(file);
  });

  it('the key layout of transformers in memory', async () => {
    await withCopy(FOLDER, async (folder) => {
      changeTensors(join(folder, 'model.safetensors'), (tensors) => {
        for (const [key, tensor] of [...tensors]) {
          const [inner, head] = [key.replace('language_model.model.', 'language_model.'), 'language_model.lm_head.'];
          tensors.delete(key);
          tensors.set(key.startsWith(head) ? key.replace('language_model.', '') : `model.${inner}`, tensor);
        }
      });
      expect((await inspect(folder)).problems).toEqual([]);
    });
  });

  it.each(['lambda_1', 'attention.q_norm.weight', 'layernorm_after.weight'])('a missing %s is named', async (name) => {
    await withCopy(FOLDER, async (folder) => {
      changeTensors(join(folder, 'model.safetensors'), (tensors) =>
        tensors.delete(`vision_tower.encoder.layer.1.${name}`),
      );
      const [problem] = (await inspect(folder)).problems;
      expect(problem?.code).toBe('ERR_WEIGHT_MISSING');
    });
  });
});
