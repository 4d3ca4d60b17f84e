// What files of Qwen2-VL and Qwen2.5-VL checkpoints leave out, write otherwise or ask for: as transformers 5.24 reads them (Qwen2VLConfig,
// Qwen2_5_VLConfig, Qwen2VLImageProcessor, Qwen2VLVideoProcessor), or refused by name.

import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { load } from '../../src';
import { type Json, readJson } from '../../src/json';
import { planOf } from '../../src/models/load';
import type { Plan } from '../../src/models/plan';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { changeJson, changeTensors, type Stored, withCopy } from '../support/checkpoint';
import { compareBits } from '../support/nmse';
import { recordTurn } from '../support/turn';

const HUB = join(FIXTURES, 'qwen_vl', 'qwen2.5-vl');
const NESTED = join(FIXTURES, 'qwen_vl', 'qwen2-vl');
const CONFIG = 'config.json';
const IMAGES = 'preprocessor_config.json';
const VIDEOS = 'video_preprocessor_config.json';
const SHARDS = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
const root = readJson(join(HUB, CONFIG));
const vision = root.vision_config as Json;

const planWith = (file: string, changes: Json, folder = HUB): Promise<Plan> =>
  withCopy(folder, async (copy) => {
    changeJson(join(copy, file), changes);
    return planOf(copy);
  });

const PICTURE = { kind: 'image', width: 200, height: 150, frames: 1 } as const;
const FILM = { ...PICTURE, kind: 'video' } as const;
const gridOf = ({ layout }: Plan, size: typeof PICTURE | typeof FILM): unknown => {
  const [grid] = layout(size, { media: 1 }).grids;
  return grid && [grid.w, grid.h];
};
/** The fixtures' limits resize 200 x 150 to 42 tokens of 14 x 14 pixels for pictures, and to 20 for frames. */
const GRIDS = { picture: [7, 5], frame: [5, 3], unlimited: [14, 11] };

describe('Qwen config files', () => {
  it('fields at the root and in text_config give the same decoder, and so do both forms of rope', async () => {
    const plan = planOf(HUB);
    const { model_type: _, vision_config: __, rope_scaling: ___, rope_theta, ...text } = root;
    const gone = Object.fromEntries(Object.keys(text).map((key) => [key, undefined]));
    const nested = { ...text, model_type: 'qwen2_5_vl_text' };
    for (const rope of [
      { rope_scaling: { type: 'default', rope_type: 'default', mrope_section: [1, 4, 3] }, rope_theta },
      { rope_parameters: { rope_type: 'default', type: 'mrope', mrope_section: [1, 4, 3], rope_theta } },
    ]) {
      const changes = { ...gone, image_token_id: root.image_token_id, rope_scaling: undefined, rope_theta: undefined };
      const other = await planWith(CONFIG, { ...changes, text_config: { ...nested, ...rope } });
      expect(other.decoder).toEqual(plan.decoder);
      expect(other.tower).toEqual(plan.tower);
    }
    expect(Array.from(plan.decoder.ropeAxes ?? [])).toEqual([0, 1, 1, 1, 1, 2, 2, 2]);
  });

  it('the decoder takes the defaults of its class', async () => {
    const keys = [
      'hidden_size',
      'intermediate_size',
      'num_hidden_layers',
      'num_attention_heads',
      'num_key_value_heads',
    ];
    const more = ['vocab_size', 'max_position_embeddings', 'rms_norm_eps', 'rope_theta', 'tie_word_embeddings'];
    const gone = Object.fromEntries([...keys, ...more].map((key) => [key, undefined]));
    const plan = await planWith(CONFIG, {
      ...gone,
      rope_scaling: { type: 'mrope', mrope_section: [16, 24, 24] },
      vision_config: { ...vision, out_hidden_size: 8192 },
    });
    expect(plan.decoder).toMatchObject({
      ...{ hiddenSize: 8192, intermediateSize: 29568, layers: 80, heads: 64, kvHeads: 8, vocabSize: 152064 },
      ...{ maxPositions: 32768, rmsNormEps: 1e-5, ropeTheta: 1e6, tieWordEmbeddings: false },
    });
  });

  it('the towers take the defaults of their classes', async () => {
    const sizes = { patch_size: undefined, min_pixels: undefined, max_pixels: undefined };
    const planOfVision = (folder: string, given: Json) =>
      withCopy(folder, async (copy) => {
        rmSync(join(copy, 'processor_config.json'), { force: true });
        writeFileSync(join(copy, IMAGES), '{}');
        if (folder === HUB) changeJson(join(copy, VIDEOS), sizes);
        changeJson(join(copy, CONFIG), { vision_config: given });
        return planOf(copy);
      });
    const windowed = await planOfVision(HUB, { out_hidden_size: 64 });
    const full = [7, 15, 23, 31];
    expect(windowed.tower).toMatchObject({
      ...{ layers: 32, hiddenSize: 3584, intermediateSize: 3420, heads: 16, patchSize: 14, patchFrames: 2 },
      ...{ norm: 'rms', gated: true, activation: 'silu', ropeTheta: 1e4, normEps: 1e-6, depth: 32 },
    });
    expect(full.some((layer) => windowed.tower.windowed.includes(layer))).toBe(false);
    expect(windowed.tower.windowed).toHaveLength(28);
    expect(windowed.layout({ ...FILM, fps: 2 }, { media: 1 }).planeStep).toBe(4);
    const plain = await planOfVision(NESTED, { hidden_size: 56 });
    expect(plain.tower).toMatchObject({
      ...{ layers: 32, hiddenSize: 1280, intermediateSize: 5120, heads: 16, patchSize: 14, patchFrames: 2 },
      ...{ norm: 'layer', gated: false, activation: 'quick_gelu', windowed: [] },
    });
    // Limits of the classes: 56 x 56 to 28 x 28 x 1280 pixels; 128 x 28 x 28 to 768 x 28 x 28 for a frame.
    const large = { width: 4000, height: 3000 };
    expect(gridOf(plain, { ...PICTURE, ...large } as unknown as typeof PICTURE)).toEqual([41, 30]);
    expect(gridOf(windowed, { ...FILM, ...large } as unknown as typeof FILM)).toEqual([32, 24]);
  });
});

describe('Qwen processor files', () => {
  it.each([
    [{ min_pixels: undefined, max_pixels: undefined, size: { shortest_edge: 784, longest_edge: 8232 } }, GRIDS.picture],
    [{ min_pixels: null, max_pixels: null, size: { min_pixels: 784, max_pixels: 8232 } }, GRIDS.picture],
    [{ size: { shortest_edge: 1, longest_edge: 9 } }, GRIDS.picture],
    [{ max_pixels: 1e6 }, GRIDS.unlimited],
  ])('limits as %j', async (changes, grid) => {
    const plan = await planWith(IMAGES, changes);
    expect([gridOf(plan, PICTURE), gridOf(plan, FILM)]).toEqual([grid, GRIDS.frame]);
  });

  it('settings of videos come from their own file, an object in processor_config.json, or those of pictures', async () => {
    expect([gridOf(planOf(NESTED), PICTURE), gridOf(planOf(NESTED), FILM)]).toEqual([GRIDS.picture, GRIDS.frame]);
    await withCopy(HUB, async (copy) => {
      rmSync(join(copy, VIDEOS));
      expect(gridOf(planOf(copy), FILM)).toEqual(GRIDS.picture);
    });
  });

  it.each([
    [CONFIG, { rope_scaling: { type: 'mrope' } }, 'ERR_CONFIG_INVALID', 'mrope_section'],
    [CONFIG, { rope_scaling: { type: 'mrope', mrope_section: [2, 3, 2] } }, 'ERR_CONFIG_INVALID', 'mrope_section'],
    [CONFIG, { rope_scaling: { type: 'yarn', mrope_section: [1, 4, 3] } }, 'ERR_CONFIG_UNSUPPORTED', 'type'],
    [
      CONFIG,
      { use_sliding_window: true, max_window_layers: 1, sliding_window: 8 },
      'ERR_CONFIG_UNSUPPORTED',
      'use_sliding_window',
    ],
    [CONFIG, { vision_config: { ...vision, out_hidden_size: 32 } }, 'ERR_CONFIG_INVALID', 'out_hidden_size'],
    [CONFIG, { vision_config: { ...vision, in_channels: 1 } }, 'ERR_CONFIG_UNSUPPORTED', 'in_channels'],
    [CONFIG, { vision_config: { ...vision, num_heads: 3 } }, 'ERR_CONFIG_INVALID', 'num_heads'],
    [CONFIG, { vision_config: { ...vision, window_size: 13 } }, 'ERR_CONFIG_INVALID', 'window_size'],
    [CONFIG, { vision_config: { ...vision, fullatt_block_indexes: 3 } }, 'ERR_CONFIG_INVALID', 'fullatt_block_indexes'],
    [CONFIG, { vision_config: { ...vision, hidden_act: 'relu' } }, 'ERR_CONFIG_UNSUPPORTED', 'hidden_act'],
    [IMAGES, { patch_size: 14 }, 'ERR_CONFIG_INVALID', 'patch_size'],
    [IMAGES, { merge_size: 1 }, 'ERR_CONFIG_INVALID', 'merge_size'],
    [IMAGES, { do_resize: false }, 'ERR_CONFIG_UNSUPPORTED', 'do_resize'],
    [IMAGES, { do_center_crop: true }, 'ERR_CONFIG_UNSUPPORTED', 'do_center_crop'],
    [IMAGES, { image_processor_type: 'CLIPImageProcessor' }, 'ERR_CONFIG_UNSUPPORTED', 'image_processor_type'],
    [IMAGES, { max_pixels: null, size: { shortest_edge: 784 } }, 'ERR_CONFIG_INVALID', 'size'],
    [VIDEOS, { image_mean: [0.5, 0.5, 0.5] }, 'ERR_CONFIG_UNSUPPORTED', 'image_mean'],
    [VIDEOS, { temporal_patch_size: 1 }, 'ERR_CONFIG_INVALID', 'temporal_patch_size'],
  ])('%s with %j is refused: %s, naming %s', async (file, changes, code, key) => {
    const error = await errorOf(() => planWith(file, changes));
    expect(error.code).toBe(code);
    expect(error.message).toContain(key);
    expect(error.message).toContain(file);
  });
});

describe('Qwen tensors', () => {
  /** Logits of a prompt with a picture. */
  const logitsOf = async (folder: string): Promise<Float32Array> => {
    const model = await load(folder);
    const images = [join(folder, 'image1.png')];
    const { promptLogits } = await recordTurn(model, { images, question: 'What?', kv: 'f32', maxTokens: 1 });
    model.dispose();
    return promptLogits;
  };
  const renamed = (copy: string, files: readonly string[], rename: (name: string) => string): void => {
    for (const file of files)
      changeTensors(join(copy, file), (tensors) => {
        const all = [...tensors];
        tensors.clear();
        for (const [name, tensor] of all) tensors.set(rename(name), tensor);
      });
    if (files.length === 1) return;
    const index = readJson(join(copy, 'model.safetensors.index.json'));
    const map = Object.entries(index.weight_map as Record<string, string>).map(([name, file]) => [rename(name), file]);
    changeJson(join(copy, 'model.safetensors.index.json'), { weight_map: Object.fromEntries(map) });
  };

  it('are found under the names of published files and of transformers itself', async () => {
    const names: readonly (readonly [string, readonly string[], (name: string) => string])[] = [
      [
        HUB,
        SHARDS,
        (name) => name.replace(/^visual/, 'model.visual').replace(/^model\.(?!visual)/, 'model.language_model.'),
      ],
      [HUB, SHARDS, (name) => name.replace(/^model\./, 'language_model.model.')],
      [
        NESTED,
        ['model.safetensors'],
        (name) => name.replace(/^model\.(visual|language_model)/, (_, part) => (part === 'visual' ? part : 'model')),
      ],
    ];
    for (const [folder, files, rename] of names) {
      const own = await logitsOf(folder);
      const other = await withCopy(folder, async (copy) => {
        renamed(copy, files, rename);
        return logitsOf(copy);
      });
      expect(compareBits([other], [own])).toBe('identical');
    }
  });

  it('a head in the file is used; without one the config must tie it to the embedding', async () => {
    const head = (of: Map<string, Stored>): void => {
      const table = of.get('model.language_model.embed_tokens.weight');
      if (table !== undefined) of.set('lm_head.weight', { ...table, data: table.data.slice().fill(0, 0, 112) });
    };
    const [own, other] = [
      await logitsOf(NESTED),
      await withCopy(NESTED, (copy) => {
        changeTensors(join(copy, 'model.safetensors'), head);
        return logitsOf(copy);
      }),
    ];
    const v = 162;
    expect(own.length % v).toBe(0);
    const changed = Array.from(own.keys()).filter((i) => own[i] !== other[i]);
    expect(new Set(changed.map((i) => i % v))).toEqual(new Set([0]));
    const missing = await errorOf(() =>
      withCopy(NESTED, (copy) => {
        const text = readJson(join(copy, CONFIG)).text_config as Json;
        changeJson(join(copy, CONFIG), {
          tie_word_embeddings: false,
          text_config: { ...text, tie_word_embeddings: false },
        });
        return logitsOf(copy);
      }),
    );
    expect([missing.code, missing.message]).toEqual(['ERR_WEIGHT_MISSING', expect.stringContaining('lm_head.weight')]);
    // Files of transformers 4 say it in text_config alone.
    const nested = await withCopy(NESTED, (copy) => {
      changeJson(join(copy, CONFIG), { tie_word_embeddings: false });
      return logitsOf(copy);
    });
    expect(compareBits([nested], [own])).toBe('identical');
  });
});
