// What the text config of Qwen3.5 has beside Qwen3's: layers that keep a state, gated attention, norms that multiply by 1 + weight.
// Source: transformers 5.24 `configuration_qwen3_5.py`.

import type { ConfigReader } from '../json';
import type { DeltaSizes } from '../ops/delta';
import type { DecoderConfig, LayerType } from './config';

const TYPES: readonly LayerType[] = ['linear_attention', 'full_attention'];
/** Bounds of the ops. */
const [MOST_TAPS, MOST] = [16, 2 ** 16];

/** @throws SparseVilaError `ERR_CONFIG_INVALID`, `ERR_CONFIG_UNSUPPORTED` */
export function deltaSettings(
  config: ConfigReader,
  layers: number,
): Pick<DecoderConfig, 'normOffset' | 'attentionGate' | 'layerTypes'> & { delta: DeltaSizes } {
  if (!config.boolean('attn_output_gate', true)) throw config.unsupported('attn_output_gate', 'true');
  const keyHeads = config.size('linear_num_key_heads', 16, MOST);
  const valueHeads = config.size('linear_num_value_heads', 32, MOST);
  if (valueHeads % keyHeads !== 0)
    throw config.wrong('linear_num_value_heads', `a multiple of linear_num_key_heads (${keyHeads})`);
  return {
    ...{ normOffset: true, attentionGate: true, layerTypes: layerTypes(config, layers) },
    delta: {
      ...{ keyHeads, valueHeads },
      keyWidth: config.size('linear_key_head_dim', 128, MOST),
      valueWidth: config.size('linear_value_head_dim', 128, MOST),
      taps: config.size('linear_conv_kernel_dim', 4, MOST_TAPS),
    },
  };
}

/** `layer_types`, or full attention in every n-th layer. */
function layerTypes(config: ConfigReader, layers: number): LayerType[] {
  const given: unknown = config.json.layer_types ?? undefined;
  if (given === undefined) {
    const every = config.size('full_attention_interval', 4);
    return Array.from({ length: layers }, (_, i) => TYPES[Number((i + 1) % every === 0)] as LayerType);
  }
  const isType = (type: unknown): type is LayerType => TYPES.includes(type as LayerType);
  if (!Array.isArray(given) || given.length !== layers || !given.every(isType))
    throw config.unsupported('layer_types', `linear_attention or full_attention for each of ${layers} layers`);
  return given;
}
