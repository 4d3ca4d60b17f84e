// Small films that specs make with ffmpeg's own sources. Without ffmpeg their tests are skipped.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
