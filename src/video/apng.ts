// Animated PNG: each frame is made a PNG of its own, which sharp decodes, and is drawn over the frames before it. One frame is in memory beside the
// canvas. Source: PNG specification, third edition (W3C 2025), sections 11.3.5 (chunks) and 12.7 (disposal and blending).

import { crc32 } from 'node:zlib';
import { SparseVilaError } from '../errors';
import { sharp } from '../image/sharp';

/** A frame of an animation: its place on the canvas, and its own PNG. */
interface Piece {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  /** Milliseconds for which it is shown. */
  readonly delay: number;
  /** What happens to its region after it was shown: nothing, it is cleared, or it is as it was before. */
  readonly dispose: number;
  /** Whether it is blended with the canvas, instead of replacing its region. */
  readonly isBlended: boolean;
  readonly data: Uint8Array[];
}

export interface AnimatedPng {
  readonly width: number;
  readonly height: number;
  /** Milliseconds of each frame. */
  readonly delays: readonly number[];
  /** The canvas after each frame, uint8 [height, width, 4], which the next one changes; from the first to the last. */
  frames(): AsyncGenerator<Uint8Array>;
}

interface Chunk {
  readonly type: string;
  readonly data: Uint8Array;
}

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** Whether the first bytes of a file are those of an animated PNG: `acTL` follows the header. */
export const isAnimatedPng = (head: Uint8Array): boolean =>
  SIGNATURE.every((byte, i) => head[i] === byte) && Buffer.from(head).toString('latin1').includes('acTL');

/** @throws SparseVilaError ERR_VIDEO_CORRUPT for chunks that are cut off or missing; of `frames` errors of sharp */
export function animatedPng(name: string, file: Uint8Array): AnimatedPng {
  const pieces: Piece[] = [];
  const shared: Chunk[] = [];
  let header: Uint8Array | undefined;
  for (const { type, data } of chunksOf(name, file)) {
    if (type === 'IHDR') header = data;
    else if (type === 'fcTL') pieces.push(pieceOf(data));
    // The picture of readers that know no animation is a frame only if a control chunk precedes it.
    else if (type === 'IDAT') pieces.at(-1)?.data.push(data);
    else if (type === 'fdAT') pieces.at(-1)?.data.push(data.subarray(4));
    else if (pieces.length === 0 && type !== 'acTL') shared.push({ type, data });
  }
  if (header === undefined || pieces.length === 0) throw corrupt(name, 'it has no frames');
  const [ihdr, { width, height }] = [header, sizeOf(header, 0)];
  for (const { left, top, ...own } of pieces)
    if (own.width === 0 || own.height === 0 || left + own.width > width || top + own.height > height)
      throw corrupt(name, 'a frame lies outside of its canvas');
  return {
    width,
    height,
    delays: pieces.map(({ delay }) => delay),
    async *frames() {
      const canvas = new Uint8Array(4 * width * height);
      for (const piece of pieces) {
        const before = piece.dispose === 2 ? canvas.slice() : undefined;
        const pixels = await sharp(pngOf(ihdr, shared, piece), { failOn: 'error', limitInputPixels: false })
          .toColorspace('srgb')
          .ensureAlpha()
          .raw()
          .toBuffer();
        drawOn(canvas, width, piece, pixels);
        yield canvas;
        if (before !== undefined) canvas.set(before);
        else if (piece.dispose === 1)
          drawOn(canvas, width, { ...piece, isBlended: false }, new Uint8Array(pixels.length));
      }
    },
  };
}

function* chunksOf(name: string, file: Uint8Array): Generator<Chunk> {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  for (let at = SIGNATURE.length; at + 12 <= file.byteLength; ) {
    const end = at + 8 + view.getUint32(at);
    if (end + 4 > file.byteLength) break;
    const type = Buffer.from(file.subarray(at + 4, at + 8)).toString('latin1');
    if (type === 'IEND') return;
    yield { type, data: file.subarray(at + 8, end) };
    at = end + 4;
  }
  throw corrupt(name, 'it is truncated');
}

const numberAt = (data: Uint8Array, at: number, bytes: number): number =>
  data.byteLength < at + bytes ? 0 : Buffer.from(data.buffer, data.byteOffset, data.byteLength).readUIntBE(at, bytes);

const sizeOf = (data: Uint8Array, at: number) => ({ width: numberAt(data, at, 4), height: numberAt(data, at + 4, 4) });

function pieceOf(data: Uint8Array): Piece {
  return {
    ...sizeOf(data, 4),
    ...{ left: numberAt(data, 12, 4), top: numberAt(data, 16, 4) },
    delay: (1000 * numberAt(data, 20, 2)) / (numberAt(data, 22, 2) || 100),
    ...{ dispose: numberAt(data, 24, 1), isBlended: numberAt(data, 25, 1) === 1, data: [] },
  };
}

/** A PNG of one frame: the header with its size, what all frames share, and its data. */
function pngOf(header: Uint8Array, shared: readonly Chunk[], { width, height, data }: Piece): Buffer {
  const own = Buffer.from(header);
  own.writeUInt32BE(width, 0);
  own.writeUInt32BE(height, 4);
  const idat = { type: 'IDAT', data: Buffer.concat(data) };
  const chunks = [{ type: 'IHDR', data: own }, ...shared, idat, { type: 'IEND', data: new Uint8Array() }];
  return Buffer.concat([Buffer.from(SIGNATURE), ...chunks.map(chunkBytes)]);
}

function chunkBytes({ type, data }: Chunk): Buffer {
  const bytes = Buffer.alloc(12 + data.byteLength);
  bytes.writeUInt32BE(data.byteLength, 0);
  bytes.write(type, 4, 'latin1');
  bytes.set(data, 8);
  bytes.writeUInt32BE(crc32(bytes.subarray(4, 8 + data.byteLength)), 8 + data.byteLength);
  return bytes;
}

/** Draws RGBA pixels of a piece's size on a canvas, replacing its region or over it. */
function drawOn(canvas: Uint8Array, width: number, piece: Omit<Piece, 'data'>, pixels: Uint8Array): void {
  for (let row = 0; row < piece.height; row++) {
    const from = 4 * row * piece.width;
    const to = 4 * ((piece.top + row) * width + piece.left);
    if (!piece.isBlended) canvas.set(pixels.subarray(from, from + 4 * piece.width), to);
    else for (let i = 0; i < 4 * piece.width; i += 4) blend(canvas, to + i, pixels, from + i);
  }
}

/** One pixel over another, not premultiplied. */
function blend(canvas: Uint8Array, to: number, pixels: Uint8Array, from: number): void {
  const [over, under] = [pixels[from + 3] as number, canvas[to + 3] as number];
  const alpha = over * 255 + under * (255 - over);
  if (alpha === 0) return;
  for (let c = 0; c < 3; c++) {
    const value = (pixels[from + c] as number) * over * 255 + (canvas[to + c] as number) * under * (255 - over);
    canvas[to + c] = Math.round(value / alpha);
  }
  canvas[to + 3] = Math.round(alpha / 255);
}

function corrupt(name: string, why: string): SparseVilaError {
  return new SparseVilaError('ERR_VIDEO_CORRUPT', `Expected an animated PNG for ${name} but ${why}.`);
}
