// Pictures into the figure and the figure into PNG bytes, by sharp. Text is drawn with the packaged fonts, so that it is there
// on machines that have none.

import { join } from 'node:path';
import type { RgbImage } from '../image/decode';
import { sharp } from '../image/sharp';
import { packageFolder } from '../runtime/paths';

/** Pixels per side that a picture is embedded with at most: twice those of its panel. */
const EMBEDDED = 880;

/** Data URIs of a picture in colour and in grey, no larger than needed. */
export async function embed({ data, width, height }: RgbImage): Promise<{ colour: string; grey: string }> {
  const picture = sharp(data, { raw: { width, height, channels: 3 }, limitInputPixels: false });
  const png = await picture
    .resize({ width: EMBEDDED, height: EMBEDDED, fit: 'inside', withoutEnlargement: true })
    .png()
    .toBuffer();
  // Stretched and lifted, so that shapes show through veils and colours, whatever the picture's exposure.
  const grey = await sharp(png).greyscale().normalise().linear(0.8, 51).toColourspace('srgb').png().toBuffer();
  const uri = (bytes: Buffer): string => `data:image/png;base64,${bytes.toString('base64')}`;
  return { colour: uri(png), grey: uri(grey) };
}

/** The SVG as a PNG of its own size. */
export async function rasterize(svg: string): Promise<Buffer> {
  fonts ??= loadFonts();
  await fonts;
  return await sharp(Buffer.from(svg), { unlimited: true, limitInputPixels: false })
    .flatten({ background: '#ffffff' })
    .png({ compressionLevel: 9, adaptiveFiltering: true })
    .toBuffer();
}

let fonts: Promise<void> | undefined;

/** Drawing a letter with a font file makes the font known to the process, SVG rendering included. */
async function loadFonts(): Promise<void> {
  for (const name of ['dejavu-sans.ttf', 'dejavu-sans-bold.ttf']) {
    const fontfile = join(packageFolder(), 'assets', 'fonts', name);
    await sharp({ text: { text: 'x', font: 'DejaVu Sans', fontfile } })
      .raw()
      .toBuffer();
  }
}
