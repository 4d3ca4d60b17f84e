// Unsupported settings of a checkpoint that would change the result, and unusable numbers: each is refused
// with the file and the key, and with a code that distinguishes an unsupported model from a wrong file.

import { rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { load } from '../../src';
import { errorOf } from '../image/fixtures';
import { vilaCase } from '../support/assets';
import { changeJson, changeTensors, withCopy } from '../support/checkpoint';
import { withoutLeak } from '../support/leaks';

const BASE = vilaCase('linear');
const UNSUPPORTED = 'ERR_CONFIG_UNSUPPORTED';
const INVALID = 'ERR_CONFIG_INVALID';
const PIXELS = 'ERR_PREPROCESSOR_CONFIG';
const encoder = (settings: Record<string, unknown>) => ({ image_encoder: JSON.stringify(settings) });
const basic = '_target_';
const BASIC = 'llava.model.encoders.BasicImageEncoder';
const rope = (scaling: Record<string, unknown>) => ({ rope_scaling: scaling });

type Row = readonly [file: string, changes: Record<string, unknown>, code: string, key: string];
const ROWS: readonly Row[] = [
  ...['s2', 'dynamic_s2', 'ps3', 'mm_use_im_start_end'].map(
    (key): Row => ['config.json', { [key]: true }, UNSUPPORTED, key],
  ),
  ['config.json', { image_aspect_ratio: 'anyres' }, UNSUPPORTED, 'image_aspect_ratio'],
  ['config.json', { mm_vision_select_feature: 'patch' }, UNSUPPORTED, 'mm_vision_select_feature'],
  ['config.json', { mm_vision_select_layer: 0.5 }, INVALID, 'mm_vision_select_layer'],
  ['config.json', { vision_resolution: 896 }, UNSUPPORTED, 'vision_resolution'],
  ['config.json', { llm_cfg: 'other/weights' }, UNSUPPORTED, 'llm_cfg'],
  ['config.json', encoder({ [basic]: 'llava.model.encoders.TSPImageEncoder' }), UNSUPPORTED, 'image_encoder._target_'],
  ['config.json', encoder({}), INVALID, 'image_encoder._target_'],
  ['config.json', encoder({ [basic]: BASIC, pool_sizes: [2] }), UNSUPPORTED, 'image_encoder.pool_sizes'],
  ['config.json', encoder({ [basic]: BASIC, start_tokens: 5 }), INVALID, 'image_encoder.start_tokens'],
  ['config.json', { image_encoder: '[]' }, INVALID, 'image_encoder'],
  // The decoder.
  ['llm/config.json', { hidden_size: 2 ** 31 }, INVALID, 'hidden_size'],
  ['llm/config.json', { hidden_size: 2 ** 32 + 64 }, INVALID, 'hidden_size'],
  ['llm/config.json', { num_attention_heads: 2 ** 30, head_dim: 64 }, INVALID, 'num_attention_heads'],
  ['llm/config.json', { max_position_embeddings: 2 ** 53 }, INVALID, 'max_position_embeddings'],
  ['llm/config.json', { rms_norm_eps: -1e-6 }, INVALID, 'rms_norm_eps'],
  ['llm/config.json', { rms_norm_eps: 1e-50 }, INVALID, 'rms_norm_eps'],
  ['llm/config.json', { rms_norm_eps: 1e39 }, INVALID, 'rms_norm_eps'],
  ['llm/config.json', { rope_theta: 0 }, INVALID, 'rope_theta'],
  ['llm/config.json', { rope_theta: 1e300 }, INVALID, 'rope_theta'],
  ['llm/config.json', { rope_theta: 5e-324 }, INVALID, 'rope_theta'],
  ['llm/config.json', rope({ type: 'yarn', factor: 4 }), UNSUPPORTED, 'rope_scaling.type'],
  ['llm/config.json', rope({ type: 'linear', factor: 1e39 }), INVALID, 'rope_scaling.factor'],
  ['llm/config.json', rope({ factor: 2 }), INVALID, 'rope_scaling.rope_type'],
  ['llm/config.json', rope({ type: 'linear', rope_type: 'default', factor: 2 }), INVALID, 'rope_scaling.type'],
  ['llm/config.json', rope({ type: 'default', mrope_section: [2, 3, 3] }), UNSUPPORTED, 'rope_scaling.mrope_section'],
  [
    'llm/config.json',
    rope({ rope_type: 'llama3', factor: 2, low_freq_factor: 0, high_freq_factor: 4 }),
    INVALID,
    'rope_scaling.low_freq_factor',
  ],
  [
    'llm/config.json',
    { ...rope({ type: 'linear', factor: 2 }), rope_parameters: { rope_type: 'default', rope_theta: 1e4 } },
    INVALID,
    'rope_scaling',
  ],
  [
    'llm/config.json',
    { rope_parameters: { full_attention: { rope_theta: 5 } } },
    UNSUPPORTED,
    'rope_parameters.full_attention',
  ],
  ['llm/config.json', { layer_types: ['full_attention', 'sliding_attention'] }, UNSUPPORTED, 'layer_types'],
  [
    'llm/config.json',
    { use_sliding_window: true, sliding_window: 16, max_window_layers: 0 },
    UNSUPPORTED,
    'use_sliding_window',
  ],
  ...['attn_logit_softcapping', 'final_logit_softcapping', 'clip_qkv', 'logits_scaling', 'query_pre_attn_scalar'].map(
    (key): Row => ['llm/config.json', { [key]: 30 }, UNSUPPORTED, key],
  ),
  ['llm/config.json', { partial_rotary_factor: 0.5 }, UNSUPPORTED, 'partial_rotary_factor'],
  ['llm/config.json', { hidden_act: 'gelu' }, UNSUPPORTED, 'hidden_act'],
  ['llm/config.json', { eos_token_id: '426' }, INVALID, 'eos_token_id'],
  // The tower and its pictures.
  ['vision_tower/config.json', { num_channels: 1 }, UNSUPPORTED, 'num_channels'],
  ['vision_tower/config.json', { layer_norm_eps: 1e-60 }, INVALID, 'layer_norm_eps'],
  ['vision_tower/preprocessor_config.json', { image_std: [0.5, 0, 0.5] }, PIXELS, 'image_std'],
  ['vision_tower/preprocessor_config.json', { image_std: [0.5, 1e-60, 0.5] }, PIXELS, 'image_std'],
  ['vision_tower/preprocessor_config.json', { image_mean: [0.5, 0.5] }, PIXELS, 'image_mean'],
  ['vision_tower/preprocessor_config.json', { image_mean: [0.5, 0.5, 1e39] }, PIXELS, 'image_mean'],
  ['vision_tower/preprocessor_config.json', { rescale_factor: 1e39 }, PIXELS, 'rescale_factor'],
  ['vision_tower/preprocessor_config.json', { do_image_splitting: true }, PIXELS, 'do_image_splitting'],
  ['vision_tower/preprocessor_config.json', { do_center_crop: true, crop_size: 20 }, PIXELS, 'crop_size'],
  ['vision_tower/preprocessor_config.json', { do_normalize: 'yes' }, PIXELS, 'do_normalize'],
  // Answers.
  ['llm/generation_config.json', { num_beams: 4 }, UNSUPPORTED, 'num_beams'],
  ['llm/generation_config.json', { no_repeat_ngram_size: 3 }, UNSUPPORTED, 'no_repeat_ngram_size'],
  ['llm/generation_config.json', { stop_strings: ['.'] }, UNSUPPORTED, 'stop_strings'],
  ['llm/generation_config.json', { repetition_penalty: 0 }, INVALID, 'repetition_penalty'],
  ['llm/generation_config.json', { eos_token_id: [1.5] }, INVALID, 'eos_token_id'],
];

beforeAll(async () => {
  // The first load makes constants that are kept for the process.
  (await load(BASE)).dispose();
});

it.each(ROWS)('%s: %j', async (file, changes, code, key) => {
  await withCopy(BASE, async (folder) => {
    changeJson(join(folder, file), changes);
    const error = await withoutLeak(() => errorOf(() => load(folder)));
    expect(error.code).toBe(code);
    expect(error.message).toContain(code === PIXELS ? ` ${key}` : `"${key}"`);
    expect(error.message).toContain(join(folder, file));
    expect(error.message.length).toBeLessThan(1500);
  });
});

describe('texts that are no JSON of a config', () => {
  const deep = (n: number): string => '['.repeat(n) + ']'.repeat(n);
  it.each<[string, string, RegExp]>([
    ['deep arrays', `{"a": ${deep(100_000)}}`, /nested at most 500 levels/],
    ['deep objects', '{"a":'.repeat(100_000), /nested at most 500 levels/],
    ['values without end', `{"a":[${'[],'.repeat(9_000_000)}[]]}`, /at most 8000000 values/],
    ['a comment', '{"a": 1} // b', /expected JSON, but/],
    ['nothing', '', /expected JSON, but/],
    ['a constant of JavaScript', '{"a": undefined}', /expected JSON, but/],
  ])('%s', async (_, text, message) => {
    await withCopy(BASE, async (folder) => {
      writeFileSync(join(folder, 'llm/config.json'), text);
      const error = await errorOf(() => load(folder));
      expect([error.code, error.message]).toEqual([INVALID, expect.stringMatching(message)]);
      expect(error.message).toContain('llm/config.json');
    });
  });

  it('a file beyond the limit, before it is read', async () => {
    await withCopy(BASE, async (folder) => {
      writeFileSync(join(folder, 'llm/config.json'), Buffer.alloc(65 * 2 ** 20, ' '));
      const error = await errorOf(() => load(folder));
      expect([error.code, error.message]).toEqual(['ERR_FILE_TOO_LARGE', expect.stringContaining('llm/config.json')]);
    });
  });

  it('an infinite number where one is used', async () => {
    await withCopy(BASE, async (folder) => {
      for (const value of ['NaN', 'Infinity', '1e999']) {
        writeFileSync(join(folder, 'llm/config.json'), `{"model_type": "qwen2", "rope_theta": ${value}}`);
        const error = await errorOf(() => load(folder));
        const received = value === 'NaN' ? 'NaN' : 'Infinity';
        expect([error.code, error.message]).toEqual([
          INVALID,
          expect.stringMatching(`"rope_theta", received "?${received}`),
        ]);
      }
    });
  });
});

describe('weights that are no numbers', () => {
  const NORM = 'model.layers.0.input_layernorm.weight';
  it.each<[file: string, name: string, element: number, value: number]>([
    ['llm', NORM, 3, Number.NaN],
    ['llm', 'model.layers.1.self_attn.v_proj.weight', 70, Number.POSITIVE_INFINITY],
    ['llm', 'model.layers.1.mlp.up_proj.weight', 100, Number.NaN],
    ['llm', 'model.layers.1.mlp.gate_proj.weight', 5, Number.NEGATIVE_INFINITY],
    ['llm', 'model.layers.0.self_attn.k_proj.bias', 1, Number.NEGATIVE_INFINITY],
    ['llm', 'lm_head.weight', 400, Number.NaN],
    ['vision_tower', 'vision_model.embeddings.position_embedding.weight', 9, Number.NaN],
    ['mm_projector', 'layers.weight', 77, Number.POSITIVE_INFINITY],
  ])('%s: %s, element %i is %d', async (part, name, element, value) => {
    await withCopy(BASE, async (folder) => {
      const file = join(folder, part, 'model.safetensors');
      changeTensors(file, (all) => {
        const tensor = all.get(name);
        if (tensor?.dtype !== 'F32') throw new Error(`no f32 ${name} in ${[...all.keys()]}`);
        const data = Buffer.from(tensor.data);
        data.writeFloatLE(value, 4 * element);
        all.set(name, { ...tensor, data });
      });
      const error = await withoutLeak(() => errorOf(() => load(folder)));
      expect(error.code).toBe('ERR_WEIGHT_VALUE');
      expect(error.message).toContain(file);
      expect(error.message).toContain(`received ${value} at element ${element}`);
      expect(error.message).toContain(name.replace('vision_model.', ''));
    });
  });

  it('are distinguished from a data type that cannot hold them', async () => {
    await withCopy(BASE, async (folder) => {
      changeTensors(join(folder, 'mm_projector/model.safetensors'), (all) => {
        const tensor = all.get('layers.weight');
        if (tensor?.dtype !== 'F32') throw new Error('no layers.weight');
        const data = Buffer.from(tensor.data);
        data.writeFloatLE(1e6, 4);
        all.set('layers.weight', { ...tensor, data });
      });
      (await load(folder)).dispose();
      const error = await errorOf(() => load(folder, { weights: 'f16' }));
      expect([error.code, error.message]).toEqual([
        'ERR_WEIGHT_VALUE',
        expect.stringMatching(/too large for f16.*option "weights"/),
      ]);
    });
  });

  it('are allowed in rows of the embedding that no token uses', async () => {
    await withCopy(BASE, async (folder) => {
      changeTensors(join(folder, 'llm/model.safetensors'), (all) => {
        const name = 'model.embed_tokens.weight';
        const tensor = all.get(name);
        if (tensor?.dtype !== 'F32') throw new Error(`no ${name}`);
        const data = Buffer.from(tensor.data);
        data.writeFloatLE(Number.NaN, data.length - 4);
        all.set(name, { ...tensor, data });
      });
      const model = await load(folder);
      expect(model.path).toBe(folder);
      model.dispose();
    });
  });
});

describe('a tensor that the config implies', () => {
  it('the head, unless the config says that it is the embedding', async () => {
    await withCopy(BASE, async (folder) => {
      changeTensors(join(folder, 'llm/model.safetensors'), (all) => all.delete('lm_head.weight'));
      for (const [tied, code] of [
        [false, 'ERR_WEIGHT_MISSING'],
        [undefined, 'ERR_WEIGHT_MISSING'],
        [true, undefined],
      ] as const) {
        changeJson(join(folder, 'llm/config.json'), { tie_word_embeddings: tied });
        const error = await load(folder).then(
          (model) => model.dispose(),
          (reason: unknown) => reason as { code: string; message: string },
        );
        expect([error?.code, error?.message ?? 'lm_head.weight']).toEqual([
          code,
          expect.stringContaining('lm_head.weight'),
        ]);
      }
    });
  });

  it('one tensor, where two names stand for it', async () => {
    await withCopy(BASE, async (folder) => {
      changeTensors(join(folder, 'vision_tower/model.safetensors'), (all) => {
        const name = 'vision_model.encoder.layers.0.layer_norm1.weight';
        const tensor = all.get(name);
        if (tensor === undefined) throw new Error(`no ${name}`);
        all.set(name.replace('vision_model.', ''), tensor);
      });
      const message = expect.stringMatching(/"encoder.*" and "vision_model.*" in|"vision_model.*" and "encoder.*" in/);
      expect(await errorOf(() => load(folder))).toMatchObject({ code: 'ERR_WEIGHT_EXTRA', message });
    });
  });

  it('a generation config whose link leads nowhere', async () => {
    await withCopy(BASE, async (folder) => {
      const file = join(folder, 'llm/generation_config.json');
      rmSync(file, { force: true });
      symlinkSync('../blobs/none', file);
      expect(await errorOf(() => load(folder))).toMatchObject({
        code: 'ERR_FILE_UNREADABLE',
        message: expect.stringContaining(file),
      });
    });
  });

  it('an adapter, and a bias that the config does not know', async () => {
    await withCopy(BASE, async (folder) => {
      const data = new Uint8Array(new Float32Array(52).fill(1).buffer);
      changeTensors(join(folder, 'llm/model.safetensors'), (all) =>
        all.set('model.layers.0.self_attn.o_proj.bias', { dtype: 'F32', shape: [52], data }),
      );
      expect(await errorOf(() => load(folder))).toMatchObject({
        code: 'ERR_WEIGHT_EXTRA',
        message: expect.stringContaining('o_proj.bias'),
      });
    });
    await withCopy(BASE, async (folder) => {
      writeFileSync(join(folder, 'adapter_config.json'), '{}');
      expect(await errorOf(() => load(folder))).toMatchObject({
        code: UNSUPPORTED,
        message: expect.stringContaining('adapter_config.json'),
      });
    });
  });
});
