// What Gemma 3's config and processor files leave out, write otherwise or ask for: as transformers 5.24 reads them (Gemma3Config,
// Gemma3ImageProcessor, Gemma3Processor), or refused by name. Plans and headers alone.

import { join } from 'node:path';
import { inspect, quantize } from '../../src';
import { type Json, readJson } from '../../src/json';
import { planOf } from '../../src/models/load';
import { tokensOf } from '../../src/models/media';
import type { Plan } from '../../src/models/plan';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { changeJson, changeTensors, withCopy } from '../support/checkpoint';

const [SCAN, PLAIN] = ['scan', 'plain'].map((name) => join(FIXTURES, 'gemma3', name)) as [string, string];
const [CONFIG, IMAGES] = ['config.json', 'preprocessor_config.json'];
const text = readJson(join(SCAN, CONFIG)).text_config as Json;

const planWith = (changes: Readonly<Record<string, Json>>): Promise<Plan> =>
  withCopy(SCAN, async (folder) => {
    for (const [file, change] of Object.entries(changes)) changeJson(join(folder, file), change);
    return planOf(folder);
  });
const withText = (change: Json): Promise<Plan> => planWith({ [CONFIG]: { text_config: { ...text, ...change } } });

describe('Gemma 3 files', () => {
  it('the published config of google/gemma-3-4b-it, which leaves most of the decoder to the defaults', async () => {
    const plan = await planWith({
      [CONFIG]: {
        ...{ mm_tokens_per_image: 256, boi_token_index: 255999, eoi_token_index: 256000, image_token_index: 262144 },
        text_config: {
          ...{ hidden_size: 2560, intermediate_size: 10240, model_type: 'gemma3_text', num_hidden_layers: 34 },
          ...{ rope_scaling: { factor: 8.0, rope_type: 'linear' }, sliding_window: 1024 },
        },
        vision_config: {
          ...{ hidden_size: 1152, image_size: 896, intermediate_size: 4304, model_type: 'siglip_vision_model' },
          ...{ num_attention_heads: 16, num_hidden_layers: 27, patch_size: 14, vision_use_head: false },
        },
      },
      [IMAGES]: { size: { height: 896, width: 896 }, do_pan_and_scan: null },
    });
    const { layerTypes = [], ...decoder } = plan.decoder;
    expect(decoder).toMatchObject({
      ...{ heads: 8, kvHeads: 4, headDim: 256, vocabSize: 262208, maxPositions: 131072, rmsNormEps: 1e-6 },
      ...{ ropeTheta: 1e6, ropeScaling: { type: 'linear', factor: 8 }, slidingWindow: 1024, bidirectional: 'media' },
      ...{ localRope: { ropeTheta: 1e4, ropeScaling: { type: 'default' } }, tieWordEmbeddings: true, qkNorm: true },
    });
    expect([decoder.attentionScale, decoder.attentionSoftcap, decoder.finalSoftcap]).toEqual([]);
    expect(layerTypes.flatMap((type, i) => (type === 'full_attention' ? [i] : []))).toEqual([5, 11, 17, 23, 29]);
    const layout = plan.layout({ kind: 'image', width: 3000, height: 500, frames: 1 }, { media: 1 });
    expect([tokensOf(layout), layout.canvases.length, plan.marker]).toEqual([256, 1, { id: 262144 }]);
  });

  it.each([
    ['a square', [1000, 1000], []],
    ['too small for two crops', [300, 200], []],
    ['wide', [1000, 300], ['334x300', '334x300', '332x300']],
    ['tall, at most four', [300, 3000], ['300x750', '300x750', '300x750', '300x750']],
    ['less than twice as wide', [1300, 1000], ['650x1000', '650x1000']],
  ] as const)('pan and scan of a picture that is %s', async (_, [width, height], crops) => {
    const absent = { pan_and_scan_min_crop_size: null, pan_and_scan_max_num_crops: null };
    const plan = await planWith({ [IMAGES]: { ...absent, pan_and_scan_min_ratio_to_activate: null } });
    const { canvases, text: around } = plan.layout({ kind: 'image', width, height, frames: 1 }, { media: 1 });
    const sizes = canvases.flatMap(({ steps: [step] }) =>
      step?.step === 'crop' ? [`${step.to.width}x${step.to.height}`] : [],
    );
    expect(sizes).toEqual(crops);
    expect(around.startsWith('Here is the original image')).toBe(crops.length > 0);
  });

  it('both generations of rotary settings are read alike', () => {
    const [older, newer] = [planOf(SCAN).decoder, planOf(PLAIN).decoder];
    expect([older.ropeTheta, older.ropeScaling, older.localRope]).toEqual([
      newer.ropeTheta,
      newer.ropeScaling,
      newer.localRope,
    ]);
  });

  it.each([
    [CONFIG, { mm_tokens_per_image: 10 }, 'ERR_CONFIG_INVALID', 'mm_tokens_per_image'],
    [IMAGES, { size: { height: 44, width: 40 } }, 'ERR_CONFIG_INVALID', 'size'],
    [IMAGES, { image_processor_type: 'SiglipImageProcessor' }, 'ERR_CONFIG_UNSUPPORTED', 'image_processor_type'],
    [CONFIG, { text_config: { ...text, use_bidirectional_attention: true } }, 'ERR_CONFIG_UNSUPPORTED', 'use_bidirec'],
    [CONFIG, { text_config: { ...text, layer_types: ['linear_attention'] } }, 'ERR_CONFIG_UNSUPPORTED', 'layer_types'],
    [CONFIG, { text_config: { ...text, hidden_activation: 'silu' } }, 'ERR_CONFIG_UNSUPPORTED', 'hidden_activation'],
    [CONFIG, { text_config: { ...text, query_pre_attn_scalar: 0 } }, 'ERR_CONFIG_INVALID', 'query_pre_attn_scalar'],
  ])('%s: a value that is not supported is refused by name', async (file, change, code, key) => {
    const error = await errorOf(() => planWith({ [file]: change }));
    expect([error.code, error.message]).toEqual([code, expect.stringContaining(key)]);
  });

  it('softcaps are read where a file has them', async () => {
    const { decoder } = await withText({ attn_logit_softcapping: 50, final_logit_softcapping: null });
    expect([decoder.attentionSoftcap, decoder.finalSoftcap]).toEqual([50, undefined]);
  });

  it('inspect counts what load would read, and names a norm that is missing', async () => {
    const whole = await inspect(PLAIN, { images: [{ width: 60, height: 40 }] });
    expect([whole.problems, whole.images]).toEqual([[], [{ width: 60, height: 40, tokens: 9, tiles: 1 }]]);
    await withCopy(PLAIN, async (folder) => {
      const name = 'model.language_model.layers.3.post_feedforward_layernorm.weight';
      changeTensors(join(folder, 'model.safetensors'), (tensors) => void tensors.delete(name));
      const { problems } = await inspect(folder);
      expect(problems.map(({ code, tensors }) => [code, tensors])).toEqual([
        ['ERR_WEIGHT_MISSING', ['model.layers.3.post_feedforward_layernorm.weight']],
      ]);
    });
  });

  it('the projector is no linear layer of the checkpoint, so that it cannot be quantized', async () => {
    const out = join(PLAIN, 'never');
    const error = await errorOf(() =>
      quantize({ model: PLAIN, out, modules: ['projector'], method: 'rtn', groupSize: 32 }),
    );
    expect([error.code, error.message]).toEqual(['ERR_OPTION_INVALID', expect.stringContaining('the projector')]);
  });
});
