// Embeds pictures into the figure and renders the figure to PNG bytes, by sharp. Text uses the packaged fonts, because a machine may have
// none.

import type { RgbImage } from '../image/decode';
import { loadFonts } from '../image/fonts';
import { sharp } from '../image/sharp';
import { packageFolder } from '../runtime/paths';

/** Maximum pixels per side of an embedded picture: twice those of its panel. */
const EMBEDDED = 880;

/** Data URIs of a picture in color and in gray, no larger than needed. */
export async function embed({ data, width, height }: RgbImage): Promise<{ color: string; gray: string }> {
  const picture = sharp(data, { raw: { width, height, channels: 3 }, limitInputPixels: false });
  const png = await picture
    .resize({ width: EMBEDDED, height: EMBEDDED, fit: 'inside', withoutEnlargement: true })
    .png()
    .toBuffer();
  // Contrast is stretched and lifted, so that shapes show through veils and colors at any exposure.
  const gray = await sharp(png).grayscale().normalize().linear(0.8, 51).toColorspace('srgb').png().toBuffer();
  const uri = (bytes: Buffer): string => `data:image/png;base64,${bytes.toString('base64')}`;
  return { color: uri(png), gray: uri(gray) };
}

/** Pixels of PNG per unit of SVG. */
const SCALE = 2;

/** The SVG as a PNG of twice its size. */
export async function rasterize(svg: string): Promise<Buffer> {
  await loadFonts(packageFolder());
  return await sharp(Buffer.from(svg), { density: 72 * SCALE, unlimited: true, limitInputPixels: false })
    .flatten({ background: '#ffffff' })
    .png({ compressionLevel: 9, adaptiveFiltering: true })
    .toBuffer();
}
