// The attention in a layer that a prefill has not run yet, for methods that drop rows before it.

import type { Position } from '../ops/rope';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { chunks } from './chunks';
import { append } from './conversation';
import type { DecoderRows } from './decoder_rows';
import type { PrefillContext } from './prefill';

/** Rows of a turn: those that are kept, and which are visual. */
interface LookedAt {
  readonly rows: DecoderRows;
  readonly kept: Int32Array;
  readonly isVisual: Uint8Array;
}

/** The attention that the turn's visual rows receive from the last row in the layer that x, all kept rows, enters next. */
export async function lookAhead(
  { conversation, model, pace }: PrefillContext,
  { rows, kept, isVisual }: LookedAt,
  x: Tensor,
  layer: number,
): Promise<Float32Array> {
  const { tf } = start();
  const before = conversation.layers[layer]?.length ?? 0;
  let columns = new Float32Array();
  const written: Position[] = [];
  conversation.cache.reserve(kept.length, { from: layer, to: layer + 1 });
  for (const { begin, end } of chunks(kept.length, [])) {
    const part = tf.slice(x, [begin, 0], [end - begin, x.shape[1] as number]);
    try {
      const positions = Array.from(kept.subarray(begin, end), (row) => rows.positions[row] as Position);
      columns = model.decoder.look(layer, part, { cache: conversation.cache, positions }, written) as typeof columns;
      append(written, positions);
    } finally {
      part.dispose();
    }
    await pace();
  }
  const own = kept.map((_, i) => i).filter((i) => isVisual[kept[i] as number] === 1);
  return Float32Array.from(own, (i) => columns[before + i] as number);
}
