// The packaged fonts, made known to the process, so that text in SVG looks the same on machines that have none: DejaVu Sans, and for
// Chinese, Japanese and Korean the common characters of Droid Sans Fallback.

import { join } from 'node:path';
import { sharp } from './sharp';

/** The families of text in SVG, for `font-family`. */
export const FONT_FAMILIES = 'DejaVu Sans, Droid Sans Fallback, sans-serif';

const FILES = [
  ['dejavu-sans.ttf', 'DejaVu Sans', 'x'],
  ['dejavu-sans-bold.ttf', 'DejaVu Sans', 'x'],
  ['droid-sans-fallback.ttf', 'Droid Sans Fallback', '字'],
] as const;

let fonts: Promise<void> | undefined;

/** Loads the fonts of the package at `folder` once. */
export function loadFonts(folder: string): Promise<void> {
  fonts ??= load(join(folder, 'assets', 'fonts'));
  return fonts;
}

/** Drawing a letter with a font file makes the font known to the process, SVG rendering included. */
async function load(folder: string): Promise<void> {
  for (const [name, font, text] of FILES) {
    await sharp({ text: { text, font, fontfile: join(folder, name) } })
      .raw()
      .toBuffer();
  }
}
