// Rows of KV caches in a temporary file, which has no name while it is used, so that nothing is left of it after a crash. Knows no layers: a row has a slot.

import { closeSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decodeFloats, encodeFloats } from '../checkpoint/half';
import { SparseVilaError } from '../errors';
import type { KvType } from '../ops/kv_cache';
import { writeError } from '../runtime/atomic';

/** One cache's part in a file of rows of one size that several caches may share. A row that was written does not change. */
export interface HostRows {
  /** Writes rows, f32 [n, width], and returns the slot of the first; the others follow it. @throws SparseVilaError `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE` */
  write(rows: Float32Array): number;
  /** Rows of consecutive slots, f32 [n, width]. @throws SparseVilaError `ERR_FILE_UNREADABLE` */
  read(slot: number, n: number): Float32Array;
  /** Bytes of the file up to the last slot that any cache may read. */
  readonly bytes: number;
  /** The part of one more cache, which may read what this one may read. */
  share(): HostRows;
  /** This cache reads no slot from `end` on any more; slots behind those of all caches are free. */
  truncate(end: number): void;
  /** One cache less: its slots behind those of the others are free, and the last one closes the file. */
  dispose(): void;
}

let files = 0;

/** @param width numbers of a row @param folder default: the system's for temporary files, `TMPDIR` */
export function hostRows(width: number, type: KvType, folder = tmpdir()): HostRows {
  const dtype = type === 'bf16' ? 'BF16' : 'F32';
  const rowBytes = width * (type === 'bf16' ? 2 : 4);
  const path = join(folder, `sparsevila-kv-${process.pid}-${Date.now().toString(36)}-${files++}`);
  let file: number | undefined;
  let isNamed = false;
  /** For each cache, the end of the slots that it may read. */
  const ends = new Set<{ end: number }>();
  const lastEnd = (): number => [...ends].reduce((last, { end }) => Math.max(last, end), 0);
  /** Opened when the first row is written. */
  const open = (): number => {
    if (file !== undefined) return file;
    file = openSync(path, 'wx+', 0o600);
    isNamed = true;
    unlink();
    return file;
  };
  /** An open file can have no name, except where the system forbids it. */
  const unlink = (): void => {
    try {
      if (isNamed) unlinkSync(path);
      isNamed = false;
    } catch {
      // It is removed when it is closed.
    }
  };
  const rowsOf = (own: { end: number }): HostRows => ({
    write(values) {
      const bytes = encodeFloats(values, dtype);
      const slot = lastEnd();
      try {
        const to = open();
        for (let at = 0; at < bytes.length; ) at += writeSync(to, bytes, at, bytes.length - at, slot * rowBytes + at);
      } catch (error) {
        throw writeError(error, path);
      }
      own.end = slot + values.length / width;
      return slot;
    },
    read(slot, n) {
      const bytes = new Uint8Array(n * rowBytes);
      for (let at = 0; at < bytes.length; ) {
        const got = file === undefined ? 0 : readSync(file, bytes, at, bytes.length - at, slot * rowBytes + at);
        if (got === 0)
          throw new SparseVilaError(
            'ERR_FILE_UNREADABLE',
            `Expected row ${slot} of the KV cache in ${path}, found its end.`,
          );
        at += got;
      }
      return decodeFloats(bytes, dtype);
    },
    get bytes() {
      return lastEnd() * rowBytes;
    },
    share() {
      return added(own.end);
    },
    truncate(to) {
      own.end = Math.min(own.end, to);
    },
    dispose() {
      ends.delete(own);
      if (ends.size > 0 || file === undefined) return;
      closeSync(file);
      file = undefined;
      unlink();
    },
  });
  const added = (end: number): HostRows => {
    const own = { end };
    ends.add(own);
    return rowsOf(own);
  };
  return added(0);
}
