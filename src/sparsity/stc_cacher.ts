// STC-Cacher (arXiv 2512.00891): in every second frame of a film, each block of the tower computes only the quarter of the rows whose keys have changed
// most since the frame before; the others add what the block has added there.
// Stage: inside the tower. Query-aware: no. Safe for later turns: yes. Source: the paper and lern-to-write/STC@9b13ce0 `custom_siglip.py`, `config.py`.
// Differences: a chunk is one frame; the values of all rows are those of the frame itself, since queries, keys and values are one product, where the
// code keeps the reference's values of rows that are not computed; attention and MLP outputs are kept as their sum. As in the code, a fixed share
// of the rows is computed, whatever their cosines are.

import { checkOptions, integer } from '../options';
import type { ReuseView, SparsityMethod } from './method';
import { topK } from './top_k';

export interface StcCacherOptions {
  /** Of so many frames in a row the first is computed whole; default 2. With 1, all are. */
  readonly every?: number;
  /** Share of the rows that a block computes in the other frames, rounded up; default 0.25. */
  readonly computed?: number;
}

const COMPUTED = {
  expected: 'a share from 0 to 1',
  accepts: (value: unknown) => typeof value === 'number' && value >= 0 && value <= 1,
};

/** A block computes the ceil(computed rows) rows of the least cosine between their key and the reference's, the first of equal ones. */
export function stcCacher(options: StcCacherOptions = {}): SparsityMethod {
  const { every = 2, computed = 0.25 } = checkOptions('stcCacher', options, { every: integer(1), computed: COMPUTED });
  return { name: 'stc', reuse: { every, select: (view) => mostChanged(view, Math.ceil(computed * view.rows)) } };
}

function mostChanged({ rows, keys, reference }: ReuseView, count: number): Int32Array {
  const changes = Float32Array.from({ length: rows }, (_, row) => -cosine(keys.data, reference.data, row, keys.width));
  return topK(changes, count);
}

/** The cosine of row i of two matrices; 0 for zeros. */
function cosine(a: Float32Array, b: Float32Array, i: number, width: number): number {
  let dot = 0;
  let ofA = 0;
  let ofB = 0;
  for (let at = i * width; at < (i + 1) * width; at++) {
    const x = a[at] as number;
    const y = b[at] as number;
    dot += x * y;
    ofA += x * x;
    ofB += y * y;
  }
  return ofA * ofB === 0 ? 0 : dot / Math.sqrt(ofA * ofB);
}
