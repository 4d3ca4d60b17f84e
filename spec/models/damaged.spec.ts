// Damaged checkpoints: each is refused with a code and the wrong file, key or tensor, and nothing
// that was read before stays in memory.

import { rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inspect, load } from '../../src';
import { errorOf } from '../image/fixtures';
import { vilaCase } from '../support/assets';
import { changeJson, changeTensors, type Stored, withCopy } from '../support/checkpoint';
import { withoutLeak } from '../support/leaks';

const LLM = 'llm/model.safetensors';
const K_PROJ = 'model.layers.1.self_attn.k_proj.weight';

type Damage = (folder: string) => void;
const json =
  (file: string, changes: Record<string, unknown>): Damage =>
  (folder) =>
    changeJson(join(folder, file), changes);
const text =
  (file: string, content: string): Damage =>
  (folder) =>
    writeFileSync(join(folder, file), content);
const gone =
  (file: string): Damage =>
  (folder) =>
    rmSync(join(folder, file));
const tensors =
  (file: string, change: (tensors: Map<string, Stored>) => void): Damage =>
  (folder) =>
    changeTensors(join(folder, file), change);
const without = (file: string, name: string): Damage =>
  tensors(file, (all) => {
    if (!all.delete(name)) throw new Error(`${file} has no ${name}`);
  });
const replaced = (file: string, name: string, make: (tensor: Stored) => Stored): Damage =>
  tensors(file, (all) => {
    const tensor = all.get(name);
    if (tensor === undefined) throw new Error(`${file} has no ${name}`);
    all.set(name, make(tensor));
  });
const added = (file: string, name: string): Damage =>
  tensors(file, (all) => all.set(name, { dtype: 'F32', shape: [2], data: new Uint8Array(8) }));

type Case = readonly [what: string, damage: Damage, code: string, ...names: (string | RegExp)[]];

/** Damage to the case `linear`, the code, and the names in the message. */
const DAMAGES: readonly Case[] = [
  ['config.json gone', gone('config.json'), 'ERR_MODEL_MISSING', 'config.json'],
  ['config.json cut', text('config.json', '{"model_type": "vi'), 'ERR_CONFIG_INVALID', 'config.json', 'JSON'],
  [
    'unknown model_type',
    json('config.json', { model_type: 'mystery' }),
    'ERR_MODEL_TYPE',
    'config.json',
    /vila.*"mystery"/,
  ],
  ['no model_type', json('config.json', { model_type: undefined }), 'ERR_MODEL_TYPE', 'config.json'],
  [
    'tiles',
    json('config.json', { image_aspect_ratio: 'anyres' }),
    'ERR_CONFIG_UNSUPPORTED',
    '"image_aspect_ratio"',
    /resize, pad, dynamic, dynamic_s2.*"anyres"/,
  ],
  ['scales', json('config.json', { s2: true }), 'ERR_CONFIG_UNSUPPORTED', 'config.json', '"s2"'],
  [
    'no such hidden state',
    json('config.json', { mm_vision_select_layer: -9 }),
    'ERR_CONFIG_INVALID',
    'mm_vision_select_layer',
    '-9',
  ],
  [
    'marker unknown to the tokenizer',
    json('config.json', { image_token_id: 9999 }),
    'ERR_CONFIG_INVALID',
    '"image_token_id"',
    '9999',
  ],
  [
    'encoder that is no JSON',
    json('config.json', { image_encoder: '{_target_:' }),
    'ERR_CONFIG_INVALID',
    '"image_encoder"',
  ],
  ['tower config gone', gone('vision_tower/config.json'), 'ERR_CONFIG_MISSING', 'vision_tower/config.json'],
  [
    'another tower',
    json('vision_tower/config.json', { model_type: 'clip_vision_model' }),
    'ERR_CONFIG_UNSUPPORTED',
    'vision_tower/config.json',
    '"clip_vision_model"',
  ],
  [
    'unknown activation',
    json('vision_tower/config.json', { hidden_act: 'relu' }),
    'ERR_CONFIG_UNSUPPORTED',
    'vision_tower/config.json',
    '"hidden_act"',
    '"relu"',
  ],
  [
    'sizes that differ',
    json('vision_tower/preprocessor_config.json', { size: { height: 56, width: 56 } }),
    'ERR_CONFIG_INVALID',
    'image_size 42',
    '56x56',
  ],
  [
    'preprocessor gone',
    gone('vision_tower/preprocessor_config.json'),
    'ERR_CONFIG_MISSING',
    'preprocessor_config.json',
  ],
  [
    'unknown projector',
    json('mm_projector/config.json', { mm_projector_type: 'resampler' }),
    'ERR_CONFIG_INVALID',
    'mm_projector/config.json',
    '"mm_projector_type"',
    '"resampler"',
  ],
  [
    'the wrong projector',
    json('mm_projector/config.json', { mm_projector_type: 'mlp2x_gelu' }),
    'ERR_WEIGHT_MISSING',
    'mm_projector',
    '"layers.0.weight"',
  ],
  ['decoder config gone', gone('llm/config.json'), 'ERR_CONFIG_MISSING', 'llm/config.json'],
  [
    'another decoder',
    json('llm/config.json', { model_type: 'mamba' }),
    'ERR_CONFIG_UNSUPPORTED',
    'llm/config.json',
    '"mamba"',
  ],
  [
    'more layers than weights',
    json('llm/config.json', { num_hidden_layers: 9 }),
    'ERR_WEIGHT_MISSING',
    'llm',
    'model.layers.4.',
  ],
  [
    'fewer layers than weights',
    json('llm/config.json', { num_hidden_layers: 3 }),
    'ERR_WEIGHT_EXTRA',
    'llm',
    'model.layers.3.',
  ],
  [
    'another vocabulary',
    json('llm/config.json', { vocab_size: 449 }),
    'ERR_WEIGHT_SHAPE',
    LLM,
    '"model.embed_tokens.weight"',
    '449',
  ],
  ['weight missing in the decoder', without(LLM, K_PROJ), 'ERR_WEIGHT_MISSING', 'llm', `"${K_PROJ}"`],
  [
    'weight missing in the tower',
    without('vision_tower/model.safetensors', 'vision_model.encoder.layers.0.mlp.fc1.bias'),
    'ERR_WEIGHT_MISSING',
    'vision_tower',
    'encoder.layers.0.mlp.fc1.bias',
  ],
  [
    'extra weight in the decoder',
    added(LLM, 'model.layers.0.self_attn.g_proj.weight'),
    'ERR_WEIGHT_EXTRA',
    'llm',
    'g_proj',
  ],
  [
    'extra weight in the projector',
    added('mm_projector/model.safetensors', 'layers.9.weight'),
    'ERR_WEIGHT_EXTRA',
    'mm_projector',
    'layers.9.weight',
  ],
  [
    'misshapen weight',
    replaced(LLM, K_PROJ, ({ shape, ...rest }) => ({ ...rest, shape: [...shape].reverse() })),
    'ERR_WEIGHT_SHAPE',
    LLM,
    `"${K_PROJ}"`,
  ],
  [
    'weight of another type',
    replaced(LLM, K_PROJ, ({ shape, data }) => ({ dtype: 'I32', shape, data })),
    'ERR_WEIGHT_DTYPE',
    LLM,
    `"${K_PROJ}"`,
    'I32',
  ],
  [
    'weights cut short',
    (folder) => truncateSync(join(folder, LLM), 100_000),
    'ERR_CHECKPOINT_INVALID',
    LLM,
    'truncated',
  ],
  ['weights gone', gone(LLM), 'ERR_CHECKPOINT_MISSING', 'llm', 'model.safetensors'],
  ['tokenizer gone', gone('llm/tokenizer.json'), 'ERR_CONFIG_MISSING', 'llm/tokenizer.json'],
  [
    'tokenizer of no known kind',
    json('llm/tokenizer.json', { decoder: { type: 'Rot13' } }),
    'ERR_CONFIG_INVALID',
    'llm/tokenizer.json',
    'Rot13',
  ],
  ['template gone', json('llm/tokenizer_config.json', { chat_template: undefined }), 'ERR_TEMPLATE_MISSING', 'llm'],
  ['template broken', json('llm/tokenizer_config.json', { chat_template: '{% for %}' }), 'ERR_TEMPLATE_INVALID', 'llm'],
];

/** What `inspect` says that loading would throw: its first problem, or what it throws itself. */
async function refusal(folder: string): Promise<unknown> {
  try {
    return (await inspect(folder)).problems[0];
  } catch (error) {
    return error;
  }
}

describe('a damaged checkpoint', () => {
  beforeAll(async () => {
    // The first load makes constants that are kept for the process.
    (await load(vilaCase('linear'))).dispose();
  });

  it('loads before it is damaged', async () => {
    await withoutLeak(() => withCopy(vilaCase('linear'), async (folder) => (await load(folder)).dispose()));
  });

  it.each(DAMAGES.map((damaged) => [damaged[0], damaged] as const))('%s', async (_, [, damage, code, ...names]) => {
    await withCopy(vilaCase('linear'), async (folder) => {
      damage(folder);
      const error = await withoutLeak(() => errorOf(() => load(folder)));
      expect(error.code).toBe(code);
      for (const name of names) expect(error.message).toMatch(name);
      expect(error.message).toContain(folder);
      expect(await refusal(folder)).toMatchObject({ code: error.code, message: error.message });
    });
  });

  it('a folder that is not there, and a file', async () => {
    for (const path of [join(vilaCase('linear'), 'nowhere'), join(vilaCase('linear'), 'config.json')]) {
      const error = await errorOf(() => load(path));
      expect([error.code, error.message]).toEqual(['ERR_MODEL_MISSING', expect.stringContaining(path)]);
      expect(await refusal(path)).toMatchObject({ code: error.code, message: error.message });
    }
  });

  it('a load that is aborted, before and between its parts', async () => {
    const reason = new Error('not wanted');
    const folder = vilaCase('linear');
    await withoutLeak(() => expect(load(folder, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason));
    let reports = 0;
    const controller = new AbortController();
    const onProgress = (): void => {
      if (++reports === 4) controller.abort(reason);
    };
    await withoutLeak(() => expect(load(folder, { signal: controller.signal, onProgress })).rejects.toBe(reason));
    expect(reports).toBe(4);
  });

  it.each(['linear', 'mlp2x-gelu'])('reports progress to the last byte: %s', async (name) => {
    const seen: { done: number; total: number }[] = [];
    (await load(vilaCase(name), { onProgress: ({ done, total }) => seen.push({ done, total }) })).dispose();
    const total = seen.at(-1)?.total ?? 0;
    expect(total).toBeGreaterThan(0);
    expect(seen.at(-1)?.done).toBe(total);
    expect(new Set(seen.map((one) => one.total)).size).toBe(1);
    expect(seen.map(({ done }) => done)).toEqual(seen.map(({ done }) => done).sort((x, y) => x - y));
    expect(new Set(seen.map(({ done }) => done)).size).toBeGreaterThan(5);
  });
});
