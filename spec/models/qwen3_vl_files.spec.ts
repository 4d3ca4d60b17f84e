// What files of Qwen3-VL checkpoints omit, and what is refused: as transformers 5.24 reads them (Qwen3VLConfig, Qwen3VLProcessor).

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Json, readJson } from '../../src/json';
import { planOf } from '../../src/models/load';
import type { Plan } from '../../src/models/plan';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { changeJson, withCopy } from '../support/checkpoint';

const QWEN3 = join(FIXTURES, 'qwen_vl', 'qwen3-vl');
const CONFIG = 'config.json';
const IMAGES = 'preprocessor_config.json';
const VIDEOS = 'video_preprocessor_config.json';

const planWith = (changes: Json): Promise<Plan> =>
  withCopy(QWEN3, async (copy) => {
    changeJson(join(copy, CONFIG), changes);
    return planOf(copy);
  });

describe('Qwen3-VL files', () => {
  it("the base of the tower's rotations", async () => {
    const { vision_config: own } = readJson(join(QWEN3, CONFIG)) as Record<string, Json>;
    for (const [theta, rope] of [
      [77, { rope_type: 'default', rope_theta: 77 }],
      [1e4, { rope_type: 'axial' }],
    ] as const) {
      const plan = await planWith({ vision_config: { ...own, rope_parameters: rope } });
      expect(plan.tower.ropeTheta).toBe(theta);
    }
  });

  it('classes give what a file leaves out', async () => {
    const { text_config: text, vision_config: own } = readJson(join(QWEN3, CONFIG)) as Record<string, Json>;
    const shown = { out_hidden_size: 4096, patch_size: 16 };
    const plan = await withCopy(QWEN3, async (copy) => {
      changeJson(join(copy, CONFIG), { text_config: { model_type: text?.model_type }, vision_config: shown });
      writeFileSync(join(copy, IMAGES), JSON.stringify({ image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5] }));
      writeFileSync(join(copy, VIDEOS), '{}');
      return planOf(copy);
    });
    expect(plan.decoder).toMatchObject({
      ...{ hiddenSize: 4096, intermediateSize: 22016, layers: 32, heads: 32, kvHeads: 32, headDim: 128 },
      ...{ vocabSize: 151936, maxPositions: 128000, rmsNormEps: 1e-6, ropeTheta: 5e5, qkNorm: true },
      attentionBias: { qkv: false, o: false },
    });
    const axes = Array.from(plan.decoder.ropeAxes ?? []);
    expect(axes.slice(0, 6)).toEqual([0, 1, 2, 0, 1, 2]);
    expect(axes.slice(57)).toEqual([0, 1, 2, 0, 0, 0, 0]);
    expect(plan.tower).toMatchObject({
      ...{ layers: 27, hiddenSize: 1152, intermediateSize: 4304, heads: 16, patchSize: 16, resampledSide: 48 },
      ...{ deepstack: [9, 17, 25], activation: 'gelu_pytorch_tanh', norm: 'layer', patchBias: true },
    });
    expect(plan.deepstack).toHaveLength(3);
    expect(own).toMatchObject({ deepstack_visual_indexes: [0, 2] });
  });

  it('a video is a run for each pair of frames, with its time as Python writes it', () => {
    const { layout } = planOf(QWEN3);
    const textOf = (frames: number, fps?: number): string =>
      layout({ kind: 'video', width: 200, height: 150, frames, ...(fps !== undefined && { fps }) }, { media: 1 }).text;
    const times = (text: string): string[] =>
      Array.from(text.matchAll(/<([\d.]+) seconds>/g), ([, time]) => time ?? '');
    expect(textOf(1, 2)).toBe('<0.0 seconds><|vision_start|>\uFFFC<|vision_end|>');
    // (0 + 0.5) / 2 = 0.25 and 1.25 lie between two tenths: the even one counts. 0.75 -> 0.8.
    expect(times(textOf(6, 2))).toEqual(['0.2', '1.2', '2.2']);
    expect(times(textOf(4, 1))).toEqual(['0.5', '2.5']);
    expect(times(textOf(5, 1 / 1.5))).toEqual(['0.8', '3.8', '6.0']);
    expect(times(textOf(3))).toEqual(['0.0', '0.1']);
  });

  it.each([
    [{ deepstack_visual_indexes: [2, 0] }, 'ERR_CONFIG_INVALID', 'deepstack_visual_indexes'],
    [{ deepstack_visual_indexes: [4] }, 'ERR_CONFIG_INVALID', 'deepstack_visual_indexes'],
    [{ num_position_embeddings: 24 }, 'ERR_CONFIG_INVALID', 'num_position_embeddings'],
    [{ out_hidden_size: 40 }, 'ERR_CONFIG_INVALID', 'out_hidden_size'],
    [{ num_heads: 4 }, 'ERR_CONFIG_INVALID', 'num_heads'],
  ])('vision_config with %j is refused: %s, naming %s', async (changes, code, key) => {
    const own = readJson(join(QWEN3, CONFIG)).vision_config as Json;
    const error = await errorOf(() => planWith({ vision_config: { ...own, ...changes } }));
    expect([error.code, error.message]).toEqual([code, expect.stringContaining(key)]);
  });

  it.each([
    [{ mrope_interleaved: false }, 'ERR_CONFIG_UNSUPPORTED', 'mrope_interleaved'],
    [{ mrope_section: [4, 4, 3] }, 'ERR_CONFIG_INVALID', 'mrope_section'],
  ])('rope_scaling with %j is refused: %s, naming %s', async (changes, code, key) => {
    const text = readJson(join(QWEN3, CONFIG)).text_config as Json;
    const scaling = { ...(text.rope_scaling as Json), ...changes };
    const error = await errorOf(() => planWith({ text_config: { ...text, rope_scaling: scaling } }));
    expect([error.code, error.message]).toEqual([code, expect.stringContaining(key)]);
  });
});
