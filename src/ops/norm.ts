// RMSNorm and LayerNorm over rows.

import type { Tensor } from '../runtime/tensor';
import { run } from './run';

/**
 * y = x / sqrt(mean(x^2) + eps) * w. (Zhang and Sennrich 2019; the order of operations is Llama's.)
 * @param x f32 [t, d]
 * @param w f32 [d]
 * @param eps f32 [1]
 */
export function rmsNorm(x: Tensor, w: Tensor, eps: Tensor): Tensor {
  return run('SvRmsNorm', [x, w, eps]);
}

/** y = (x - mean) / sqrt(var + eps) * w + b, rows of f32 [t, d]; eps f32 [1]. (Ba, Kiros and Hinton 2016.) */
export function layerNorm(x: Tensor, w: Tensor, b: Tensor, eps: Tensor): Tensor {
  return run('SvLayerNorm', [x, w, b, eps]);
}

export function rmsNormReference(x: ArrayLike<number>, w: ArrayLike<number>, eps: number): Float64Array {
  const d = w.length;
  const y = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += d) {
    let sum = 0;
    for (let c = 0; c < d; c++) sum += (x[row + c] as number) ** 2;
    const inverse = 1 / Math.sqrt(sum / d + eps);
    for (let c = 0; c < d; c++) y[row + c] = (x[row + c] as number) * inverse * (w[c] as number);
  }
  return y;
}

export function layerNormReference(
  x: ArrayLike<number>,
  w: ArrayLike<number>,
  b: ArrayLike<number>,
  eps: number,
): Float64Array {
  const d = w.length;
  const y = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += d) {
    let mean = 0;
    for (let c = 0; c < d; c++) mean += (x[row + c] as number) / d;
    let variance = 0;
    for (let c = 0; c < d; c++) variance += ((x[row + c] as number) - mean) ** 2 / d;
    const inverse = 1 / Math.sqrt(variance + eps);
    for (let c = 0; c < d; c++)
      y[row + c] = ((x[row + c] as number) - mean) * inverse * (w[c] as number) + (b[c] as number);
  }
  return y;
}
