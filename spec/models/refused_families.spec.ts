// Faults of a checkpoint, for every family: one tensor of each kind missing, renamed or transposed, the weights of another family, a head that is
// missing, and settings that change the computation and are not built. Each is refused by name. Headers alone are read, except once.

import { join } from 'node:path';
import { inspect, load } from '../../src';
import type { Json } from '../../src/json';
import { readJson } from '../../src/json';
import { partName } from '../../src/models/assemble';
import type { Problem } from '../../src/models/counted_weights';
import { planOf } from '../../src/models/load';
import { PARTS } from '../../src/models/plan';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { changeJson, readShards, replaceShards, type Stored, withCopy } from '../support/checkpoint';

const FAMILIES = [
  ...[
    'llava/llava-llama',
    'llava/llava-mistral',
    'llava_next/mistral',
    'llava_onevision/large',
    'llava_onevision/tied',
  ],
  ...['internvl/layer', 'internvl/qwen3', 'internvl/rms', 'qwen_vl/qwen2-vl', 'qwen_vl/qwen2.5-vl', 'qwen_vl/qwen3-vl'],
  ...[
    'qwen_vl/qwen3.5',
    'gemma3/plain',
    'gemma3/scan',
    'paligemma/one',
    'paligemma/two',
    'smolvlm/smolvlm',
    'smolvlm/idefics3',
    'nvila/tiles',
    'vila/mlp-downsample-odd',
  ],
];

/** Calls `change` with the tensors of each folder and the canonical names, within their parts, of one tensor of each kind; returns the latter. */
function changeEach(
  folder: string,
  change: (tensors: Map<string, Stored>, name: string, tensor: Stored) => boolean | undefined,
): string[] {
  const plan = planOf(folder);
  const changed: string[] = [];
  for (const own of new Set(Object.values(plan.sources).map((source) => source.folder))) {
    const tensors = readShards(own);
    const parts = PARTS.filter((part) => plan.sources[part].folder === own);
    const last = new Map<string, readonly [file: string, canonical: string]>();
    for (const file of tensors.keys())
      for (const part of parts) {
        const canonical = partName(plan, part)(file);
        if (!/^of another part|unread|inv_freq/.test(canonical))
          last.set(`${part} ${canonical.replace(/\d+/g, 'N')}`, [file, canonical]);
      }
    for (const [file, canonical] of last.values()) {
      const tensor = tensors.get(file);
      if (tensor !== undefined && change(tensors, file, tensor) !== false) changed.push(canonical);
    }
    replaceShards(own, tensors);
  }
  return changed;
}

/**
 * Settings of any decoder, and of any tower, that change the computation and are not built, with the key that the message names, and the families
 * that have built them, or do not have them.
 */
const DECODERS: readonly (readonly [key: string, changes: Json, built?: RegExp])[] = [
  ['rope_scaling', { rope_scaling: { rope_type: 'yarn', factor: 4 } }],
  ['hidden_act', { hidden_act: 'relu' }, /gemma/],
  ['hidden_activation', { hidden_activation: 'relu' }, /^(?!gemma)/],
  ['partial_rotary_factor', { partial_rotary_factor: 0.5 }, /qwen3_5/],
  ['attn_logit_softcapping', { attn_logit_softcapping: 8 }, /gemma/],
  ['use_qk_norm', { use_qk_norm: true }],
  ...['clip_qkv', 'logits_scaling', 'residual_multiplier'].map((key) => [key, { [key]: 8 }] as const),
  ['layer_types', { layer_types: ['linear_attention'] }],
  ['model_type', { model_type: 'phi3' }],
];
const TOWERS: readonly (readonly [key: string, changes: Json])[] = [['hidden_act', { hidden_act: 'relu' }]];
/** Settings of the rest of a family's model. */
const OTHERS: Readonly<Record<string, readonly (readonly [key: string, changes: Json])[]>> = {
  ...Object.fromEntries(
    ['llava', 'llava_next', 'llava_onevision', 'internvl'].map((type) => [
      type,
      [
        ['projector_hidden_act', { projector_hidden_act: 'relu' }],
        ['vision_feature_select_strategy', { vision_feature_select_strategy: 'cls_patch' }],
      ] as const,
    ]),
  ),
  gemma3: [['mm_tokens_per_image', { mm_tokens_per_image: 7 }]],
  paligemma: [
    ['projection_dim', { projection_dim: 7 }],
    ['use_bidirectional_attention', { text_config: { use_bidirectional_attention: false } }],
  ],
  ...Object.fromEntries(
    ['smolvlm', 'idefics3'].map((type) => [type, [['scale_factor', { scale_factor: 7 }]] as const]),
  ),
  ...Object.fromEntries(
    ['qwen2_vl', 'qwen2_5_vl', 'qwen3_vl'].map((type) => [
      type,
      [
        ['in_channels', { vision_config: { in_channels: 1 } }],
        ['rope_type', { vision_config: { rope_parameters: { rope_type: 'linear', factor: 4 } } }],
      ] as const,
    ]),
  ),
};

/** Merges changes into the config of a part: an object of the root config, or the part's own file. */
function changePart(folder: string, part: 'decoder' | 'tower', changes: Json): void {
  const own = planOf(folder).sources[part].folder;
  const file = join(own, 'config.json');
  const json = readJson(file);
  const key = own !== folder ? undefined : part === 'tower' ? 'vision_config' : json.text_config && 'text_config';
  changeJson(file, typeof key === 'string' ? { [key]: { ...(json[key] as Json), ...changes } } : changes);
}

const named = (problems: readonly Problem[], code: string): string[] =>
  problems.flatMap((problem) => (problem.code === code ? problem.tensors : []));

describe.each(FAMILIES)('%s', (name) => {
  const folder = join(FIXTURES, name);
  const { family } = planOf(folder);

  it('one tensor of each kind is missing', () =>
    withCopy(folder, async (copy) => {
      const gone = changeEach(copy, (tensors, file) => tensors.delete(file));
      const { problems } = await inspect(copy);
      expect(gone.length).toBeGreaterThan(20);
      expect(gone.filter((one) => !named(problems, 'ERR_WEIGHT_MISSING').includes(one))).toEqual([]);
      expect([...new Set(problems.map(({ code }) => code))]).toEqual(['ERR_WEIGHT_MISSING']);
      const error = await errorOf(() => load(copy));
      expect([error.code, error.message]).toEqual([problems[0]?.code, problems[0]?.message]);
      expect(error.message).toContain(family);
    }));

  it('one tensor of each kind has another name', () =>
    withCopy(folder, async (copy) => {
      const renamed = changeEach(copy, (tensors, file, tensor) => {
        tensors.set(file.replace(/([^.]*)$/, 'other_$1'), tensor);
        return tensors.delete(file);
      });
      const { problems } = await inspect(copy);
      expect(renamed.filter((one) => !named(problems, 'ERR_WEIGHT_MISSING').includes(one))).toEqual([]);
      expect(named(problems, 'ERR_WEIGHT_EXTRA')).toContainEqual(expect.stringContaining('other_'));
    }));

  it('one matrix of each kind is transposed', () =>
    withCopy(folder, async (copy) => {
      const turned = changeEach(copy, (tensors, file, { dtype, shape, data }) => {
        const [rows, k] = shape;
        if (shape.length !== 2 || rows === k) return false;
        tensors.set(file, { dtype, shape: [...shape].reverse(), data });
        return true;
      });
      const { problems } = await inspect(copy);
      expect(turned.length).toBeGreaterThan(5);
      expect(turned.filter((one) => !named(problems, 'ERR_WEIGHT_SHAPE').includes(one))).toEqual([]);
    }));

  it('the weights are those of another family', () =>
    withCopy(folder, async (copy) => {
      const other = join(FIXTURES, FAMILIES[(FAMILIES.indexOf(name) + 5) % FAMILIES.length] as string);
      const theirs = planOf(other);
      const tensors = Object.values(theirs.sources).flatMap((source) => [...readShards(source.folder)]);
      for (const own of new Set(Object.values(planOf(copy).sources).map((source) => source.folder)))
        replaceShards(own, new Map(tensors));
      const error = await errorOf(() => load(copy));
      expect(error.code).toMatch(/^ERR_WEIGHT_(MISSING|SHAPE)$/);
      expect(error.message).toMatch(new RegExp(`expected .*"[a-z_.0-9]+".*${family}`, 's'));
    }));

  it('the head is missing, and not tied', () =>
    withCopy(folder, async (copy) => {
      const { sources } = planOf(copy);
      const tensors = readShards(sources.decoder.folder);
      for (const file of [...tensors.keys()]) if (file.includes('lm_head')) tensors.delete(file);
      replaceShards(sources.decoder.folder, tensors);
      untie(join(sources.decoder.folder, 'config.json'));
      const { problems } = await inspect(copy);
      expect(problems).toMatchObject([{ code: 'ERR_WEIGHT_MISSING', tensors: ['lm_head.weight'] }]);
    }));

  const refused = async (key: string, change: (copy: string) => void): Promise<void> =>
    withCopy(folder, async (copy) => {
      change(copy);
      const error = await errorOf(async () => planOf(copy));
      expect(error.code).toMatch(/^ERR_(CONFIG_UNSUPPORTED|CONFIG_INVALID|MODEL_TYPE)$/);
      expect(error.message).toMatch(new RegExp(`config\\.json: expected .*${key}`));
    });
  const decoders = DECODERS.flatMap(([key, changes, built]) =>
    built?.test(family) === true ? [] : [[key, changes] as const],
  );
  it.each(decoders)('the decoder has another %s', (key, changes) =>
    refused(key, (copy) => changePart(copy, 'decoder', changes)),
  );
  it.each(TOWERS)('the tower has another %s', (key, changes) =>
    refused(key, (copy) => changePart(copy, 'tower', changes)),
  );
  const others = OTHERS[family] ?? [];
  if (others.length > 0)
    it.each(others)('the model has another %s', (key, changes) =>
      refused(key, (copy) =>
        changeJson(join(copy, 'config.json'), merged(readJson(join(copy, 'config.json')), changes)),
      ),
    );

  it('the quantization is of an unknown kind', () =>
    withCopy(folder, async (copy) => {
      const file = join(planOf(copy).sources.decoder.folder, 'config.json');
      changeJson(file, { quantization_config: { quant_method: 'bitsandbytes', load_in_4bit: true } });
      const { problems } = await inspect(copy);
      expect(problems[0]).toMatchObject({
        code: 'ERR_QUANTIZATION_UNSUPPORTED',
        message: expect.stringMatching(/"quantization_config\.quant_method", received "bitsandbytes"/),
      });
    }));
});

function merged(json: Json, changes: Json): Json {
  const own = Object.entries(changes).map(([key, value]) => {
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    return [key, isObject ? { ...(json[key] as Json), ...value } : value] as const;
  });
  return Object.fromEntries(own);
}

function untie(file: string): void {
  const json = readJson(file);
  const text = json.text_config as Json | undefined;
  changeJson(file, {
    tie_word_embeddings: false,
    ...(text && { text_config: { ...text, tie_word_embeddings: false } }),
  });
}
