// InternVL 3 and 3.5 with transformers' names (`internvl`); `internvl_plan.ts` has what they compute.
// Source: transformers 5.24 `configuration_internvl.py`, `processing_internvl.py`, `video_processing_internvl.py`.

import { type ConfigReader, configReader, type Json } from '../../json';
import type { Adapter } from '../adapter';
import type { CheckpointFiles } from '../checkpoint_files';
import { samplingSettings } from '../frame_sampling';
import { INTERNVL_SAMPLING, type InternvlSettings, internVit, internvlPlan } from '../internvl_plan';
import { DECODER_NAMES, type NameRule, prefixed } from '../names';
import {
  CLIP_PIXELS,
  type ProcessorSpec,
  parseFilter,
  parseNormalization,
  processorSettings,
  requireSamePixels,
  requireSquare,
} from '../preprocessor';
import { tileRange } from '../tile_choice';
import { hiddenStateDepth } from '../tower_config';

const NAMES: readonly NameRule[] = [
  [/^(?:model\.)?multi_modal_projector\./, 'projector.'],
  ...prefixed(/^(?:model\.)?vision_tower\./, [
    [/embeddings\.cls_token$/, 'tower.embeddings.class_embedding'],
    [/embeddings\.position_embeddings$/, 'tower.embeddings.position_embedding.weight'],
    [/embeddings\.patch_embeddings\.projection\./, 'tower.embeddings.patch_embedding.'],
    [/encoder\.layer\.(\d+)\.attention\.projection_layer\./, 'tower.encoder.layers.$1.self_attn.out_proj.'],
    [/encoder\.layer\.(\d+)\.attention\./, 'tower.encoder.layers.$1.self_attn.'],
    [/encoder\.layer\.(\d+)\.layernorm_before\./, 'tower.encoder.layers.$1.layer_norm1.'],
    [/encoder\.layer\.(\d+)\.layernorm_after\./, 'tower.encoder.layers.$1.layer_norm2.'],
    [/encoder\.layer\.(\d+)\.lambda_([12])$/, 'tower.encoder.layers.$1.layer_scale$2.weight'],
    [/encoder\.layer\.(\d+)\.mlp\./, 'tower.encoder.layers.$1.mlp.'],
  ]),
  ...DECODER_NAMES,
];

const SQUARE_384: Json = { size: { height: 384, width: 384 }, resample: 3, ...CLIP_PIXELS };
const STEPS = ['do_resize', 'do_rescale', 'do_normalize'];
const IMAGES: ProcessorSpec = { classes: ['GotOcr2'], defaults: SQUARE_384, steps: STEPS };
/** Frames are already sampled. */
const VIDEOS: ProcessorSpec = {
  ...{ classes: ['InternVL', 'GotOcr2'], defaults: SQUARE_384, steps: STEPS },
  ignored: ['do_sample_frames'],
};

export const internvl: Adapter = { types: ['internvl'], plan: (files) => internvlPlan(files, settingsOf(files)) };

function settingsOf(files: CheckpointFiles): InternvlSettings {
  const { folder, root, part, text } = files;
  const images = processorSettings(files.images, IMAGES);
  const videos = processorSettings(files.videos, VIDEOS);
  const tower = internVit(withSides(part('vision_config')));
  for (const settings of [images, videos]) requireSquare(settings, 'size', tower.imageSize);
  requireSamePixels(images, videos);
  const { decoder, config } = text({ model_type: 'qwen2' });
  if (root.string('vision_feature_select_strategy', 'default') !== 'default')
    throw root.unsupported('vision_feature_select_strategy', 'default');
  return {
    decoder: { ...decoder, tieWordEmbeddings: root.boolean('tie_word_embeddings', true) },
    ...{ tower, depth: hiddenStateDepth(root, 'vision_feature_layer', -1, tower.layers), after: '' },
    ...{ text: { folder, config }, marker: { id: root.number('image_token_id', 151667) } },
    ...{ pixels: parseNormalization(images), filter: parseFilter(images), names: NAMES },
    // The processor always cuts pictures, whatever `crop_to_patches` of its image processor says.
    tiles: tileRange(images, ['min_patches', 'max_patches']),
    sampling: { ...samplingSettings(videos, INTERNVL_SAMPLING), rule: 'internvl', shift: shiftOf(videos) },
  };
}

/** `image_size` and `patch_size` as one number each; files have [height, width]. @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` */
function withSides(config: ConfigReader): ConfigReader {
  const side = (key: string): unknown => {
    const given: unknown = config.json[key];
    if (!Array.isArray(given)) return given;
    if (given.length !== 2 || given[0] !== given[1]) throw config.unsupported(key, 'a square');
    return given[0];
  };
  const sides = { image_size: side('image_size'), patch_size: side('patch_size') };
  return configReader({ ...config.json, ...sides }, config.file, 'vision_config.');
}

/** `initial_shift`: true, false, or a number of frames. */
const shiftOf = (videos: ConfigReader): boolean | number =>
  typeof videos.json.initial_shift === 'number' ? videos.float('initial_shift') : videos.boolean('initial_shift', true);
