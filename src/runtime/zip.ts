// Reads members of a zip file (such as a Python wheel) without unpacking the rest: stored or deflated, below 4 GiB, not encrypted.
// Source: PKWARE's APPNOTE.TXT, §4.3.

import { createWriteStream } from 'node:fs';
import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PassThrough, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createInflateRaw } from 'node:zlib';
import { SparseVilaError } from '../errors';

export interface ZipMember {
  readonly name: string;
  /** Bytes when unpacked. */
  readonly size: number;
  readonly packedSize: number;
  readonly method: number;
  readonly headerOffset: number;
}

export interface Zip {
  readonly members: ReadonlyMap<string, ZipMember>;
  /** A member's content; for small ones. */
  read(member: ZipMember): Promise<Buffer>;
  /** Writes a member to a file, making its folder; `onBytes` receives the size of each piece written. */
  extract(member: ZipMember, path: string, options?: ExtractOptions): Promise<void>;
  close(): Promise<void>;
}

export interface ExtractOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onBytes?: (bytes: number) => void;
}

const END_OF_DIRECTORY = 0x06054b50;
const DIRECTORY_ENTRY = 0x02014b50;
const STORED = 0;
const DEFLATED = 8;
const PIECE = 1 << 20;

/** Opens a zip file and reads its directory. Close it after use. */
export async function openZip(path: string): Promise<Zip> {
  const file = await open(path, 'r');
  try {
    const members = await readDirectory(file, path);
    return {
      members,
      read: async (member) => {
        const pieces: Buffer[] = [];
        await pipeline(packed(file, member), unpacker(member), async (source: AsyncIterable<Buffer>) => {
          for await (const piece of source) pieces.push(piece);
        });
        return Buffer.concat(pieces);
      },
      extract: (member, target, options) => extract(file, member, target, options),
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset);
  return buffer.subarray(0, bytesRead);
}

async function readDirectory(file: FileHandle, path: string): Promise<Map<string, ZipMember>> {
  const { size } = await file.stat();
  const tailSize = Math.min(size, 22 + 0xffff); // the end record, and a comment of any length
  const tail = await readAt(file, size - tailSize, tailSize);
  let at = tail.length - 22;
  while (at >= 0 && tail.readUInt32LE(at) !== END_OF_DIRECTORY) at--;
  if (at < 0) {
    throw new SparseVilaError('ERR_BAD_ZIP', `Expected a zip file at ${path} but found no zip directory. Remove it.`);
  }
  const directory = await readAt(file, tail.readUInt32LE(at + 16), tail.readUInt32LE(at + 12));
  const members = new Map<string, ZipMember>();
  for (let p = 0; p + 46 <= directory.length && directory.readUInt32LE(p) === DIRECTORY_ENTRY; ) {
    const nameSize = directory.readUInt16LE(p + 28);
    const name = directory.toString('utf8', p + 46, p + 46 + nameSize);
    members.set(name, {
      name,
      method: directory.readUInt16LE(p + 10),
      packedSize: directory.readUInt32LE(p + 20),
      size: directory.readUInt32LE(p + 24),
      headerOffset: directory.readUInt32LE(p + 42),
    });
    p += 46 + nameSize + directory.readUInt16LE(p + 30) + directory.readUInt16LE(p + 32);
  }
  return members;
}

/** A member's bytes as stored in the file; read through the open handle, so the file may be unlinked meanwhile. */
async function* packed(file: FileHandle, member: ZipMember): AsyncGenerator<Buffer> {
  // The local header repeats the name and has its own length of extra fields.
  const header = await readAt(file, member.headerOffset, 30);
  let at = member.headerOffset + 30 + header.readUInt16LE(26) + header.readUInt16LE(28);
  const end = at + member.packedSize;
  while (at < end) {
    const piece = await readAt(file, at, Math.min(PIECE, end - at));
    if (piece.length === 0) {
      throw new SparseVilaError('ERR_BAD_ZIP', `Expected ${end - at} more bytes for ${member.name} but the file ends.`);
    }
    at += piece.length;
    yield piece;
  }
}

function unpacker(member: ZipMember): Transform {
  if (member.method === STORED) return new PassThrough();
  if (member.method === DEFLATED) return createInflateRaw({ chunkSize: PIECE });
  throw new SparseVilaError(
    'ERR_BAD_ZIP',
    `Expected ${member.name} to be stored (0) or deflated (8) but its method is ${member.method}.`,
  );
}

async function extract(file: FileHandle, member: ZipMember, path: string, options: ExtractOptions = {}): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  let written = 0;
  const count = new Transform({
    transform(piece: Buffer, _encoding, done) {
      written += piece.length;
      options.onBytes?.(piece.length);
      done(null, piece);
    },
  });
  const stages = [unpacker(member), count, createWriteStream(path, { highWaterMark: 4 * PIECE })] as const;
  await pipeline(packed(file, member), ...stages, options.signal ? { signal: options.signal } : {});
  if (written !== member.size) {
    throw new SparseVilaError(
      'ERR_BAD_ZIP',
      `Expected ${member.size} bytes in ${member.name} but received ${written}.`,
    );
  }
}
