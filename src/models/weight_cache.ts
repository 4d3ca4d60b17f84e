// The packed matrices of one load in the cache on disk (src/checkpoint/packed_store.ts): found there, they are mapped; else they are packed into a
// new entry, which becomes visible when the whole model is loaded. The key is made from the headers and from samples of the tensors. That a
// checkpoint has not changed is seen by the identities of its files, or else by the checksums of its tensors. Whatever fails here, loading packs.

import { createHash } from 'node:crypto';
import { closeSync, realpathSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import {
  draftPacked,
  findPacked,
  makeRoom,
  markPacked,
  type PackedIndex,
  type PackedRecord,
  packedFolder,
  removePacked,
  weightCacheLimit,
  weightsOf,
  writeIndex,
} from '../checkpoint/packed_store';
import { openCheckpoint, type TensorEntry } from '../checkpoint/safetensors';
import { messageOf } from '../errors';
import { openRegular, readRange } from '../files';
import { readJson } from '../json';
import {
  type ByteRange,
  checksums,
  mapPacked,
  type PackedMatrix,
  type Precision,
  packedSum,
  type WeightType,
} from '../ops/weights';
import { packageFolder } from '../runtime/paths';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { memoryOf } from './counted_weights';
import type { Stack, StackForm } from './weight_index';

/** Models of fewer bytes are packed faster than they are looked up. */
const LEAST_BYTES = 2 ** 28;
/** Read from the middle of each tensor for the key, which tells checkpoints of equal headers apart. */
const SAMPLE_BYTES = 4096;
/** Matrices begin at multiples of these: large ones so that they can lie in huge pages, small ones in pages of any processor. */
const LARGE = { bytes: 2 ** 24, step: 2 ** 21 };
const SMALL_STEP = 2 ** 16;

/** A matrix that a model needs. */
export interface MatrixRequest {
  readonly stack: Stack;
  readonly form: StackForm;
  readonly isTable: boolean;
  readonly type: WeightType | undefined;
  /** Its tensors in the checkpoint. */
  readonly entries: readonly TensorEntry[];
  /** The location of a tensor's bytes, which then counts as read. */
  rangeOf(entry: TensorEntry): ByteRange;
}

export interface MatrixCache {
  /** The matrix of an entry, mapped and checked; `keep` receives its tensor. */
  find(request: MatrixRequest, keep: (tensor: Tensor) => void): PackedMatrix | undefined;
  /** Packs into the entry that is being written, if there is one. */
  add(request: MatrixRequest, pack: (place?: ByteRange) => PackedMatrix): PackedMatrix | undefined;
  /** After everything was loaded: makes a new entry visible, or removes one that was damaged. */
  finish(): void;
  /** Forgets what was begun. Does nothing after `finish`. */
  close(): void;
}

export interface WeightCacheOptions {
  readonly model: string;
  /** The folders of the model's parts. */
  readonly folders: readonly string[];
  readonly type: WeightType | undefined;
  readonly precision: Precision | undefined;
  /** true: for every model, false: for none; undefined: for those of 256 MB or more. */
  readonly wanted: boolean | undefined;
}

/** The cache for one load; undefined where there is none. @throws SparseVilaError `ERR_OPTION_INVALID` for SPARSEVILA_WEIGHT_CACHE */
export function openWeightCache(options: WeightCacheOptions): MatrixCache | undefined {
  const limit = weightCacheLimit();
  if (options.wanted === false || limit === 0) return undefined;
  const tensors = [...new Set(options.folders)].flatMap((folder) => [...openCheckpoint(folder).values()]);
  const bytes = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  if (options.wanted === undefined && bytes < LEAST_BYTES) return undefined;
  try {
    const files = [...new Set(tensors.map(({ file }) => file))].map(identityOf);
    const folder = join(packedFolder(), keyOf(tensors, options));
    const index = findPacked(folder);
    return index === undefined ? writer({ ...options, folder, files, limit, bytes }) : reader(folder, files, index);
  } catch (error) {
    warnOnce(error);
    return undefined;
  }
}

let isWarned = false;

function warnOnce(error: unknown): void {
  if (isWarned) return;
  isWarned = true;
  process.emitWarning(`Packed weights are not kept on disk: ${messageOf(error)}.`.replace(/\.+$/, '.'), {
    type: 'SparseVilaWarning',
    code: 'SPARSEVILA_WEIGHT_CACHE',
    detail:
      'The next load packs them again. `sparsevila cache` shows what is kept; SPARSEVILA_WEIGHT_CACHE is its size, or off.',
  });
}

/** What changes when a file is written or replaced. */
function identityOf(file: string): string {
  const { dev, ino, size, mtimeNs, ctimeNs } = statSync(realpathSync(file), { bigint: true });
  return [dev, ino, size, mtimeNs, ctimeNs].join(' ');
}

/** A digest of headers, samples of each tensor, the way of packing, the level of the kernels, and the version of the code. */
function keyOf(tensors: readonly TensorEntry[], { type, precision }: WeightCacheOptions): string {
  const { native, build } = start();
  const version = readJson(join(packageFolder(), 'package.json')).version;
  const hash = createHash('sha256');
  hash.update(JSON.stringify([version, build, native.isa(), type ?? 'stored', precision ?? 'exact']));
  const opened = new Map<string, number>();
  const sample = new Uint8Array(SAMPLE_BYTES);
  try {
    for (const { file, name, dtype, shape, offset, bytes } of tensors) {
      const fd = opened.get(file) ?? openRegular(file, { what: 'a safetensors file' }).fd;
      opened.set(file, fd);
      const part = sample.subarray(0, Math.min(bytes, SAMPLE_BYTES));
      readRange(fd, part, offset + Math.floor((bytes - part.length) / 2), file);
      hash.update(JSON.stringify([basename(file), name, dtype, shape, offset])).update(part);
    }
  } finally {
    for (const fd of opened.values()) closeSync(fd);
  }
  return hash.digest('hex').slice(0, 32);
}

/** What was requested and in which form it is stored; files have been told apart by the entry's key. */
function recordKey({ stack, form, isTable }: MatrixRequest): string {
  const text = JSON.stringify([stack, form, isTable], (name, value: unknown) => (name === 'file' ? undefined : value));
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}

const sourceSum = ({ entries, rangeOf }: MatrixRequest): string =>
  checksums(entries.map((entry) => ({ ...rangeOf(entry), bytes: entry.bytes })));

/** A packed matrix of a request. */
function matrixOf({ stack: { rows, k, gated }, form, type }: MatrixRequest, tensor: Tensor): PackedMatrix {
  const outputs = gated ? (rows[0] as number) : rows.reduce((sum, count) => sum + count, 0);
  const stored = form.kind === 'plain' ? form.parts[0]?.type : undefined;
  const isFloat = form.kind === 'plain' || form.kind === 'mixed';
  return { tensor, outputs, inputs: k, gated, type: isFloat ? (type ?? stored ?? 'f32') : form.kind };
}

function reader(folder: string, files: readonly string[], index: PackedIndex): MatrixCache {
  const { native } = start();
  const source = native.openFile(weightsOf(folder));
  const records = new Map(index.records.map((record) => [record.key, record]));
  const isUnchanged = files.join() === index.files.join();
  let isDamaged = false;
  let isOpen = true;
  const close = (): void => {
    if (isOpen) native.release(source);
    isOpen = false;
  };
  return {
    find: (request, keep) => {
      const record = records.get(recordKey(request));
      try {
        if (record === undefined || !(isUnchanged || sourceSum(request) === record.source)) throw new Error('changed');
        const tensor = mapPacked({ source, offset: record.offset }, record.bytes, record.sum);
        for (const entry of request.entries) request.rangeOf(entry);
        keep(tensor);
        return matrixOf(request, tensor);
      } catch {
        isDamaged = true;
        return undefined;
      }
    },
    add: () => undefined,
    finish: () => {
      close();
      if (isDamaged) return removePacked(folder);
      if (!isUnchanged) quietly(() => writeIndex(folder, { ...index, files }));
      markPacked(folder);
    },
    close,
  };
}

interface NewEntry extends WeightCacheOptions {
  readonly folder: string;
  readonly files: readonly string[];
  readonly limit: number;
  /** Of the checkpoint, about those of its packed weights. */
  readonly bytes: number;
}

function writer({ folder, files, limit, model, bytes }: NewEntry): MatrixCache | undefined {
  const { native } = start();
  const draft = draftPacked(folder);
  if (draft === undefined) return undefined;
  let source: number | undefined;
  const records = new Map<string, PackedRecord>();
  let end = 0;
  const release = (): void => {
    if (source !== undefined) native.release(source);
    source = undefined;
  };
  const giveUp = (): void => {
    release();
    draft.discard();
  };
  try {
    makeRoom(bytes, 0, limit);
    source = native.createFile(draft.weights);
  } catch (error) {
    giveUp();
    throw error;
  }
  /** Takes space for a matrix. @throws SparseVilaError `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE` */
  const place = (file: number, bytes: number): ByteRange => {
    const step = bytes >= LARGE.bytes ? LARGE.step : SMALL_STEP;
    const offset = Math.ceil(end / step) * step;
    makeRoom(offset + bytes - end, end, limit);
    native.reserve(file, offset + bytes);
    end = offset + bytes;
    return { source: file, offset };
  };
  return {
    find: () => undefined,
    add: (request, pack) => {
      if (source === undefined) return undefined;
      try {
        const at = place(source, memoryOf(request.form, request.stack, request.type ?? 'stored'));
        const packed = pack(at);
        const key = recordKey(request);
        const { offset } = at;
        const record = { key, offset, bytes: packed.tensor.size, sum: packedSum(packed), source: sourceSum(request) };
        records.set(key, record);
        return packed;
      } catch (error) {
        giveUp(); // matrices that are there stay mapped
        warnOnce(error);
        return undefined;
      }
    },
    finish: () => {
      if (source === undefined) return;
      release();
      draft.commit({ files, records: [...records.values()], model });
    },
    close: () => {
      if (source !== undefined) giveUp();
    },
  };
}

function quietly(work: () => void): void {
  try {
    work();
  } catch {
    // A read-only cache is maintained by others.
  }
}
