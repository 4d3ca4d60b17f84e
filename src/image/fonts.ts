// The packaged fonts, made known to the process, so that text in SVG looks the same on machines that have none.

import { join } from 'node:path';
import { sharp } from './sharp';

let fonts: Promise<void> | undefined;

/** Loads the fonts of the package at `folder` once. */
export function loadFonts(folder: string): Promise<void> {
  fonts ??= load(join(folder, 'assets', 'fonts'));
  return fonts;
}

/** Drawing a letter with a font file makes the font known to the process, SVG rendering included. */
async function load(folder: string): Promise<void> {
  for (const name of ['dejavu-sans.ttf', 'dejavu-sans-bold.ttf']) {
    await sharp({ text: { text: 'x', font: 'DejaVu Sans', fontfile: join(folder, name) } })
      .raw()
      .toBuffer();
  }
}
