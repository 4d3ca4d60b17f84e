// What SmolVLM's and Idefics3's files leave out or ask for: as transformers 5.24 reads them, or refused by name. Plans alone, without weights.

import { join } from 'node:path';
import { type Json, readJson } from '../../src/json';
import { planOf } from '../../src/models/load';
import type { Plan } from '../../src/models/plan';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { changeJson, withCopy } from '../support/checkpoint';

const FOLDER = join(FIXTURES, 'smolvlm', 'smolvlm');
const [CONFIG, IMAGES] = ['config.json', 'preprocessor_config.json'];
const vision = readJson(join(FOLDER, CONFIG)).vision_config as Json;
const SIDE = vision.image_size as number;

const planWith = (file: string, changes: Json): Promise<Plan> =>
  withCopy(FOLDER, async (folder) => {
    changeJson(join(folder, file), changes);
    return planOf(folder);
  });

const layoutOf = ({ layout }: Plan, width: number, height: number) =>
  layout({ kind: 'image', width, height, frames: 1 }, { media: 1 });

describe('SmolVLM files', () => {
  it('are read with the defaults of their classes', async () => {
    const { num_attention_heads: _, intermediate_size: __, ...rest } = { ...vision, hidden_size: 64 } as Json;
    expect((await planWith(CONFIG, { vision_config: rest })).tower).toMatchObject({
      heads: 16,
      intermediateSize: 3072,
    });
    const plan = await planWith(IMAGES, { resample: undefined, image_mean: null, image_std: undefined });
    expect(plan.pixels).toEqual(planOf(FOLDER).pixels);
    expect(layoutOf(plan, 50, 40).canvases[0]?.steps[0]).toMatchObject({ filter: 'lanczos' });
  });

  it('show a picture as one tile without splitting, and name the tiles in the prompt with splitting', async () => {
    const whole = layoutOf(await planWith(IMAGES, { do_image_splitting: false }), 90, 30);
    expect(whole.text).toBe('<fake_token_around_image><global-img>\uFFFC<fake_token_around_image>');
    expect(whole.canvases).toHaveLength(1);
    // 90 x 30 becomes 84 x 28, then 84 x 42: one row of two tiles.
    const split = layoutOf(planOf(FOLDER), 90, 30);
    expect(split.text).toBe(
      '<fake_token_around_image><row_1_col_1>\uFFFC<fake_token_around_image><row_1_col_2>\uFFFC\n' +
        '\n<fake_token_around_image><global-img>\uFFFC<fake_token_around_image>',
    );
    expect(split.canvases.map(({ steps }) => steps.at(-1)?.step)).toEqual(['crop', 'crop', 'resize']);
  });

  it('limit sides to 4096 pixels', async () => {
    const plan = await planWith(IMAGES, { size: { longest_edge: 6000 }, do_image_splitting: false });
    const first = layoutOf(plan, 3000, 1000).canvases[0]?.steps[0];
    expect(first).toMatchObject({ to: { width: 4096, height: 1365 } });
  });

  it.each([
    [CONFIG, { scale_factor: 4 }, /divisor of the 6 patches.*scale_factor/],
    [CONFIG, { vision_config: { ...vision, model_type: 'clip_vision_model' } }, /smolvlm_vision.*model_type/],
    [IMAGES, { max_image_size: { longest_edge: SIDE + 1 } }, /image_size 42.*max_image_size/],
    [IMAGES, { size: { height: 84, width: 84 } }, /longest_edge.*size/],
    [IMAGES, { image_processor_type: 'CLIPImageProcessor' }, /SmolVLMImageProcessor.*image_processor_type/],
    [IMAGES, { do_resize: false }, /true.*do_resize/],
    [IMAGES, { do_normalize: false }, /true.*do_normalize/],
  ])('are refused by name: %s %j', async (file, changes, message) => {
    expect((await errorOf(() => planWith(file, changes as Json))).message).toMatch(message);
  });
});
