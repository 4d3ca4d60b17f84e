// Qwen3-VL (`qwen3_vl`): the vision side of Qwen3 with deepstack, and a Qwen3 decoder whose positions in time, row and column are interleaved.
// Source: transformers 5.24 `modeling_qwen3_vl.py`, `configuration_qwen3_vl.py`.

import type { ConfigReader } from '../../json';
import type { Adapter } from '../adapter';
import type { CheckpointFiles } from '../checkpoint_files';
import { DECODER_NAMES } from '../names';
import { type Plan, wholeFolder } from '../plan';
import { isTiedInText, QWEN_TOWER_NAMES } from '../qwen_media';
import { QWEN3_VIDEO, QWEN3_VISION, qwen3Merger, qwen3Vision } from '../qwen3_vision';

/** Qwen3VLVisionConfig. */
const VISION = { ...QWEN3_VISION, deepstack_visual_indexes: [8, 16, 24] };

export const qwen3Vl: Adapter = { types: ['qwen3_vl'], plan };

function plan(files: CheckpointFiles): Plan {
  const { folder, root, part, text } = files;
  const vision = part('vision_config', VISION);
  const { decoder, config } = text({ model_type: 'qwen3_vl_text' });
  const d = decoder.hiddenSize;
  const { shape, tower, ...seen } = qwen3Vision(vision, files, d);
  const deepstack = deepstackOf(vision, tower.layers);
  if (deepstack.length > decoder.layers)
    throw vision.wrong('deepstack_visual_indexes', `at most one for each of the decoder's ${decoder.layers} layers`);
  const width = tower.hiddenSize * shape.merge ** 2;
  return {
    ...seen,
    folder,
    family: 'qwen3_vl',
    decoder: { ...decoder, tieWordEmbeddings: decoder.tieWordEmbeddings || isTiedInText(root) },
    tower: { ...tower, deepstack },
    deepstack: deepstack.map((_, i) => qwen3Merger(`deepstack.${i}.`, width, width, d)),
    sources: wholeFolder(folder),
    names: [
      [/^(?:model\.)?visual\.merger\./, 'projector.'],
      [/^(?:model\.)?visual\.deepstack_merger_list\./, 'projector.deepstack.'],
      ...QWEN_TOWER_NAMES,
      ...DECODER_NAMES,
    ],
    root,
    text: { folder, config },
    marker: { id: root.number('image_token_id', 151655) },
    videoPlaceholder: QWEN3_VIDEO,
    videos: true,
  };
}

/** The hidden states that become rows of the first decoder layers, as numbers of layers before them. */
function deepstackOf(vision: ConfigReader, layers: number): number[] {
  const states: unknown = vision.json.deepstack_visual_indexes;
  const isState = (layer: unknown): layer is number =>
    Number.isInteger(layer) && Number(layer) >= 0 && Number(layer) < layers;
  if (!Array.isArray(states) || !states.every(isState) || states.some((layer, i) => layer <= (states[i - 1] ?? -1)))
    throw vision.wrong('deepstack_visual_indexes', `an ascending list of layers below ${layers}`);
  return states.map((layer) => layer + 1);
}
