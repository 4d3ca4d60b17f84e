// NVILA's pooling of videos (TSP), one and several pool sizes, against VILA's own order of means: time, rows, columns, one after another.
// Source: NVlabs/VILA `llava/model/encoders/video/tsp.py`.

import { videoLayout } from '../../src/models/families/vila_layouts';
import type { RowMap } from '../../src/models/media';
import type { Pool } from '../../src/models/pooled_frames';
import { mapValues } from '../../src/models/row_maps';
import { uniform } from '../../src/text/random';
import { errorOf } from '../image/fixtures';

const SHAPE = {
  tower: { imageSize: 8, patchSize: 2, classToken: false },
  block: 1,
  copies: 1,
  before: undefined,
  after: '\n',
};
/** Tokens per side. */
const SIDE = 4;
const layoutOf = (frames: number, pools: readonly Pool[]) =>
  videoLayout(SHAPE, { kind: 'video', width: 20, height: 10, frames }, [], pools);

/** The means of groups of `size` along one axis of [t, h, w]. */
function pooled(x: number[], shape: readonly number[], axis: number, size: number): number[] {
  const stride = shape.slice(axis + 1).reduce((a, b) => a * b, 1);
  const length = shape[axis] as number;
  return Array.from({ length: x.length / size }, (_, i) => {
    const [outer, group, inner] = [
      Math.floor(i / (stride * (length / size))),
      Math.floor(i / stride) % (length / size),
      i % stride,
    ];
    const at = (k: number): number => x[(outer * length + group * size + k) * stride + inner] as number;
    return Array.from({ length: size }, (_, k) => at(k)).reduce((a, b) => a + b) / size;
  });
}

it.each<[string, Pool[]]>([
  ["NVILA's", [[8, 1, 1]]],
  ['rows and columns', [[1, 2, 4]]],
  [
    'three sizes one after another',
    [
      [8, 1, 1],
      [2, 2, 2],
      [1, 4, 4],
    ],
  ],
])('%s', (_, pools) => {
  const random = uniform(1);
  const x = Array.from({ length: 16 * SIDE * SIDE }, () => Math.fround(random() - 0.5));
  const { pool, grids, runs, text } = layoutOf(16, pools);
  const expected = pools.flatMap((sizes) => {
    let [y, shape] = [x, [16, SIDE, SIDE]];
    for (const [axis, size] of sizes.entries()) {
      y = pooled(y, shape, axis, size);
      shape = shape.map((length, i) => (i === axis ? length / size : length));
    }
    return y;
  });
  const rows = mapValues(Float32Array.from(x), pool as RowMap, 1);
  expect(rows).toHaveLength(expected.length);
  for (const [i, row] of rows.entries()) expect(row).toBeCloseTo(expected[i] as number, 6);
  expect(grids.map(({ t, h, w }) => [t, h, w])).toEqual(pools.map(([t, h, w]) => [16 / t, SIDE / h, SIDE / w]));
  // One run for each pooled frame, each followed by a line break; all tokens once.
  expect(runs).toHaveLength(pools.reduce((sum, [t]) => sum + 16 / t, 0));
  expect(runs.map(({ from, to, after }) => [from, to - from, after])).toEqual(
    grids
      .flatMap(({ t, h, w }) => Array<number>(t).fill(h * w))
      .map((own, i, all) => [all.slice(0, i).reduce((a, b) => a + b, 0), own, '\n']),
  );
  expect(text).toHaveLength(runs.length);
});

it('a number of frames that a pool size does not divide is refused', async () => {
  const error = await errorOf(() =>
    layoutOf(15, [
      [1, 1, 1],
      [8, 1, 1],
    ]),
  );
  expect([error.code, error.message]).toEqual([
    'ERR_VIDEO',
    expect.stringMatching(/frames that 8 divides.*received 15/),
  ]);
});
