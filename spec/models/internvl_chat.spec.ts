// InternVL with the names of the original code: the fixture of transformers' names, renamed, gives the same bits.

import { join } from 'node:path';
import { inspect, load } from '../../src';
import { type Json, readJson } from '../../src/json';
import { planOf } from '../../src/models/load';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { changeJson, changeTensors, type Stored, withCopy } from '../support/checkpoint';
import { compareBits } from '../support/nmse';
import { recordTurn } from '../support/turn';

const FILES = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];

/** A key of transformers' layout in the original one; q, k and v are joined apart from this. */
function original(key: string): string {
  return key
    .replace(/^multi_modal_projector\.layer_norm/, 'mlp1.0')
    .replace(/^multi_modal_projector\.linear_1/, 'mlp1.1')
    .replace(/^multi_modal_projector\.linear_2/, 'mlp1.3')
    .replace(/^vision_tower\./, 'vision_model.')
    .replace('embeddings.cls_token', 'embeddings.class_embedding')
    .replace('embeddings.position_embeddings', 'embeddings.position_embedding')
    .replace('embeddings.patch_embeddings.projection', 'embeddings.patch_embedding')
    .replace('encoder.layer.', 'encoder.layers.')
    .replace('attention.projection_layer', 'attn.proj')
    .replace('layernorm_before', 'norm1')
    .replace('layernorm_after', 'norm2')
    .replace(/lambda_([12])/, 'ls$1');
}

function rename(tensors: Map<string, Stored>): void {
  const parts = new Map<string, Stored[]>();
  for (const [key, tensor] of [...tensors]) {
    tensors.delete(key);
    const projection = /^(vision_tower\.encoder\.layer\.\d+\.)attention\.([qkv])_proj\.(\w+)$/.exec(key);
    if (projection === null) {
      tensors.set(original(key), tensor);
      continue;
    }
    const [, layer = '', which = '', kind = ''] = projection;
    const joined = `${original(layer)}attn.qkv.${kind}`;
    const own = parts.get(joined) ?? [];
    own['qkv'.indexOf(which)] = tensor;
    parts.set(joined, own);
  }
  for (const [key, [q, k, v]] of parts) {
    if (q === undefined || k === undefined || v === undefined) throw new Error(`${key} in one file`);
    const shape = [3 * (q.shape[0] ?? 0), ...q.shape.slice(1)];
    tensors.set(key, { dtype: q.dtype, shape, data: Buffer.concat([q.data, k.data, v.data]) });
  }
}

/** A copy of a fixture in the original layout. */
const withOriginal = <T>(work: (folder: string) => Promise<T>): Promise<T> =>
  withCopy(join(FIXTURES, 'internvl', 'layer'), async (folder) => {
    // One file, so that q, k and v are together.
    const all = new Map<string, Stored>();
    for (const file of FILES)
      changeTensors(join(folder, file), (tensors) => {
        for (const [key, tensor] of tensors) all.set(key, { ...tensor, data: Uint8Array.from(tensor.data) });
        tensors.clear();
      });
    rename(all);
    changeTensors(join(folder, FILES[0] ?? ''), (tensors) => {
      for (const [key, tensor] of all) tensors.set(key, tensor);
    });
    const index = join(folder, 'model.safetensors.index.json');
    changeJson(index, { weight_map: Object.fromEntries([...all.keys()].map((key) => [key, FILES[0]])) });
    const { text_config, vision_config, image_token_id: _, ...root } = readJson(join(folder, 'config.json'));
    const { attention_bias: qkv_bias, use_qk_norm: qk_normalization, ...vision } = vision_config as Json;
    const settings = { ps_version: 'v2', template: 'internvl2_5', select_layer: -1, max_dynamic_patch: 6 };
    changeJson(join(folder, 'config.json'), {
      ...{ ...root, ...settings, model_type: 'internvl_chat', llm_config: text_config },
      vision_config: { ...vision, image_size: 28, patch_size: 7, qkv_bias, qk_normalization },
    });
    changeJson(join(folder, 'config.json'), { text_config: undefined, image_token_id: undefined });
    return work(folder);
  });

describe('internvl_chat', () => {
  it('gives the bits of the same weights under transformers’ names', () =>
    withOriginal(async (folder) => {
      expect((await inspect(folder)).problems).toEqual([]);
      const native = join(FIXTURES, 'internvl', 'layer');
      const request = { images: [join(native, 'image0.png')], kv: 'f32', maxTokens: 4 } as const;
      using ours = await load(folder);
      using theirs = await load(native, { template: 'internvl2_5' });
      const [a, b] = [
        await recordTurn(ours, { ...request, question: 'What?' }),
        await recordTurn(theirs, { ...request, question: '\nWhat?' }),
      ];
      expect(a.promptIds).toEqual(b.promptIds);
      expect(compareBits([a.promptLogits], [b.promptLogits])).toBe('identical');
      expect([a.greedy, a.stats.tokens.visualSeen]).toEqual([b.greedy, b.stats.tokens.visualSeen]);
    }));

  it.each([
    [{ ps_version: 'v1' }, 'ps_version'],
    [{ template: 'internlm2-chat' }, 'template'],
    [{ use_thumbnail: false }, 'use_thumbnail'],
    [{ force_image_size: 448 }, 'force_image_size'],
    [{ pad2square: true }, 'pad2square'],
  ])('%j is refused by name', (changes, key) =>
    withOriginal(async (folder) => {
      changeJson(join(folder, 'config.json'), changes as unknown as Json);
      const error = await errorOf(async () => planOf(folder));
      expect([error.code, error.message]).toEqual(['ERR_CONFIG_UNSUPPORTED', expect.stringContaining(key)]);
    }),
  );
});
