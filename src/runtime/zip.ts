// Reads members of a zip file (a Python wheel is one) without unpacking the rest: stored or deflated,
// below 4 GiB, not encrypted. Source: PKWARE's APPNOTE.TXT, §4.3. Knows nothing of wheels.

import { createReadStream, createWriteStream } from 'node:fs';
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
  /** Writes a member to a file, making its folder; `onBytes` gets the size of each piece written. */
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

/** Opens a zip file and reads its directory. Close it after use. */
export async function openZip(path: string): Promise<Zip> {
  const file = await open(path, 'r');
  try {
    const members = await readDirectory(file, path);
    const content = (member: ZipMember) => unpacked(file, path, member);
    return {
      members,
      read: async (member) => {
        const pieces: Buffer[] = [];
        for await (const piece of await content(member)) pieces.push(piece as Buffer);
        return Buffer.concat(pieces);
      },
      extract: async (member, target, options) => extract(await content(member), member, target, options),
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

async function unpacked(file: FileHandle, path: string, member: ZipMember): Promise<NodeJS.ReadableStream> {
  if (member.method !== STORED && member.method !== DEFLATED) {
    throw new SparseVilaError(
      'ERR_BAD_ZIP',
      `Expected ${member.name} to be stored (0) or deflated (8) but its method is ${member.method}.`,
    );
  }
  // The local header repeats the name and has extra fields of its own length.
  const header = await readAt(file, member.headerOffset, 30);
  const start = member.headerOffset + 30 + header.readUInt16LE(26) + header.readUInt16LE(28);
  if (member.packedSize === 0) return new PassThrough().end();
  const end = start + member.packedSize - 1;
  const packed = createReadStream(path, { start, end, highWaterMark: 1 << 20 });
  if (member.method === STORED) return packed;
  const inflate = createInflateRaw({ chunkSize: 1 << 20 });
  packed.on('error', (error) => inflate.destroy(error));
  return packed.pipe(inflate);
}

async function extract(source: NodeJS.ReadableStream, member: ZipMember, path: string, options: ExtractOptions = {}) {
  await mkdir(dirname(path), { recursive: true });
  let written = 0;
  const count = new Transform({
    transform(piece: Buffer, _encoding, done) {
      written += piece.length;
      options.onBytes?.(piece.length);
      done(null, piece);
    },
  });
  const target = createWriteStream(path, { highWaterMark: 4 << 20 });
  await pipeline(source, count, target, options.signal ? { signal: options.signal } : {});
  if (written !== member.size) {
    throw new SparseVilaError(
      'ERR_BAD_ZIP',
      `Expected ${member.size} bytes in ${member.name} but received ${written}.`,
    );
  }
}
