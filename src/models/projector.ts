// The projector: maps the features of tokens to rows for the decoder, as a list of norms and linear layers.

import { type Activation, linear } from '../ops/linear';
import { layerNorm, rmsNorm } from '../ops/norm';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { Weights } from './weights';

/**
 * One step: an RMSNorm, a LayerNorm where there is a bias, or a linear layer [rows, cols] (outputs, inputs) and the activation that follows
 * it. A norm that is narrower than a row is one of its pieces: of the patches that a token is made of; `plus` is added to its weight. A
 * transposed matrix is stored as [cols, rows] and stays in floating point.
 */
export type ProjectorStep =
  | {
      readonly kind: 'norm';
      readonly name: string;
      readonly width: number;
      readonly bias: boolean;
      readonly eps: number;
      readonly plus?: number;
    }
  | {
      readonly kind: 'linear';
      readonly name: string;
      readonly rows: number;
      readonly cols: number;
      readonly bias: boolean;
      readonly activation: Activation;
      readonly transposed?: boolean;
    };

/** Rows f32 [m, width] to rows f32 [m, d]; the result is a new tensor. */
export type Projector = (rows: Tensor) => Tensor;

/** Builds the projector from canonically named weights. */
export function buildProjector(steps: readonly ProjectorStep[], weights: Weights): Projector {
  const functions = steps.map((step) => projectorStep(step, weights));
  return (rows) => {
    let x = rows.clone();
    for (const step of functions) {
      const y = step(x);
      x.dispose();
      x = y;
    }
    return x;
  };
}

function projectorStep(step: ProjectorStep, weights: Weights): Projector {
  const { name } = step;
  if (step.kind === 'norm') {
    const { width } = step;
    const w = weights.tensor(`${name}.weight`, [width], step.plus);
    const b = step.bias ? weights.tensor(`${name}.bias`, [width]) : undefined;
    const eps = weights.constant([step.eps]);
    const norm: Projector = (x) => (b === undefined ? rmsNorm(x, w, eps) : layerNorm(x, w, b, eps));
    return (x) => inPieces(x, width, norm);
  }
  const { rows, cols, activation, transposed = false } = step;
  const w = weights.matrix([`${name}.weight`], [rows], cols, { transposed });
  const bias = step.bias ? weights.tensor(`${name}.bias`, [rows]) : weights.constant([]);
  return (x) => linear(x, w, bias, activation);
}

/** What `work` makes of the pieces [m k, width] of rows [m, k width], as rows again; a new tensor. */
export function inPieces(rows: Tensor, width: number, work: Projector): Tensor {
  const { tf } = start();
  return tf.tidy(() => tf.reshape(work(tf.reshape(rows, [-1, width])), rows.shape));
}
