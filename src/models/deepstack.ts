// Deepstack (Qwen3-VL, arXiv 2406.04334): hidden states of several layers of the tower stand side by side in a patch's features, and each but
// the first becomes rows that are added to the output of one of the first decoder layers.

import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { Projector } from './projector';
import type { Segment } from './segments';

/**
 * Projectors of several hidden states that stand side by side in each patch of a token: f32 [m, patches · k · e] to their rows side by side,
 * f32 [m, k d].
 */
export function besideProjector(projectors: readonly Projector[], e: number): Projector {
  const [only] = projectors;
  if (only !== undefined && projectors.length === 1) return only;
  return (rows) => {
    const { tf } = start();
    return tf.tidy(() =>
      tf.concat(
        projectors.map((project, i) => project(stateOf(rows, i, projectors.length, e))),
        1,
      ),
    );
  };
}

/** Of `count` hidden states side by side in each patch, f32 [m, patches · count · e], the one of number `index`: f32 [m, patches · e]. */
export function stateOf(rows: Tensor, index: number, count: number, e: number): Tensor {
  if (count === 1) return rows.clone();
  const { tf } = start();
  const [m, width] = rows.shape as [number, number];
  const patches = width / (count * e);
  return tf.tidy(() => {
    const own = tf.slice(tf.reshape(rows, [m * patches, count * e]), [0, index * e], [m * patches, e]);
    return tf.reshape(own, [m, patches * e]);
  });
}

/** The output y of a decoder layer with the rows that are added to it; y itself if there are none, otherwise it is disposed of. */
export function withAdded(y: Tensor, batch: readonly Segment[], layer: number): Tensor {
  if (batch.every(({ added }) => added?.[layer] === undefined)) return y;
  const { tf } = start();
  const d = y.shape[1] as number;
  const sum = tf.tidy(() => {
    const parts = batch.map(({ added, positions }) => added?.[layer] ?? tf.zeros([positions.length, d]));
    return tf.add(y, parts.length === 1 ? (parts[0] as Tensor) : tf.concat(parts));
  });
  y.dispose();
  return sum;
}
