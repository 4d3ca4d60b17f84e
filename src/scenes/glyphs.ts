// The packaged glyph bank: alpha masks of every glyph in several sizes, fonts and tilts, so that drawing needs no fonts.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { messageOf, SparseVilaError } from '../errors';
import { packageFolder } from '../runtime/paths';
import { TYPES } from './scene';

export const CELL = 28;
export const VARIANTS = 24;

const SIZE = TYPES.length * VARIANTS * CELL * CELL;
let bank: Uint8Array | undefined;

/** uint8 [types, variants, 28, 28], 255 is opaque. @throws SparseVilaError `ERR_PACKAGE_INCOMPLETE` if the package lacks it */
export function glyphBank(): Uint8Array {
  bank ??= read(join(packageFolder(), 'assets', 'scenes', 'glyphs.u8.gz'));
  return bank;
}

function read(file: string): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = gunzipSync(readFileSync(file));
  } catch (cause) {
    throw new SparseVilaError(
      'ERR_PACKAGE_INCOMPLETE',
      `Expected the glyphs of packaged scenes in ${file}, which cannot be read (${messageOf(cause)}). Reinstall the package.`,
      { cause },
    );
  }
  if (bytes.length === SIZE) return bytes;
  throw new SparseVilaError(
    'ERR_PACKAGE_INCOMPLETE',
    `Expected ${SIZE} bytes of glyphs in ${file}, received ${bytes.length}. Reinstall the package.`,
  );
}
