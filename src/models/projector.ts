// The projector: from the features of tokens to rows for the decoder, as a list of norms and linear layers.

import { type Activation, linear } from '../ops/linear';
import { layerNorm } from '../ops/norm';
import type { Tensor } from '../runtime/tensor';
import type { Weights } from './weights';

/** One step: a LayerNorm, or a linear layer [rows, cols] (outputs, inputs) and the activation that follows it. */
export type ProjectorStep =
  | { readonly kind: 'norm'; readonly name: string; readonly width: number; readonly eps: number }
  | {
      readonly kind: 'linear';
      readonly name: string;
      readonly rows: number;
      readonly cols: number;
      readonly bias: boolean;
      readonly activation: Activation;
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
    const [w, b] = [weights.tensor(`${name}.weight`, [width]), weights.tensor(`${name}.bias`, [width])];
    const eps = weights.constant([step.eps]);
    return (x) => layerNorm(x, w, b, eps);
  }
  const { rows, cols, activation } = step;
  const w = weights.matrix([`${name}.weight`], [rows], cols);
  const bias = step.bias ? weights.tensor(`${name}.bias`, [rows]) : weights.constant([]);
  return (x) => linear(x, w, bias, activation);
}
