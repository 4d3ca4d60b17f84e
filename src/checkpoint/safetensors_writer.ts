// Writes safetensors files: header first, then each tensor's bytes, with at most one tensor in memory. The file
// gets its name when it is complete. Does not know what the tensors are.
// Source: the safetensors format description (huggingface/safetensors, README "Format").

import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { SparseVilaError } from '../errors';
import { replaceable, temporaryName, writeError } from '../runtime/atomic';
import { readBytes, type TensorDtype, type TensorEntry } from './safetensors';

/** A tensor to write. Its bytes are requested once, when it is written. */
export interface TensorSource {
  readonly name: string;
  readonly dtype: TensorDtype;
  readonly shape: readonly number[];
  readonly byteLength: number;
  bytes(): Uint8Array | AsyncIterable<Uint8Array>;
}

/** An unchanged tensor of a checkpoint, optionally under another name. */
export function copyOf(entry: TensorEntry, name = entry.name): TensorSource {
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < entry.bytes; at += PIECE_BYTES)
      yield readBytes(entry, at, Math.min(PIECE_BYTES, entry.bytes - at));
  }
  return { name, dtype: entry.dtype, shape: entry.shape, byteLength: entry.bytes, bytes: pieces };
}

const PIECE_BYTES = 64 * 2 ** 20;

export interface WriteOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called with the bytes written since the last call. */
  readonly onBytes?: (bytes: number) => void;
}

/**
 * Writes `tensors` into `file`, those of wider elements first, so that each is aligned to its element. On any error, including an abort, no file is left.
 * @throws SparseVilaError `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE`; `signal.reason`; errors of `bytes`
 */
export async function writeSafetensors(
  file: string,
  given: readonly TensorSource[],
  options: WriteOptions = {},
): Promise<void> {
  const tensors = given.toSorted((a, b) => elementBytes(b) - elementBytes(a));
  const target = replaceable(file);
  const temporary = temporaryName(target);
  try {
    const handle = await open(temporary, 'wx');
    try {
      await writeAll(handle, headerBytes(tensors));
      for (const tensor of tensors) await writeTensor(handle, tensor, options);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { force: true });
    throw writeError(error, file);
  }
}

function elementBytes({ byteLength, shape }: TensorSource): number {
  const elements = shape.reduce((product, size) => product * size, 1);
  return elements === 0 ? 0 : byteLength / elements;
}

/** The length and the JSON header, padded with spaces so that the data starts at a multiple of 8. */
function headerBytes(tensors: readonly TensorSource[]): Uint8Array {
  const header: Record<string, unknown> = Object.create(null); // a tensor may be called __proto__
  header.__metadata__ = { format: 'pt' };
  let end = 0;
  for (const { name, dtype, shape, byteLength } of tensors) {
    if (name in header) throw new SparseVilaError('ERR_CHECKPOINT_INVALID', `Tensor "${name}" is given twice.`);
    header[name] = { dtype, shape, data_offsets: [end, end + byteLength] };
    end += byteLength;
  }
  const json = Buffer.from(JSON.stringify(header));
  const padded = Math.ceil(json.length / 8) * 8;
  const bytes = Buffer.alloc(8 + padded, ' ');
  bytes.writeBigUInt64LE(BigInt(padded));
  json.copy(bytes, 8);
  return bytes;
}

async function writeTensor(handle: FileHandle, tensor: TensorSource, options: WriteOptions): Promise<void> {
  options.signal?.throwIfAborted();
  const source = tensor.bytes();
  const pieces = source instanceof Uint8Array ? [source] : source;
  let written = 0;
  for await (const piece of pieces) {
    await writeAll(handle, piece);
    written += piece.byteLength;
    options.onBytes?.(piece.byteLength);
    options.signal?.throwIfAborted();
  }
  if (written === tensor.byteLength) return;
  throw new SparseVilaError(
    'ERR_CHECKPOINT_INVALID',
    `Tensor "${tensor.name}": expected ${tensor.byteLength} bytes, received ${written}.`,
  );
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.byteLength - done);
    done += bytesWritten;
  }
}
