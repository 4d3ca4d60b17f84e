// Small films that specs make with ffmpeg's own sources. Without ffmpeg their tests are skipped.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32, deflateSync } from 'node:zlib';
import type { RawPixels } from '../../src';
import { findProgram } from '../../src/runtime/process';

const isThere = findProgram(['ffmpeg']) !== undefined && findProgram(['ffprobe']) !== undefined;
if (!isThere)
  process.stderr.write('Tests of film files are skipped: there is no ffmpeg. Install it: apt-get install ffmpeg\n');

export const itWithFfmpeg = isThere ? it : it.skip;

/** A folder for films, removed after all tests of the file. */
export function filmFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'sparsevila-film-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  return folder;
}

export function ffmpeg(...args: readonly string[]): void {
  execFileSync('ffmpeg', ['-nostdin', '-v', 'error', '-y', ...args], { stdio: ['ignore', 'ignore', 'inherit'] });
}

/** Gray frames of 64 x 48 whose lightness is the frame's number, up to 200 of them, stored without loss. */
export function numbered(path: string, frames: number, ...args: readonly string[]): string {
  const source = `nullsrc=s=64x48:r=25,geq=lum='20+N':cb=128:cr=128`;
  const codec = path.endsWith('.mp4') || path.endsWith('.ts') ? ['-c:v', 'libx264', '-qp', '0'] : ['-c:v', 'ffv1'];
  ffmpeg('-f', 'lavfi', '-i', source, '-frames:v', String(frames), '-pix_fmt', 'yuv420p', ...codec, ...args, path);
  return path;
}

/** The number of such a frame. Luma of 16 to 235 has become 0 to 255. */
export function numberOf({ data, width, channels }: RawPixels): number {
  return Math.round(((data[(5 * width + 5) * channels] as number) * 219) / 255) - 4;
}

interface PngFrame {
  readonly width: number;
  readonly left: number;
  readonly rgba: readonly number[];
  readonly dispose: number;
  readonly blend: number;
}

/** An animated PNG whose frames are of one color each and as high as the canvas; the default picture is not one of them. */
export function moving(width: number, height: number, frames: readonly PngFrame[]): Buffer {
  const chunk = (type: string, ...data: readonly Buffer[]): Buffer => {
    const body = Buffer.concat([Buffer.from(type, 'latin1'), ...data]);
    return Buffer.concat([uint32(body.length - 4), body, uint32(crc32(body))]);
  };
  const pixels = (w: number, rgba: readonly number[]): Buffer =>
    deflateSync(Buffer.from(new Array(height).fill([0, ...new Array(w).fill(rgba).flat()]).flat()));
  let sequence = 0;
  const animated = frames.flatMap(({ width: w, left, rgba, dispose, blend }) => [
    chunk('fcTL', ...[sequence++, w, height, left, 0].map(uint32), Buffer.from([0, 1, 0, 10, dispose, blend])),
    chunk('fdAT', uint32(sequence++), pixels(w, rgba)),
  ]);
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk('IHDR', uint32(width), uint32(height), Buffer.from([8, 6, 0, 0, 0])),
    chunk('acTL', uint32(frames.length), uint32(0)),
    ...[chunk('IDAT', pixels(width, [9, 9, 9, 255])), ...animated, chunk('IEND')],
  ]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
