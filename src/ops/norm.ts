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
