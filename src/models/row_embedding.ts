// Rows of a decoder's embedding table, scaled where the family scales them.
// Source: transformers 5.24 `Gemma3TextScaledWordEmbedding`.

import { roundToF16 } from '../checkpoint/half';
import { embed } from '../ops/linear';
import type { PackedMatrix, WeightType } from '../ops/weights';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { DecoderConfig } from './config';

/**
 * A function from ids to f32 rows [n, d].
 * @param type the table's data type in its file, to which the scale is rounded, as in the training of Gemma: sqrt(2560) is 50.5 in bf16
 */
export function rowEmbedding(
  { embedScale }: DecoderConfig,
  table: PackedMatrix,
  type: WeightType | undefined,
): (ids: readonly number[] | Int32Array) => Tensor {
  if (embedScale === undefined) return (ids) => embed(table, ids);
  const scale = roundTo(embedScale, type);
  return (ids) => {
    const { tf } = start();
    return tf.tidy(() => tf.mul(embed(table, ids), scale));
  };
}

function roundTo(value: number, type: WeightType | undefined): number {
  if (type === 'f16') return roundToF16(value);
  return type === 'bf16' ? roundToBf16(value) : Math.fround(value);
}

/** The nearest number of eight significant bits, ties to even. */
function roundToBf16(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer);
  const [given = 0] = bits;
  bits[0] = ((given + 0x7fff + ((given >>> 16) & 1)) >>> 16) << 16;
  return new Float32Array(bits.buffer)[0] ?? value;
}
