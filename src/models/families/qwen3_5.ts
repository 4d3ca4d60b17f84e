// Qwen3.5 (`qwen3_5`): the vision side of Qwen3 without deepstack, and a decoder of which three layers in four keep states (gated delta rule);
// the others have gated attention.
// Source: transformers 5.24 `modeling_qwen3_5.py`, `configuration_qwen3_5.py`.

import type { Adapter } from '../adapter';
import type { CheckpointFiles } from '../checkpoint_files';
import { DECODER_NAMES, type NameRule } from '../names';
import { type Plan, wholeFolder } from '../plan';
import { QWEN_TOWER_NAMES } from '../qwen_media';
import { QWEN3_VIDEO, QWEN3_VISION, qwen3Vision } from '../qwen3_vision';

/** Weights of multi-token prediction, which transformers does not read either. */
const UNREAD: NameRule = [/^(?:model\.)?(mtp\.)/, 'unread.$1'];

export const qwen3_5: Adapter = { types: ['qwen3_5'], plan };

function plan(files: CheckpointFiles): Plan {
  const { folder, root, part, text } = files;
  const vision = part('vision_config', QWEN3_VISION);
  const states: unknown = vision.json.deepstack_visual_indexes ?? [];
  if (!Array.isArray(states) || states.length > 0) throw vision.unsupported('deepstack_visual_indexes', 'none');
  const { decoder, config } = text({ model_type: 'qwen3_5_text' });
  const { shape: _, ...seen } = qwen3Vision(vision, files, decoder.hiddenSize);
  const isTied = root.object('text_config')?.boolean('tie_word_embeddings', false) ?? false;
  return {
    ...seen,
    folder,
    family: 'qwen3_5',
    decoder: { ...decoder, tieWordEmbeddings: decoder.tieWordEmbeddings || isTied },
    sources: wholeFolder(folder),
    names: [UNREAD, [/^(?:model\.)?visual\.merger\./, 'projector.'], ...QWEN_TOWER_NAMES, ...DECODER_NAMES],
    root,
    text: { folder, config },
    marker: { id: root.number('image_token_id', 248056) },
    videoPlaceholder: QWEN3_VIDEO,
    videos: true,
  };
}
