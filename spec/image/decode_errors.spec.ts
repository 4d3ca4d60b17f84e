// Every refusal of an image: its code, the names in its message, and that nothing is decoded for it.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DEFAULT_MAX_PIXELS, type DecodeOptions, decodeImage, type ImageInput, MAX_SIDE } from '../../src/image/decode';
import { bytesOf, errorOf, fixture } from './fixtures';

const refused = (input: unknown, options?: unknown) =>
  errorOf(() => decodeImage(input as ImageInput, options as DecodeOptions | undefined));

async function expectRefusal(input: unknown, code: string, ...parts: (string | RegExp)[]): Promise<void> {
  const error = await refused(input);
  expect(error.code).toBe(code);
  for (const part of parts) expect(error.message).toMatch(part);
  expect(error.message).toMatch(/^Expected .+ but .+\.$/s);
}

describe('files', () => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'image-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('missing, and a path through a file', async () => {
    await expectRefusal('no/such.png', 'ERR_IMAGE_NOT_FOUND', 'no/such.png');
    await expectRefusal(join(fixture('rgb.png'), 'x.png'), 'ERR_IMAGE_NOT_FOUND', 'x.png');
    await expectRefusal('', 'ERR_IMAGE_NOT_FOUND');
    await expectRefusal('s3://bucket/a.png', 'ERR_IMAGE_NOT_FOUND', 'URLs of type s3');
    const error = await refused('x'.repeat(100_000));
    expect([error.code, error.message.length < 700]).toEqual(['ERR_IMAGE_NOT_FOUND', true]);
  });

  it('a directory, an empty file, an impossible name', async () => {
    await expectRefusal(folder, 'ERR_IMAGE_UNREADABLE', 'directory');
    const empty = join(folder, 'empty.png');
    writeFileSync(empty, '');
    await expectRefusal(empty, 'ERR_IMAGE_EMPTY', 'empty.png', '0 bytes');
    await expectRefusal('a\0b', 'ERR_IMAGE_UNREADABLE');
    await expectRefusal('/dev/zero', 'ERR_IMAGE_UNREADABLE', 'device');
    await expectRefusal('/dev/null', 'ERR_IMAGE_UNREADABLE', 'device');
  });

  it('a damaged file is named', async () => {
    await expectRefusal(fixture('truncated.jpg'), 'ERR_IMAGE_CORRUPT', 'truncated.jpg');
  });
});

describe('bytes', () => {
  it('empty', () => expectRefusal(Buffer.alloc(0), 'ERR_IMAGE_EMPTY', 'buffer of 0 bytes'));

  it.each(['jpg', 'png', 'webp', 'gif', 'tif'])('truncated %s', async (form) => {
    const bytes = bytesOf(`truncated.${form}`);
    await expectRefusal(bytes, 'ERR_IMAGE_CORRUPT', `buffer of ${bytes.length} bytes`, 'corrupt or truncated');
  });

  it.each(['flipped.png', 'header-only.png'])('%s', (name) => expectRefusal(bytesOf(name), 'ERR_IMAGE_CORRUPT'));

  it('keeps the cause', async () => {
    expect((await refused(bytesOf('flipped.png'))).cause).toHaveProperty('message');
  });

  it.each([
    ['garbage', bytesOf('garbage.bin'), /no format known/],
    ['BMP', bytesOf('bitmap.bmp'), /BMP/],
    ['SVG', Buffer.from('<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'), /SVG/],
    ['PDF', Buffer.from('%PDF-1.7\n'), /PDF/],
    ['HTML', Buffer.from('\n<!DOCTYPE html><html></html>'), /HTML/],
    ['HEIC', Buffer.from('\0\0\0\x18ftypheic\0\0\0\0mif1heic'), /HEIC/],
    ['JPEG XL', Buffer.from('ff0a0000', 'hex'), /JPEG XL/],
    ['WAV', Buffer.from('RIFF\x10\0\0\0WAVEfmt '), /no format known/],
    ['one byte', Buffer.from('x'), /no format known.+78/],
    ['an icon', Buffer.from('\0\0\x01\0\x01\0'), /icon/],
    ['PPM', Buffer.from('P6 2 2 255\n'), /Netpbm.*convert it to PNG/],
    ['MP4', Buffer.from('\0\0\0 ftypisom\0\0\0\0isom'), /MP4 or QuickTime video; give it as a video \(--video,/],
    ['WebM', Buffer.from('\x1aE\xdf\xa3', 'latin1'), /WebM or Matroska video; give it as a video/],
    ['AVI', Buffer.from('RIFF\0\0\0\0AVI LIST'), /AVI video; give it as a video/],
    ['PSD', Buffer.from('8BPS\0\x01'), /Photoshop/],
    ['TIFF with a compression that libtiff was built without', bytesOf('zstd.tif'), /ZSTD/],
    ['animated AVIF without a primary image', bytesOf('animated.avif').subarray(0, 48), /animated AVIF/],
    ['32-bit float TIFF', bytesOf('float.tif'), /float/],
  ])('unsupported: %s', (_, bytes, received) => expectRefusal(bytes, 'ERR_IMAGE_UNSUPPORTED', received));

  it('random bytes after every signature are refused', async () => {
    const noise = bytesOf('garbage.bin');
    for (const start of [
      '89504e470d0a1a0a',
      'ffd8ff',
      '474946383961',
      '49492a00',
      '0000001866747970617669660000000061766966',
    ]) {
      await expectRefusal(Buffer.concat([Buffer.from(start, 'hex'), noise]), 'ERR_IMAGE_CORRUPT');
    }
  });
});

describe('size', () => {
  // These files contain a header and no rows: if anything were decoded, the error would be that of a corrupt file.
  it('900 megapixels and a side of 100,000 are refused from the header', async () => {
    await expectRefusal(
      bytesOf('huge.png'),
      'ERR_IMAGE_TOO_LARGE',
      '30000×30000',
      String(DEFAULT_MAX_PIXELS),
      'buffer of',
    );
    await expectRefusal(bytesOf('long.png'), 'ERR_IMAGE_TOO_LARGE', '100000×1', String(MAX_SIDE));
    await expectRefusal(fixture('huge.png'), 'ERR_IMAGE_TOO_LARGE', 'huge.png');
  });

  it('maxPixels is inclusive, and counts raw pixels too', async () => {
    const pixels = 37 * 23;
    await expect(decodeImage(bytesOf('rgb.png'), { maxPixels: pixels })).resolves.toHaveProperty('width', 37);
    expect((await refused(bytesOf('rgb.png'), { maxPixels: pixels - 1 })).code).toBe('ERR_IMAGE_TOO_LARGE');
    const raw = { data: new Uint8Array(12), width: 2, height: 2, channels: 3 };
    expect((await refused(raw, { maxPixels: 3 })).code).toBe('ERR_IMAGE_TOO_LARGE');
  });
});

describe('types', () => {
  it.each([
    [undefined, /undefined/],
    [null, /null/],
    [5, /5 of type number/],
    [() => 0, /a function/],
    [{}, /type Object/],
    [[1, 2], /type Array/],
    [new Proxy({}, {}), /a proxy/],
    [{ width: 1, height: 1, channels: 3 }, /type Object/],
  ])('%#', (input, received) => expectRefusal(input, 'ERR_IMAGE_INVALID', received));

  it('an object whose getter throws', async () => {
    const hostile = Object.defineProperty({ width: 1 }, 'data', {
      get: () => {
        throw new Error('hidden');
      },
    });
    await expectRefusal(hostile, 'ERR_IMAGE_INVALID', 'type Object');
  });

  const raw = { data: new Uint8Array(12), width: 2, height: 2, channels: 3 };
  it.each([
    [{ ...raw, data: [1, 2] }, /data.+Array/],
    [{ ...raw, data: new Uint16Array(12) }, /data.+Uint16Array/],
    [{ ...raw, width: 0 }, /width.+received 0/],
    [{ ...raw, width: -2 }, /width.+-2/],
    [{ ...raw, height: 1.5 }, /height.+1\.5/],
    [{ ...raw, height: Number.NaN }, /height/],
    [{ ...raw, height: '2' }, /height.+"2" of type string/],
    [{ ...raw, channels: 2 }, /channels.+2/],
    [{ data: raw.data, width: 2, height: 2 }, /channels.+undefined/],
    [{ ...raw, channels: 4 }, /2·2·4 = 16 bytes.+received 12/],
    [{ ...raw, height: 3 }, /= 18 bytes/],
  ])('raw pixels %#', (input, received) => expectRefusal(input, 'ERR_IMAGE_INVALID', received));
});

describe('options', () => {
  it.each([
    [{ maxPixel: 4 }, /maxPixel\. Did you mean maxPixels/],
    [{ maxPixels: 0 }, /maxPixels/],
    [{ maxPixels: 1.5 }, /maxPixels/],
    [{ background: [0, 0] }, /background/],
    [{ background: [0, 0, 256] }, /background/],
    [{ background: 'white' }, /background/],
    [{ allowUrls: 'yes' }, /allowUrls/],
  ])('%j', async (options, part) => {
    const error = await refused(bytesOf('rgb.png'), options);
    expect(error.code).toBe('ERR_OPTION_INVALID');
    expect(error.message).toMatch(part);
  });
});

describe('abort', () => {
  it('an aborted signal prevents any work, for every kind of input', async () => {
    const signal = AbortSignal.abort('enough');
    for (const input of [
      'no/such.png',
      bytesOf('rgb.png'),
      { data: new Uint8Array(3), width: 1, height: 1, channels: 3 as const },
    ]) {
      await expect(decodeImage(input, { signal })).rejects.toBe('enough');
    }
  });

  it('aborting midway rejects at once with the reason and leaves no listener', async () => {
    const controller = new AbortController();
    const removed = jest.spyOn(controller.signal, 'removeEventListener');
    const reason = new Error('client left');
    let received: unknown;
    decodeImage(fixture('strip.png'), { signal: controller.signal }).catch((error) => {
      received = error;
    });
    controller.abort(reason);
    // Only microtasks run before this line, so the file cannot have been opened yet.
    for (let i = 0; i < 20; i++) await null;
    expect(received).toBe(reason);
    expect(removed).toHaveBeenCalledTimes(1);
  });

  it('aborting between two steps stops the decoding', async () => {
    const controller = new AbortController();
    const decoding = decodeImage(bytesOf('strip.png'), { signal: controller.signal });
    setImmediate(() => controller.abort('late'));
    await expect(decoding).rejects.toBe('late');
  });
});
