// What LLaVA-OneVision's config and processor files leave out, write otherwise or ask for: as transformers 5.24 reads them, or refused by
// name. Plans alone, without weights.

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Json } from '../../src/json';
import { planOf } from '../../src/models/load';
import { tokensOf } from '../../src/models/media';
import type { Plan } from '../../src/models/plan';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { changeJson, withCopy } from '../support/checkpoint';

const FOLDER = join(FIXTURES, 'llava_onevision', 'tied');
const [CONFIG, IMAGES, VIDEOS] = ['config.json', 'preprocessor_config.json', 'video_preprocessor_config.json'];

const planWith = (changes: Readonly<Record<string, Json>>): Promise<Plan> =>
  withCopy(FOLDER, async (folder) => {
    for (const [file, change] of Object.entries(changes)) changeJson(join(folder, file), change);
    return planOf(folder);
  });

describe('LLaVA-OneVision files', () => {
  it('absent settings take the defaults of the classes: SigLIP at 384 pixels, 36 resolutions, anyres_max_9', async () => {
    const absent = { vision_config: undefined, image_grid_pinpoints: undefined, vision_aspect_ratio: undefined };
    const images = { size: undefined, image_grid_pinpoints: undefined, image_mean: undefined, image_std: undefined };
    const plan = await planWith({
      [CONFIG]: { ...absent, vision_feature_layer: undefined },
      [IMAGES]: images,
      [VIDEOS]: images,
    });
    expect(plan.tower).toMatchObject({ imageSize: 384, patchSize: 14, layers: 26, depth: 26, heads: 16 });
    const layout = (width: number, height: number, images: number) =>
      plan.layout({ kind: 'image', width, height, frames: 1 }, { media: 2, images });
    // As the processor of llava-onevision-qwen2-7b-ov-hf counts: the base, then 9 squares of 27 at most.
    expect([tokensOf(layout(384, 384, 1)), tokensOf(layout(2304, 2304, 1))]).toEqual([729 + 729, 729 + 81 * 81]);
    expect([layout(384, 384, 2), layout(2304, 2304, 2)].map(tokensOf)).toEqual([729, 729]);
    const film = plan.layout({ kind: 'video', width: 90, height: 40, frames: 5 }, { media: 1, images: 0 });
    expect([tokensOf(film), film.runs]).toEqual([5 * 196, [{ grid: 0, from: 0, to: 5 * 196, newlines: 1 }]]);
  });

  it('without their own file, videos use the settings of images', async () => {
    const plan = await withCopy(FOLDER, async (folder) => {
      rmSync(join(folder, VIDEOS));
      return planOf(folder);
    });
    expect(plan.pixels).toEqual(planOf(FOLDER).pixels);
  });

  it.each([
    [CONFIG, { vision_aspect_ratio: 'anyres' }, 'ERR_CONFIG_UNSUPPORTED', 'vision_aspect_ratio'],
    [CONFIG, { vision_feature_select_strategy: 'default' }, 'ERR_CONFIG_UNSUPPORTED', 'vision_feature_select_strategy'],
    [CONFIG, { vision_config: { model_type: 'clip_vision_model' } }, 'ERR_CONFIG_UNSUPPORTED', 'model_type'],
    [IMAGES, { size: { height: 30, width: 24 } }, 'ERR_CONFIG_INVALID', 'size'],
    [IMAGES, { do_center_crop: true }, 'ERR_CONFIG_UNSUPPORTED', 'do_center_crop'],
    [IMAGES, { image_processor_type: 'SiglipImageProcessor' }, 'ERR_CONFIG_UNSUPPORTED', 'image_processor_type'],
    [VIDEOS, { image_mean: [0, 0, 0] }, 'ERR_CONFIG_UNSUPPORTED', 'image_mean'],
    [VIDEOS, { size: { height: 12, width: 12 } }, 'ERR_CONFIG_INVALID', 'size'],
    [VIDEOS, { video_processor_type: 'Qwen2VLVideoProcessor' }, 'ERR_CONFIG_UNSUPPORTED', 'video_processor_type'],
  ])('%s with %j is refused: %s, naming %s', async (file, changes, code, key) => {
    const error = await errorOf(() => planWith({ [file]: changes }));
    expect(error.code).toBe(code);
    expect(error.message).toContain(key);
    expect(error.message).toContain(file);
  });
});
