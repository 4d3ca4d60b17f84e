// Patches: their order in the layouts that several families share, and their values, cut from canvases.

import { SparseVilaError } from '../errors';
import type { RgbImage } from '../image/decode';
import type { Normalization } from '../image/preprocessor_config';
import type { Patches, PreparedMedium } from './media';
import type { Plan } from './plan';
import type { TowerConfig } from './tower';

/** `count` canvases of cells × cells patches of `size` pixels, in raster order; the patches of a canvas attend to each other. */
export function squarePatches(count: number, cells: number, size: number): Patches {
  const each = cells * cells;
  const corners = new Int32Array(count * each * 3);
  for (let patch = 0; patch < count * each; patch++) {
    const at = patch % each;
    corners[3 * patch] = Math.floor(patch / each);
    corners[3 * patch + 1] = Math.floor(at / cells) * size;
    corners[3 * patch + 2] = (at % cells) * size;
  }
  return { corners, segments: Int32Array.from({ length: count + 1 }, (_, i) => i * each) };
}

/** The value of each byte in each channel: `(f32(x · rescaleFactor) - f32(mean)) / f32(std)`, every step rounded to f32. */
export function pixelTables({ rescaleFactor, mean, std }: Normalization): readonly Float32Array[] {
  return [0, 1, 2].map((channel) => {
    const [m, s] = [Math.fround(mean[channel] as number), Math.fround(std[channel] as number)];
    return Float32Array.from({ length: 256 }, (_, x) => Math.fround(Math.fround(x * rescaleFactor) - m) / s);
  });
}

/** f32 [end - begin, 3 · frames · size · size]: the values of patches begin … end - 1, in the order of a convolution's weights. */
export function patchValues(
  canvases: readonly RgbImage[],
  { corners }: Patches,
  { begin, end }: { readonly begin: number; readonly end: number },
  { patchSize: size, patchFrames: frames }: Pick<TowerConfig, 'patchSize' | 'patchFrames'>,
  tables: readonly Float32Array[],
): Float32Array {
  const y = new Float32Array((end - begin) * 3 * frames * size * size);
  let at = 0;
  for (let patch = begin; patch < end; patch++) {
    const [first, top, left] = corners.subarray(3 * patch, 3 * patch + 3) as unknown as [number, number, number];
    for (let plane = 0; plane < 3 * frames; plane++) {
      const channel = Math.floor(plane / frames);
      const table = tables[channel] as Float32Array;
      const { data, width } = canvases[first + (plane % frames)] as RgbImage;
      for (let row = 0; row < size; row++) {
        let from = ((top + row) * width + left) * 3 + channel;
        for (let col = 0; col < size; col++, from += 3) y[at++] = table[data[from] as number] as number;
      }
    }
  }
  return y;
}

/** f32 [to - from, parts · taps · 3 · frames · size · size]: the values of the patches that each token is made of; zeros beyond the edges. */
export function tokenPixels(
  { family, tower }: Pick<Plan, 'family' | 'tower'>,
  tables: readonly Float32Array[],
  { layout, canvases }: PreparedMedium,
  { from, to }: { readonly from: number; readonly to: number },
): { readonly data: Float32Array; readonly width: number } {
  const { merge, patches, pool } = layout;
  if (pool !== undefined)
    throw new SparseVilaError(
      'ERR_METHOD_UNSUPPORTED',
      `Expected a medium whose tokens are made of patches alone, since the method leaves some out before the tower, received one of ${family} whose ` +
        'tokens are pooled behind the projector.',
    );
  const each = merge.parts * merge.taps;
  const own = 3 * tower.patchFrames * tower.patchSize ** 2;
  const data = new Float32Array((to - from) * each * own);
  const patchOf = patchesOfRows(patches, Number(tower.classToken));
  for (let at = 0; at < (to - from) * each; at++) {
    const patch = patchOf[merge.from[from * each + at] as number] ?? -1;
    if (patch >= 0) data.set(patchValues(canvases, patches, { begin: patch, end: patch + 1 }, tower, tables), at * own);
  }
  return { data, width: each * own };
}

/** The patch of each row that the tower gives; -1 for class rows. */
function patchesOfRows({ segments }: Patches, classRows: number): Int32Array {
  const rows: number[] = [];
  for (let s = 0; s + 1 < segments.length; s++) {
    if (classRows > 0) rows.push(-1);
    for (let patch = segments[s] as number; patch < (segments[s + 1] as number); patch++) rows.push(patch);
  }
  return Int32Array.from(rows);
}
