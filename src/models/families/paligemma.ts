// PaliGemma 1 and 2 (`paligemma`): SigLIP on one square, one linear layer on every patch, a decoder of Gemma or Gemma 2 in which all of a prompt
// attends to itself. Made for one question at a time: a prompt is the pictures and then the question, without headers.
// Source: transformers 5.24 `modeling_paligemma.py`, `processing_paligemma.py`, `image_processing_pil_siglip.py`.

import type { Size } from '../../image/cells';
import type { ResampleFilter } from '../../image/resample';
import { configReader, type Json } from '../../json';
import type { Adapter } from '../adapter';
import type { CheckpointFiles } from '../checkpoint_files';
import { type DecoderConfig, parseDecoderConfig } from '../config';
import { MARKER, type MediumLayout } from '../media';
import { CLIP_NAMES, DECODER_NAMES } from '../names';
import { type Plan, wholeFolder } from '../plan';
import { type ProcessorSpec, parseFilter, parseNormalization, processorSettings, requireSquare } from '../preprocessor';
import { cellsOf, type SquareTower, squares } from '../squares';
import { wholeSquare } from '../tile_choice';
import { siglipTower } from '../tower_config';

export const paligemma: Adapter = { types: ['paligemma'], plan };

/** What PaliGemmaConfig puts in place of a missing vision_config or text_config. */
const VISION = {
  ...{ hidden_size: 1152, intermediate_size: 4096, num_hidden_layers: 27, num_attention_heads: 16 },
  ...{ image_size: 224, patch_size: 14 },
};
const TEXT = {
  ...{ hidden_size: 2048, intermediate_size: 16384, num_hidden_layers: 18, num_attention_heads: 8 },
  ...{ num_key_value_heads: 1, vocab_size: 257152 },
};

/** Defaults of SiglipImageProcessor. */
const PROCESSOR: ProcessorSpec = {
  classes: ['Siglip'],
  defaults: {
    ...{ size: { height: 224, width: 224 }, resample: 3, image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5] },
  },
  steps: ['do_resize', 'do_rescale', 'do_normalize'],
};

function plan(files: CheckpointFiles): Plan {
  const { folder, root, part } = files;
  const tower = siglipTower(part('vision_config', root.has('vision_config') ? {} : VISION));
  const { decoder, json } = textOf(files);
  const images = processorSettings(files.images, PROCESSOR);
  requireSquare(images, 'size', tower.imageSize);
  const [e, d] = [tower.hiddenSize, decoder.hiddenSize];
  if (root.size('projection_dim', 2048) !== d) throw root.wrong('projection_dim', `the decoder's hidden_size ${d}`);
  const cells = cellsOf(tower);
  if (images.size('image_seq_length', cells ** 2) !== cells ** 2)
    throw images.wrong('image_seq_length', `the ${cells ** 2} patches of the tower`);
  const filter = parseFilter(images);
  return {
    folder,
    family: 'paligemma',
    decoder,
    tower: { ...tower, postNorm: true, depth: tower.layers },
    projector: [{ kind: 'linear', name: 'linear', rows: d, cols: e, bias: true, activation: 'none' }],
    sources: wholeFolder(folder),
    names: [
      [/^(?:model\.)?multi_modal_projector\./, 'projector.'],
      [/^(?:model\.)?vision_tower\.(?:vision_model\.)?post_layernorm\./, 'tower.post_layernorm.'],
      ...DECODER_NAMES,
      ...CLIP_NAMES,
    ],
    pixels: parseNormalization(images),
    root,
    text: {
      ...{ folder, config: configReader(json, root.file, 'text_config.'), startsTexts: false },
      template: { name: 'paligemma', file: root.file },
    },
    marker: { id: root.number(root.has('image_token_id') ? 'image_token_id' : 'image_token_index', 256000) },
    videos: false,
    layout: (size) => layout(size, tower, filter),
  };
}

/** The decoder; its config says nothing, or that it is bidirectional, which means its prompts. */
function textOf({ root }: CheckpointFiles): { readonly decoder: DecoderConfig; readonly json: Json } {
  const own = root.object('text_config');
  const tied = root.boolean('tie_word_embeddings', true);
  const defaults = { model_type: 'gemma', ...(own === undefined && TEXT) };
  const json: Json = { ...defaults, ...own?.json, tie_word_embeddings: tied };
  const key = 'use_bidirectional_attention';
  if (own !== undefined && !own.boolean(key, true)) throw own.unsupported(key, 'true');
  if (!['gemma', 'gemma2'].includes(String(json.model_type)))
    throw configReader(json, root.file, 'text_config.').unsupported('model_type', 'gemma or gemma2');
  const decoder = parseDecoderConfig({ ...json, [key]: null }, root.file);
  return { decoder: { ...decoder, bidirectional: 'prompt', firstPosition: 1 }, json };
}

function layout(picture: Size, tower: SquareTower, filter: ResampleFilter): MediumLayout {
  const { canvases, regions } = wholeSquare(picture, tower.imageSize, filter);
  return { ...squares(regions, tower), kind: 'image', canvases, text: MARKER };
}
