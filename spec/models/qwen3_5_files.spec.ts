// What files of Qwen3.5 checkpoints omit, and what is refused: as transformers 5.24 reads them (Qwen3_5Config).

import { join } from 'node:path';
import { inspect } from '../../src';
import { type Json, readJson } from '../../src/json';
import { planOf } from '../../src/models/load';
import type { Plan } from '../../src/models/plan';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { changeJson, changeTensors, withCopy } from '../support/checkpoint';

const FOLDER = join(FIXTURES, 'qwen_vl', 'qwen3.5');
const CONFIG = 'config.json';

const planWith = (changes: Json): Promise<Plan> =>
  withCopy(FOLDER, async (copy) => {
    changeJson(join(copy, CONFIG), changes);
    return planOf(copy);
  });
const part = (key: 'text_config' | 'vision_config'): Json => readJson(join(FOLDER, CONFIG))[key] as Json;

describe('Qwen3.5 files', () => {
  it('classes give what a file leaves out', async () => {
    const shown = { out_hidden_size: 4096, patch_size: part('vision_config').patch_size };
    const plan = await planWith({ text_config: { model_type: 'qwen3_5_text' }, vision_config: shown });
    expect(plan.decoder).toMatchObject({
      ...{ hiddenSize: 4096, intermediateSize: 12288, layers: 32, heads: 16, kvHeads: 4, headDim: 256, rotaryDim: 64 },
      ...{ vocabSize: 248320, maxPositions: 32768, rmsNormEps: 1e-6, ropeTheta: 1e4, qkNorm: true, normOffset: true },
      ...{ attentionGate: true, attentionBias: { qkv: false, o: false }, tieWordEmbeddings: false },
      delta: { keyHeads: 16, valueHeads: 32, keyWidth: 128, valueWidth: 128, taps: 4 },
    });
    const full = (plan.decoder.layerTypes ?? []).flatMap((type, i) => (type === 'full_attention' ? [i] : []));
    expect(full).toEqual([3, 7, 11, 15, 19, 23, 27, 31]);
    const axes = Array.from(plan.decoder.ropeAxes ?? []);
    expect([0, 1, 2].map((axis) => axes.filter((one) => one === axis).length)).toEqual([11, 11, 10]);
    expect(plan.tower).toMatchObject({ layers: 27, hiddenSize: 1152, heads: 16, resampledSide: 48, deepstack: [] });
    expect(plan.deepstack).toBeUndefined();
  });

  it.each([
    [{ layer_types: ['full_attention'] }, 'ERR_CONFIG_UNSUPPORTED', 'layer_types'],
    [{ layer_types: new Array(5).fill('sliding_attention') }, 'ERR_CONFIG_UNSUPPORTED', 'layer_types'],
    [{ attn_output_gate: false }, 'ERR_CONFIG_UNSUPPORTED', 'attn_output_gate'],
    [{ linear_num_value_heads: 3 }, 'ERR_CONFIG_INVALID', 'linear_num_value_heads'],
    [{ linear_conv_kernel_dim: 17 }, 'ERR_CONFIG_INVALID', 'linear_conv_kernel_dim'],
    [{ hidden_act: 'gelu' }, 'ERR_CONFIG_UNSUPPORTED', 'hidden_act'],
    [{ rope_parameters: { rope_theta: 1e4, partial_rotary_factor: 2 } }, 'ERR_CONFIG_INVALID', 'partial_rotary_factor'],
    [{ rope_parameters: { rope_theta: 1e4, mrope_section: [3, 2, 1] } }, 'ERR_CONFIG_INVALID', 'mrope_section'],
  ])('text_config with %j is refused: %s, naming %s', async (changes, code, key) => {
    const error = await errorOf(() => planWith({ text_config: { ...part('text_config'), ...changes } }));
    expect([error.code, error.message]).toEqual([code, expect.stringContaining(key)]);
  });

  it('deepstack is refused', async () => {
    const vision_config = { ...part('vision_config'), deepstack_visual_indexes: [1] };
    expect((await errorOf(() => planWith({ vision_config }))).message).toContain('deepstack_visual_indexes');
  });

  it('inspect counts states apart from rows, and reads every tensor but those of multi-token prediction', async () => {
    const { kvBytesPerToken, stateBytes, problems, zeroBiases } = await inspect(FOLDER);
    expect([problems, zeroBiases]).toEqual([[], []]);
    // One layer of five attends, with two heads of 40.
    expect(kvBytesPerToken).toEqual({ bf16: 2 * 2 * 40 * 2, f32: 2 * 2 * 40 * 4 });
    // Four layers: four matrices of 20 x 24, padded to 32 columns, and three rows of queries, keys and values.
    expect(stateBytes).toBe(4 * 4 * (4 * 20 * 32 + 3 * (2 * 40 + 96)));
  });

  it.each(['A_log', 'conv1d.weight', 'in_proj_z.weight'])('a checkpoint without %s is no checkpoint', async (name) => {
    const tensor = `model.language_model.layers.1.linear_attn.${name}`;
    const { problems } = await withCopy(FOLDER, async (copy) => {
      changeTensors(join(copy, 'model.safetensors'), (tensors) => tensors.delete(tensor));
      return inspect(copy);
    });
    expect(problems.map(({ code }) => code)).toContain('ERR_WEIGHT_MISSING');
  });
});
