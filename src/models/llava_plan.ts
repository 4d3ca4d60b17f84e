// Shared by LLaVA and its successors: one hidden state of the tower, a two-layer MLP on every patch, and their names of tensors.
// Source: transformers 5.24 `modeling_llava.py`, `modeling_llava_next.py`, `modeling_llava_onevision.py` and their configurations.

import { type ConfigReader, configReader, type Json } from '../json';
import type { CheckpointFiles } from './checkpoint_files';
import { CLIP_NAMES, DECODER_NAMES } from './names';
import { type Plan, wholeFolder } from './plan';
import { parseNormalization } from './preprocessor';
import { hiddenStateDepth, type TowerShape } from './tower_config';

/** LlavaConfig's default for an absent vision_config: CLIP ViT-L/14 at 336 pixels. A vision_config that is present takes its class's defaults. */
export const CLIP_L_336 = {
  ...{ hidden_size: 1024, intermediate_size: 4096, num_hidden_layers: 24, num_attention_heads: 16 },
  ...{ image_size: 336, patch_size: 14 },
};

/** The settings in which the configs of LLaVA's successors differ. */
export interface LlavaDefaults {
  readonly tower: TowerShape;
  /** The settings of the image processor. */
  readonly images: ConfigReader;
  /** Defaults of the text config. */
  readonly text: Json;
  /** `vision_feature_select_strategy`: `default` omits the class row, `full` is for towers without one. */
  readonly strategy: 'default' | 'full';
  /** Defaults of `vision_feature_layer` and `image_token_index`. */
  readonly layer: number;
  readonly marker: number;
}

/** The part of a plan that does not depend on the layout of pictures. @throws SparseVilaError `ERR_CONFIG_…` */
export function llavaPlan(
  { folder, root, text }: CheckpointFiles,
  own: LlavaDefaults,
): Omit<Plan, 'videos' | 'layout'> {
  const { tower, images, strategy } = own;
  const { decoder, config: textConfig } = text(own.text);
  const [e, d] = [tower.hiddenSize, decoder.hiddenSize];
  if (root.string('vision_feature_select_strategy', strategy) !== strategy)
    throw root.unsupported('vision_feature_select_strategy', strategy);
  const activation = root.oneOf('projector_hidden_act', ['gelu'] as const, 'gelu');
  const bias = root.boolean('multimodal_projector_bias', true);
  return {
    folder,
    family: root.string('model_type'),
    decoder,
    tower: { ...tower, depth: featureDepth(root, own.layer, tower.layers) },
    projector: [
      { kind: 'linear', name: 'linear_1', rows: d, cols: e, bias, activation },
      { kind: 'linear', name: 'linear_2', rows: d, cols: d, bias, activation: 'none' },
    ],
    sources: wholeFolder(folder),
    names: [
      [/^(?:model\.)?multi_modal_projector\./, 'projector.'],
      [/^(?:model\.)?image_newline$/, 'projector.image_newline'],
      ...DECODER_NAMES,
      ...CLIP_NAMES,
    ],
    pixels: parseNormalization(images),
    root,
    text: { folder, config: textConfig },
    marker: { id: root.number(root.has('image_token_id') ? 'image_token_id' : 'image_token_index', own.marker) },
  };
}

/** `vision_feature_layer`: one hidden state, also as a list of one. Several, which would be concatenated, are not supported. */
function featureDepth(root: ConfigReader, fallback: number, layers: number): number {
  const key = 'vision_feature_layer';
  const given = root.json[key];
  if (!Array.isArray(given)) return hiddenStateDepth(root, key, fallback, layers);
  if (given.length !== 1) throw root.unsupported(key, 'one layer');
  return hiddenStateDepth(configReader({ [key]: given[0] }, root.file), key, fallback, layers);
}
