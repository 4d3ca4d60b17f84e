// Registers the packaged fonts with the process, so that text in SVG looks the same on machines without fonts: DejaVu Sans, and for Chinese,
// Japanese and Korean the common characters of Droid Sans Fallback.

import { join } from 'node:path';
import { sharp } from './sharp';

/** The font families for text in SVG, as a value of `font-family`. */
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

/** Drawing one letter with a font file registers the font in the process, also for rendering SVG. */
async function load(folder: string): Promise<void> {
  for (const [name, font, text] of FILES) {
    await sharp({ text: { text, font, fontfile: join(folder, name) } })
      .raw()
      .toBuffer();
  }
}
