// Decoding against Pillow: every form of file, alpha, orientation, profiles, raw pixels.

import { readFileSync } from 'node:fs';
import sharp from 'sharp';
import { decodeImage } from '../../src/image/decode';
import { isSrgbProfile } from '../../src/image/icc';
import { bytesOf, difference, EXACT, fixture, readCases, type Slice } from './fixtures';

interface Case extends Slice {
  file: string;
  width: number;
  height: number;
  tolerance?: number;
  background?: [number, number, number];
}

const { cases, array } = readCases<Case>('decode');

describe('decodeImage equals Pillow', () => {
  it.each(cases.map((c) => [`${c.file}${c.background ? ' over green' : ''}`, c] as const))('%s', async (_, c) => {
    const image = await decodeImage(bytesOf(c.file), c.background ? { background: c.background } : {});
    expect([image.width, image.height]).toEqual([c.width, c.height]);
    const d = difference(image.data, array(c));
    if (c.tolerance === undefined) expect(d).toEqual(EXACT);
    else expect(d.largest).toBeLessThanOrEqual(c.tolerance);
  });

  it('the fixtures contain every orientation', () => {
    const turned = cases.filter((c) => c.file.startsWith('orientation'));
    expect(turned.map((c) => c.width)).toEqual([37, 37, 37, 37, 23, 23, 23, 23]);
    expect(new Set(turned.map((c) => Buffer.from(array(c)).toString('hex'))).size).toBe(8);
  });
});

describe('decodeImage', () => {
  it('gives the same result for a path, a Buffer, a Uint8Array and a view into a larger buffer', async () => {
    const bytes = bytesOf('rgb.png');
    const padded = new Uint8Array(bytes.length + 20).fill(7);
    padded.set(bytes, 10);
    const expected = await decodeImage(fixture('rgb.png'));
    for (const input of [bytes, new Uint8Array(bytes), padded.subarray(10, 10 + bytes.length)]) {
      expect(difference((await decodeImage(input)).data, expected.data)).toEqual(EXACT);
    }
  });

  it('returns a new plain array', async () => {
    const data = new Uint8Array([1, 2, 3]);
    const image = await decodeImage({ data, width: 1, height: 1, channels: 3 });
    data[0] = 99;
    expect([...image.data]).toEqual([1, 2, 3]);
    const decoded = await decodeImage(bytesOf('rgb.png'));
    expect(Buffer.isBuffer(decoded.data)).toBe(false);
    expect(decoded.data.byteLength).toBe(decoded.width * decoded.height * 3);
  });

  it('takes raw pixels of 1, 3 and 4 channels, clamped arrays too', async () => {
    const gray = await decodeImage({ data: new Uint8Array([5, 250]), width: 2, height: 1, channels: 1 });
    expect([...gray.data]).toEqual([5, 5, 5, 250, 250, 250]);
    const data = new Uint8ClampedArray([100, 0, 255, 128, 9, 8, 7, 255, 9, 8, 7, 0]);
    const rgba = await decodeImage({ data, width: 1, height: 3, channels: 4 }, { background: [0, 10, 20] });
    expect([...rgba.data]).toEqual([50, 5, 138, 9, 8, 7, 0, 10, 20]);
  });

  it('composites every color and alpha to the nearest integer', async () => {
    const data = new Uint8Array(256 * 256 * 4);
    for (let i = 0; i < 65_536; i++) data.set([i & 255, i & 255, i & 255, i >> 8], i * 4);
    const image = await decodeImage({ data, width: 256, height: 256, channels: 4 }, { background: [255, 0, 77] });
    const expected = new Uint8Array(256 * 256 * 3);
    for (let i = 0; i < 65_536; i++) {
      const [c, a] = [i & 255, i >> 8];
      for (const [k, b] of [255, 0, 77].entries()) expected[i * 3 + k] = Math.round((c * a + b * (255 - a)) / 255);
    }
    expect(difference(image.data, expected)).toEqual(EXACT);
  });

  it('turns CMYK inks into the colors they print', async () => {
    const { data, width } = await decodeImage(bytesOf('cmyk.jpg'));
    const at = (patch: number) => [
      ...data.subarray((8 * width + patch * 16 + 8) * 3, (8 * width + patch * 16 + 8) * 3 + 3),
    ];
    const [cyan, magenta, yellow, black, paper, all] = [at(0), at(1), at(2), at(3), at(4), at(5)].map(
      ([r = -1, g = -1, b = -1]) => ({ r, g, b }),
    );
    expect(cyan && cyan.b - cyan.r).toBeGreaterThan(120);
    expect(magenta && magenta.r - magenta.g).toBeGreaterThan(120);
    expect(yellow && yellow.r - yellow.b).toBeGreaterThan(120);
    expect(Math.min(...Object.values(paper ?? {}))).toBeGreaterThanOrEqual(250);
    expect(Math.max(...Object.values(black ?? {}))).toBeLessThan(70);
    expect(Math.max(...Object.values(all ?? {}))).toBeLessThan(40);
  });

  it('decodes AVIF close to the original', async () => {
    const data = new Uint8Array(32 * 32 * 3).map((_, i) => [200, 40, 90][i % 3] ?? 0);
    const avif = await sharp(data, { raw: { width: 32, height: 32, channels: 3 } })
      .avif({ quality: 90 })
      .toBuffer();
    expect(difference((await decodeImage(avif)).data, data).largest).toBeLessThanOrEqual(4);
  });
});

describe('isSrgbProfile', () => {
  const profileOf = async (name: string) => (await sharp(bytesOf(name)).metadata()).icc ?? new Uint8Array();

  it('recognizes sRGB with parametric and with sampled curves', async () => {
    expect(isSrgbProfile(await profileOf('icc-srgb-lcms.png'))).toBe(true);
    expect(isSrgbProfile(await profileOf('icc-srgb-table.png'))).toBe(true);
  });

  it('rejects other colorants, other curves, Display P3, and unreadable profiles', async () => {
    expect(isSrgbProfile(await profileOf('icc-swapped.png'))).toBe(false);
    const bent = Buffer.from(await profileOf('icc-srgb-table.png'));
    const curve = bent.indexOf('curv');
    for (let i = 400; i < 600; i++) bent.writeUInt16BE(bent.readUInt16BE(curve + 12 + 2 * i) + 150, curve + 12 + 2 * i);
    expect(isSrgbProfile(bent)).toBe(false);
    const table = Buffer.from(await profileOf('icc-srgb-table.png'));
    table.write('A2B0', table.indexOf('cprt'), 'latin1');
    expect(isSrgbProfile(table)).toBe(false);
    const p3 = await sharp(bytesOf('rgb.png')).withIccProfile('p3').png().toBuffer();
    expect(isSrgbProfile((await sharp(p3).metadata()).icc ?? new Uint8Array())).toBe(false);
    const whole = await profileOf('icc-srgb-lcms.png');
    for (const length of [0, 60, 131, 200]) expect(isSrgbProfile(whole.subarray(0, length))).toBe(false);
    expect(isSrgbProfile(readFileSync(fixture('garbage.bin')))).toBe(false);
  });
});
