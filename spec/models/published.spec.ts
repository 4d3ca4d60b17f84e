// The quantized checkpoints that people publish, of every family: each fixture written in each format, with the configs and the left-out modules
// of published folders, answers like a copy that holds the same numbers as floats. Formats: spec/support/published.ts.

import { join } from 'node:path';
import { convert, inspect, load, quantize } from '../../src';
import { type Json, readJson } from '../../src/json';
import type { LoadOptions } from '../../src/models/model';
import { nmse } from '../../testing/ops/tolerance';
import { FIXTURES } from '../support/assets';
import { readShards, replaceShards, withCopy } from '../support/checkpoint';
import { formula } from '../support/family_suite';
import { compareBits } from '../support/nmse';
import { awqGemm, compressed, float8, gptq, groupFor, type Published, publish } from '../support/published';
import { recordTurn } from '../support/turn';

const FAMILIES = [
  ...['llava/llava-llama', 'llava_next/vicuna', 'llava_onevision/large', 'internvl/layer', 'internvl/qwen3'],
  ...[
    'qwen_vl/qwen2-vl',
    'qwen_vl/qwen2.5-vl',
    'qwen_vl/qwen3-vl',
    'qwen_vl/qwen3.5',
    'gemma3/plain',
    'smolvlm/smolvlm',
    'nvila/tiles',
  ],
];
/** Logits after a few layers of products on 4-bit weights with two planes of 8-bit activations. */
const EXACT_NMSE = 1e-6;

const groups = (weights: Json, ignore: readonly string[]): Json => ({
  ...{ quant_method: 'compressed-tensors', format: 'pack-quantized', quantization_status: 'compressed' },
  config_groups: {
    group_0: {
      targets: ['Linear'],
      weights: { num_bits: 4, type: 'int', dynamic: false, ...weights },
      input_activations: null,
    },
  },
  ...{ ignore, kv_cache_scheme: null },
});
const isLayer = (name: string, layer: number, module: RegExp): boolean =>
  name.includes(`.layers.${layer}.`) && module.test(name);
const eight = { num_bits: 8, type: 'float', symmetric: true, dynamic: false };
const floatGroups = (weights: Json): Json => ({
  ...groups({}, ['lm_head', 're:.*visual.*']),
  format: 'float-quantized',
  config_groups: {
    group_0: {
      targets: ['Linear'],
      weights: { ...eight, ...weights },
      input_activations: { ...eight, strategy: 'token', dynamic: true },
    },
  },
});

const FORMATS: readonly Published[] = [
  {
    name: 'AutoAWQ',
    config: () => ({
      quant_method: 'awq',
      bits: 4,
      zero_point: true,
      version: 'gemm',
      modules_to_not_convert: ['visual', 'vision_model'],
    }),
    pack: awqGemm,
  },
  {
    // As Qwen3-VL and Gemma are published: expressions, and one of q, k and v in float beside quantized ones.
    name: 'compressed-tensors, symmetric groups, a float v_proj',
    config: (left) =>
      groups({ strategy: 'group', group_size: 32, symmetric: true }, [
        'lm_head',
        're:.*visual.*',
        're:.*vision_tower.*',
        ...left,
      ]),
    pack: (linear) =>
      isLayer(linear.name, 0, /v_proj/) || linear.k % 32 !== 0 ? undefined : compressed(linear, 32, true),
  },
  {
    name: 'compressed-tensors, whole rows, asymmetric, a float down_proj',
    config: (left) => groups({ strategy: 'channel', group_size: null, symmetric: false }, left),
    pack: (linear) => (isLayer(linear.name, 1, /down_proj/) ? undefined : compressed(linear, linear.k, false)),
  },
  {
    name: 'compressed-tensors, attention and MLP in groups of their own',
    config: () => ({
      ...groups({}, ['lm_head']),
      config_groups: {
        a: {
          targets: ['re:model\\.language_model\\.layers\\..*self_attn', 're:.*\\.text_model\\..*self_attn'],
          weights: { num_bits: 4, type: 'int', strategy: 'channel', symmetric: true },
        },
        b: {
          targets: ['re:language_model\\.model\\.layers\\..*mlp', 're:.*\\.text_model\\..*mlp'],
          weights: { num_bits: 4, type: 'int', strategy: 'channel', symmetric: false },
        },
      },
    }),
    pack: (linear) => compressed(linear, linear.k, linear.name.includes('self_attn')),
  },
  {
    name: 'GPTQ',
    config: () => ({ quant_method: 'gptq', bits: 4, desc_act: false, sym: true, checkpoint_format: 'gptq' }),
    pack: (linear) => gptq(linear, groupFor(linear.k), 1, false),
  },
  {
    name: 'GPTQ v2, reordered inputs, and rules',
    config: () => ({
      ...{ quant_method: 'gptq', bits: 4, group_size: -1, desc_act: true, sym: false, checkpoint_format: 'gptq_v2' },
      dynamic: { '-:.*\\.0\\..*k_proj': {}, '+:.*mlp': { group_size: 16 } },
    }),
    pack: (linear) => {
      if (isLayer(linear.name, 0, /k_proj/)) return undefined;
      return linear.name.includes('mlp') ? gptq(linear, 16, 2, true) : gptq(linear, linear.k, 2, false);
    },
  },
];

const FLOATS: readonly Published[] = [
  {
    name: 'fp8 in blocks',
    config: () => ({
      quant_method: 'fp8',
      activation_scheme: 'dynamic',
      fmt: 'e4m3',
      weight_block_size: [48, 40],
      modules_to_not_convert: ['lm_head', 'model.visual'],
    }),
    pack: (linear) => float8(linear, [48, 40], { scale: 'weight_scale_inv', dtype: 'F32' }),
  },
  {
    name: 'float-quantized, a scale per output, of all parts',
    config: () => floatGroups({ strategy: 'channel' }),
    pack: (linear) => float8(linear, [1, linear.k], { scale: 'weight_scale', dtype: 'BF16' }),
    all: true,
  },
  {
    name: 'float-quantized, one scale and a fixed scale of activations',
    config: () => floatGroups({ strategy: 'tensor' }),
    pack: (linear) => {
      const { tensors, values } = float8(linear, [linear.rows, linear.k], {
        scale: 'weight_scale',
        dtype: 'F32',
        shape: [],
      });
      return { values, tensors: { ...tensors, input_scale: { dtype: 'F32', shape: [1], data: new Uint8Array(4) } } };
    },
  },
];

async function promptOf(folder: string, options: LoadOptions = {}): Promise<Float32Array> {
  using model = await load(folder, options);
  const images = [formula(60, 44)];
  return (await recordTurn(model, { images, question: 'What?', kv: 'f32', maxTokens: 1 })).promptLogits;
}

const withBoth = (name: string, work: (packed: string, plain: string) => Promise<void>): Promise<void> =>
  withCopy(join(FIXTURES, name), (packed) => withCopy(join(FIXTURES, name), (plain) => work(packed, plain)));

describe.each(FAMILIES)('%s', (name) => {
  it.each(FORMATS)('$name', (format) =>
    withBoth(name, async (packed, plain) => {
      const count = publish(packed, plain, format);
      const { parts, problems } = await inspect(packed);
      expect(problems).toEqual([]);
      const quantized = Object.keys(parts.decoder.formats).filter((form) => form.startsWith('4 bits'));
      if (count > 0) expect(quantized.length).toBeGreaterThan(0);
      const [answer, expected] = [await promptOf(packed), await promptOf(plain)];
      expect(nmse(answer, expected)).toBeLessThanOrEqual(EXACT_NMSE);
    }),
  );

  it.each(FLOATS)('$name', (format) =>
    withBoth(name, async (packed, plain) => {
      expect(publish(packed, plain, format)).toBeGreaterThan(0);
      const { parts, problems } = await inspect(packed);
      expect(problems).toEqual([]);
      expect(Object.keys(parts.decoder.formats)).toContainEqual(expect.stringMatching(/^8-bit floats \(e4m3\), /));
      const [answer, expected] = [
        await promptOf(packed, { weights: 'f32' }),
        await promptOf(plain, { weights: 'f32' }),
      ];
      expect(compareBits([answer], [expected])).toBe('identical');
    }),
  );
});

/** The names of another generation of transformers, for the same tensors. */
const OTHER_NAMES: readonly (readonly [from: RegExp, to: string])[] = [
  [/^language_model\.model\./, 'model.language_model.'],
  [/^language_model\.lm_head/, 'lm_head'],
  [/^model\.language_model\./, 'model.'],
  [/^model\.visual\./, 'visual.'],
  [/^(vision_tower|multi_modal_projector|image_newline|visual)\b/, 'model.$1'],
  [/^model\.(layers|embed_tokens|norm)\./, 'model.language_model.$1.'],
];

it.each(FAMILIES.filter((name) => !/nvila|smolvlm/.test(name)))('%s under the names of another generation', (name) =>
  withBoth(name, async (packed, plain) => {
    const format = FORMATS.find((one) => /groups of their own/.test(one.name)) as Published;
    expect(publish(packed, plain, format)).toBeGreaterThan(0);
    const expected = await promptOf(packed);
    const rename = (file: string): string => {
      const rule = OTHER_NAMES.find(([from]) => from.test(file));
      return rule === undefined ? file : file.replace(rule[0], rule[1]);
    };
    const tensors = [...readShards(packed)].map(([file, tensor]) => [rename(file), tensor] as const);
    expect(tensors.map(([file]) => file)).not.toEqual([...readShards(packed).keys()]);
    replaceShards(packed, new Map(tensors));
    expect((await inspect(packed)).problems).toEqual([]);
    expect(compareBits([await promptOf(packed)], [expected])).toBe('identical');
  }),
);

describe('convert writes the same numbers as floats', () => {
  it.each([...FLOATS, ...FORMATS.filter(({ name }) => /reordered/.test(name))])('$name', (format) =>
    withBoth('qwen_vl/qwen3-vl', async (packed, plain) => {
      publish(packed, plain, format);
      const out = join(plain, 'floats');
      await convert({ model: packed, out, format: 'float', dtype: 'f32' });
      const [written, expected] = [readShards(out), readShards(plain)];
      expect([...written.keys()].sort()).toEqual([...expected.keys()].sort());
      for (const [name, { dtype, data }] of expected)
        if (dtype === 'F32')
          expect([name, Buffer.compare(written.get(name)?.data ?? data.slice(1), data)]).toEqual([name, 0]);
      expect(readJson(join(out, 'config.json'))).not.toHaveProperty('quantization_config');
      using model = await load(out);
      expect(model.family).toBe('qwen3_vl');
    }),
  );

  it('unless another format than float is asked for', () =>
    withBoth('qwen_vl/qwen3-vl', async (packed, plain) => {
      const fp8 = FLOATS[0] as Published;
      publish(packed, plain, fp8);
      const convertTo = (format: 'autoawq' | undefined, out: string) =>
        convert({ model: packed, out: join(plain, out), dtype: 'bf16', ...(format && { format }) });
      await expect(convertTo('autoawq', 'a')).rejects.toMatchObject({ code: 'ERR_NOT_QUANTIZED' });
      await convertTo(undefined, 'b');
      expect(readJson(join(plain, 'b/config.json')).quantization_config).toEqual(fp8.config([]));
      using model = await load(join(plain, 'b'));
      expect(model.family).toBe('qwen3_vl');
      await expect(quantize({ model: packed, out: join(plain, 'c'), method: 'rtn' })).rejects.toMatchObject({
        code: 'ERR_ALREADY_QUANTIZED',
      });
    }));
});
