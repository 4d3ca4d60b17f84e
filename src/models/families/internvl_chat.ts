// InternVL 2.5, 3 and 3.5 with the names of the original code (`internvl_chat`); `internvl_plan.ts` has what they compute.
// Source: OpenGVLab/InternVL `modeling_internvl_chat.py`, `configuration_intern_vit.py`, README.

import type { Normalization } from '../../image/preprocessor_config';
import { configReader, type Json } from '../../json';
import type { Adapter } from '../adapter';
import type { CheckpointFiles } from '../checkpoint_files';
import { parseDecoderConfig } from '../config';
import { INTERNVL_SAMPLING, type InternvlSettings, internVit, internvlPlan } from '../internvl_plan';
import { DECODER_NAMES, type NameRule, prefixed } from '../names';
import { tileRange } from '../tile_choice';
import { hiddenStateDepth } from '../tower_config';

const NAMES: readonly NameRule[] = [
  [/^mlp1\.0\./, 'projector.layer_norm.'],
  [/^mlp1\.1\./, 'projector.linear_1.'],
  [/^mlp1\.3\./, 'projector.linear_2.'],
  ...prefixed(/^vision_model\./, [
    [/embeddings\.(class_embedding)$/, 'tower.embeddings.$1'],
    [/embeddings\.position_embedding$/, 'tower.embeddings.position_embedding.weight'],
    [/embeddings\.patch_embedding\./, 'tower.embeddings.patch_embedding.'],
    [/encoder\.layers\.(\d+)\.attn\.proj\./, 'tower.encoder.layers.$1.self_attn.out_proj.'],
    [/encoder\.layers\.(\d+)\.attn\./, 'tower.encoder.layers.$1.self_attn.'],
    [/encoder\.layers\.(\d+)\.norm([12])\./, 'tower.encoder.layers.$1.layer_norm$2.'],
    [/encoder\.layers\.(\d+)\.ls([12])$/, 'tower.encoder.layers.$1.layer_scale$2.weight'],
    [/encoder\.layers\.(\d+)\.mlp\./, 'tower.encoder.layers.$1.mlp.'],
  ]),
  ...DECODER_NAMES,
];

/** Defaults of InternVisionConfig, a tower of 6 billion parameters, where they differ from transformers' class. */
const INTERN_VISION: Json = {
  ...{ hidden_size: 3200, intermediate_size: 12800, num_hidden_layers: 48, num_attention_heads: 25 },
  ...{ image_size: 224, norm_type: 'rms_norm', qkv_bias: false, qk_normalization: true },
};
const IMAGENET: Normalization = {
  ...{ rescaleFactor: 1 / 255, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] },
};

export const internvlChat: Adapter = {
  types: ['internvl_chat'],
  plan: (files) => internvlPlan(files, settingsOf(files)),
};

/** The processing of pictures is not in a file. */
function settingsOf({ folder, root, part }: CheckpointFiles): InternvlSettings {
  for (const [key, only] of Object.entries({ dynamic_image_size: true, use_thumbnail: true, pad2square: false }))
    if (root.boolean(key, only) !== only) throw root.unsupported(key, `${only}`);
  for (const [key, only] of Object.entries({ ps_version: 'v2', template: 'internvl2_5' }))
    if (root.string(key) !== only) throw root.unsupported(key, only);
  const vision = part('vision_config', INTERN_VISION);
  const renamed = { attention_bias: vision.json.qkv_bias, use_qk_norm: vision.json.qk_normalization };
  const json = { ...vision.json, ...renamed, model_type: 'internvl_vision' };
  const tower = internVit(configReader(json, root.file, 'vision_config.'));
  if (root.number('force_image_size', tower.imageSize) !== tower.imageSize)
    throw root.unsupported('force_image_size', `the tower's image_size ${tower.imageSize}`);
  const config = part('llm_config');
  return {
    decoder: parseDecoderConfig(config.json, root.file),
    tower: { ...tower, fusedQkv: true },
    ...{ depth: hiddenStateDepth(root, 'select_layer', -1, tower.layers), after: '\n' },
    text: { folder, config, template: { name: root.string('template'), file: root.file } },
    ...{ marker: { text: '<IMG_CONTEXT>' }, names: NAMES, pixels: IMAGENET, filter: 'bicubic' },
    tiles: tileRange(root, ['min_dynamic_patch', 'max_dynamic_patch']),
    sampling: { ...INTERNVL_SAMPLING, rule: 'internvl' },
  };
}
