// Space-to-depth: the token-reducing step of VILA's projectors, and, averaged, of salience.

import type { Tensor } from '../runtime/tensor';
import { run, withInt32 } from './run';

/**
 * f32 [h w, c] -> [ceil(h/k) ceil(w/k), k k c]: one token per k x k block in raster order, the block's patches in row-major
 * order along the channels; missing patches at the bottom and right are zero.
 */
export function spaceToDepth(x: Tensor, h: number, w: number, k: number): Tensor {
  return withInt32([h, w, k], (size) => run('SvSpaceToDepth', [x, size]));
}

export function spaceToDepthReference(x: ArrayLike<number>, h: number, w: number, k: number): Float64Array {
  const c = x.length / (h * w);
  const [rows, cols] = [Math.ceil(h / k), Math.ceil(w / k)];
  const y = new Float64Array(rows * cols * k * k * c);
  for (let i = 0; i < h; i++)
    for (let j = 0; j < w; j++) {
      const token = Math.floor(i / k) * cols + Math.floor(j / k);
      const patch = (i % k) * k + (j % k);
      for (let e = 0; e < c; e++) y[(token * k * k + patch) * c + e] = x[(i * w + j) * c + e] as number;
    }
  return y;
}
