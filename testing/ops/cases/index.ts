// The case table of all ops, which the specs check at every instruction-set level and the benchmark times.
// A new op adds its own file of cases and one line here.

import { ATTENTION_CASES } from './attention';
import type { OpCase } from './case';
import { DECODER_LAYER_CASES } from './decoder_layer';
import { DECODER_LAYERS_CASES } from './decoder_layers';
import { DELTA_CASES } from './delta';
import { DELTA_LAYER_CASES } from './delta_layer';
import { KV_CACHE_CASES } from './kv_cache';
import { LINEAR_CASES } from './linear';
import { INTEGER_CASES } from './linear_integer';
import { NORM_CASES } from './norm';
import { QUANTIZE_CASES } from './quantize';
import { ROPE_CASES } from './rope';
import { SAMPLE_CASES } from './sample';
import { VISION_BLOCK_CASES } from './vision_block';

export const OP_CASES: readonly OpCase[] = [
  ...LINEAR_CASES,
  ...INTEGER_CASES,
  ...NORM_CASES,
  ...ROPE_CASES,
  ...ATTENTION_CASES,
  ...KV_CACHE_CASES,
  ...DECODER_LAYER_CASES,
  ...DECODER_LAYERS_CASES,
  ...DELTA_CASES,
  ...DELTA_LAYER_CASES,
  ...VISION_BLOCK_CASES,
  ...SAMPLE_CASES,
  ...QUANTIZE_CASES,
];

/** `op: name (dtype)`, which no two cases share. */
export function titleOf(item: OpCase): string {
  return `${item.op}: ${item.name} (${item.dtype})`;
}
