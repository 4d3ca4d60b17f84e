// The KV cache of one layer. Only ops make, write and read it, because appends write in place and tfjs keeps host copies of tensors that
// JavaScript reads.

import { totalmem } from 'node:os';
import { SparseVilaError } from '../errors';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { int32, run, runEffect, withInt32 } from './run';

export type KvType = 'bf16' | 'f32';

const ELEMENT_BYTES: Readonly<Record<KvType, number>> = { bf16: 2, f32: 4 };

/** @throws SparseVilaError `ERR_OUT_OF_MEMORY` for a cache that exceeds the machine's memory, before TensorFlow retries for many seconds */
export function checkKvMemory(kvHeads: number, capacity: number, c: number, type: KvType): void {
  const bytes = kvBytes(kvHeads, capacity, c, type);
  if (bytes <= totalmem()) return;
  const [wanted, there] = [bytes, totalmem()].map((n) => (n / 2 ** 30).toFixed(1));
  throw new SparseVilaError(
    'ERR_OUT_OF_MEMORY',
    `Expected at most ${there} GiB of memory for a KV cache, received a request for ${wanted}. Lower contextLength.`,
  );
}

/**
 * uint8 [2 (keys, values), kvHeads, capacity, c * bytes]: uninitialized; only written pages are resident.
 * @throws SparseVilaError as `checkKvMemory`
 */
export function allocKv(kvHeads: number, capacity: number, c: number, type: KvType): Tensor {
  checkKvMemory(kvHeads, capacity, c, type);
  return withInt32([kvHeads, capacity, c, ELEMENT_BYTES[type]], (shape) => run('SvKvAlloc', [shape]));
}

/**
 * A cache of `capacity` rows, the first `rows` of which are those of kv; c is the head width.
 */
export function copyKv(kv: Tensor, rows: number, capacity: number, c: number): Tensor {
  return withInt32([rows, capacity, c], (size) => run('SvKvCopy', [kv, size]));
}

/** Bytes of a cache. */
export function kvBytes(kvHeads: number, capacity: number, c: number, type: KvType): number {
  return 2 * kvHeads * capacity * c * ELEMENT_BYTES[type];
}

/** Writes k and v, f32 [t, kvHeads, c], at rows at .. at + t - 1. Throws when they do not fit. */
export function appendKv(kv: Tensor, k: Tensor, v: Tensor, at: number): void {
  withInt32([at], (row) => runEffect('SvKvAppend', [kv, k, v, row]));
}

/** Rows begin .. end - 1 as f32 [2, kvHeads, end - begin, c]. */
export function readKv(kv: Tensor, begin: number, end: number, c: number): Tensor {
  return withInt32([begin, end, c], (range) => run('SvKvRead', [kv, range]));
}

/** Keeps of rows begin .. end - 1 only begin + kept[i], ascending, and moves them together; c is the head width. */
export function keepKvRows(
  kv: Tensor,
  { begin, end, c }: { begin: number; end: number; c: number },
  kept: Int32Array,
): void {
  const { tf } = start();
  const rows = readKv(kv, begin, end, c);
  const indices = int32(kept);
  const gathered = tf.gather(rows, indices as Parameters<typeof tf.gather>[1], 2);
  const byRow = tf.transpose(gathered, [0, 2, 1, 3]);
  const half = byRow.shape.slice(1);
  const halves = [0, 1].map((at) => tf.slice(byRow, [at, 0, 0, 0], [1, ...half]));
  const [k, v] = halves.map((tensor) => tf.reshape(tensor, half)) as [Tensor, Tensor];
  try {
    appendKv(kv, k, v, begin);
  } finally {
    for (const tensor of [rows, indices, gathered, byRow, ...halves, k, v]) tensor.dispose();
  }
}
