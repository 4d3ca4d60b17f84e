// What PaliGemma's config files leave out or ask for, as transformers 5.24 reads them (PaliGemmaConfig), or refused by name; and later questions,
// which are put by themselves about all pictures.

import { join } from 'node:path';
import { load, sparseVila } from '../../src';
import { type Json, readJson } from '../../src/json';
import { planOf } from '../../src/models/load';
import { tokensOf } from '../../src/models/media';
import { createSession } from '../../src/session/session';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { changeJson, withCopy } from '../support/checkpoint';
import { watch } from '../support/watch';

const TWO = join(FIXTURES, 'paligemma', 'two');
const [CONFIG, IMAGES] = ['config.json', 'preprocessor_config.json'];
const text = readJson(join(TWO, CONFIG)).text_config as Json;
const planWith = (changes: Readonly<Record<string, Json>>) =>
  withCopy(TWO, async (folder) => {
    for (const [file, change] of Object.entries(changes)) changeJson(join(folder, file), change);
    return planOf(folder);
  });

describe('PaliGemma files', () => {
  it('the published config of paligemma-3b-pt-224', async () => {
    const plan = await planWith({
      [CONFIG]: {
        ...{ image_token_index: 257152, projection_dim: 2048, hidden_size: 2048 },
        text_config: {
          ...{ hidden_size: 2048, intermediate_size: 16384, model_type: 'gemma', num_attention_heads: 8 },
          ...{ num_hidden_layers: 18, num_image_tokens: 256, num_key_value_heads: 1, vocab_size: 257216 },
        },
        vision_config: {
          ...{ hidden_size: 1152, intermediate_size: 4304, model_type: 'siglip_vision_model', num_attention_heads: 16 },
          ...{ num_hidden_layers: 27, num_image_tokens: 256, patch_size: 14, projection_dim: 2048 },
        },
      },
      [IMAGES]: { size: { height: 224, width: 224 }, image_seq_length: 256 },
    });
    expect(plan.decoder).toMatchObject({
      ...{ heads: 8, kvHeads: 1, headDim: 256, normOffset: true, bidirectional: 'prompt', tieWordEmbeddings: true },
      embedScale: Math.sqrt(2048),
    });
    expect([plan.decoder.layerTypes, plan.decoder.postNorms, plan.decoder.attentionSoftcap]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect(tokensOf(plan.layout({ kind: 'image', width: 50, height: 90, frames: 1 }, { media: 1 }))).toBe(256);
  });

  it('absent parts are those of PaliGemmaConfig, and absent settings of Gemma 2 its defaults', async () => {
    const bare = await planWith({
      [CONFIG]: { text_config: null, vision_config: null, projection_dim: null },
      [IMAGES]: { size: { height: 224, width: 224 }, image_seq_length: null },
    });
    expect(bare.tower).toMatchObject({ layers: 27, hiddenSize: 1152, intermediateSize: 4096, imageSize: 224 });
    expect(bare.decoder).toMatchObject({ hiddenSize: 2048, layers: 18, vocabSize: 257152 });
    const absent = { query_pre_attn_scalar: undefined, sliding_window: undefined };
    const caps = { attn_logit_softcapping: undefined, final_logit_softcapping: undefined };
    const { decoder } = await planWith({ [CONFIG]: { text_config: { ...text, ...absent, ...caps } } });
    expect(decoder).toMatchObject({
      attentionScale: 1 / 16,
      slidingWindow: 4096,
      attentionSoftcap: 50,
      finalSoftcap: 30,
    });
    expect(decoder.layerTypes?.slice(0, 2)).toEqual(['sliding_attention', 'full_attention']);
  });

  it.each([
    [CONFIG, { projection_dim: 55 }, 'ERR_CONFIG_INVALID', 'projection_dim'],
    [CONFIG, { text_config: { ...text, model_type: 'llama' } }, 'ERR_CONFIG_UNSUPPORTED', 'model_type'],
    [CONFIG, { text_config: { ...text, use_bidirectional_attention: false } }, 'ERR_CONFIG_UNSUPPORTED', 'use_bidirec'],
    [IMAGES, { image_seq_length: 17 }, 'ERR_CONFIG_INVALID', 'image_seq_length'],
  ])('%s: a value that is not supported is refused by name', async (file, change, code, key) => {
    const error = await errorOf(() => planWith({ [file]: change }));
    expect([error.code, error.message]).toEqual([code, expect.stringContaining(key)]);
  });
});

test('a later question is put by itself about the same picture, also after history was forgotten', async () => {
  using model = await load(TWO);
  const watched = watch({ ...model, stopIds: [] });
  const ask = { maxTokens: 3, temperature: 0 } as const;
  const images = [join(TWO, 'image0.png')];
  using fresh = createSession(watched.model, { kv: 'f32' });
  const expected = await fresh.ask('And now?', { ...ask, images }).text();
  for (const history of ['keep', 'forget'] as const) {
    using chat = createSession(watched.model, { kv: 'f32' });
    await chat.ask('What?', { ...ask, images, history }).text();
    watched.clear();
    expect(await chat.ask('And now?', ask).text()).toBe(expected);
    expect(watched.calls[0]?.length).toBe(0);
  }
});

test('relevance is that of the question, and retrieval acts in layers without a window', async () => {
  using model = await load(TWO);
  using chat = createSession(model, { method: sparseVila({ prefillSparsity: 0, decodeSparsity: 0.5 }), kv: 'f32' });
  const answer = chat.ask('What?', { images: [join(TWO, 'image0.png')], maxTokens: 2 });
  await answer.text();
  const { retrieved = [], tokens } = answer.stats ?? {};
  expect(retrieved.map(({ length }) => length)).toEqual([16, 8, 16, 8]);
  expect(tokens?.visualKept).toBe(16);
});

test('a system message is refused', async () => {
  using model = await load(TWO);
  expect((await errorOf(() => createSession(model, { system: 'Be brief.' }))).code).toBe('ERR_OPTION_INVALID');
});
