// Resizing compared with Pillow's bytes, and properties of any resampler.

import { type ResampleFilter, resize } from '../../src/image/resample';
import { difference, EXACT, errorOf, noise, readCases, type Slice } from './fixtures';

interface Case {
  from: [number, number];
  to: [number, number];
  source: Slice;
  expected: Record<ResampleFilter, Slice>;
}

const { cases, array } = readCases<Case>('resize');
const FILTERS = ['bilinear', 'bicubic', 'lanczos'] as const;

describe('resize equals Pillow', () => {
  describe.each(FILTERS)('%s', (filter) => {
    it.each(cases.map((c) => [`${c.from.join('×')} to ${c.to.join('×')}`, c] as const))('%s', (_, c) => {
      const image = { data: array(c.source), width: c.from[0], height: c.from[1] };
      const result = resize(image, c.to[0], c.to[1], filter);
      expect([result.width, result.height]).toEqual(c.to);
      expect(difference(result.data, array(c.expected[filter]))).toEqual(EXACT);
      expect(difference(image.data, array(c.source))).toEqual(EXACT);
    });
  });

  it('the fixtures distinguish the filters', () => {
    const c = cases[0];
    const outputs = FILTERS.map((f) => (c === undefined ? '' : Buffer.from(array(c.expected[f])).toString('hex')));
    expect(new Set(outputs).size).toBe(3);
  });
});

describe('resize', () => {
  it.each(FILTERS)('%s keeps flat color, black and white included', (filter) => {
    for (const [width, height, w, h] of [
      [31, 17, 64, 5],
      [3, 50, 50, 3],
      [1, 9, 4, 100],
      [640, 3, 7, 333],
    ] as const) {
      for (const color of [
        [0, 0, 0],
        [255, 255, 255],
        [1, 128, 254],
      ]) {
        const data = new Uint8Array(width * height * 3).map((_, i) => color[i % 3] ?? 0);
        const result = resize({ data, width, height }, w, h, filter);
        expect(
          difference(
            result.data,
            new Uint8Array(w * h * 3).map((_, i) => color[i % 3] ?? 0),
          ),
        ).toEqual(EXACT);
      }
    }
  });

  it.each(FILTERS)('%s clamps extremes at every phase: the sums fit int32', (filter) => {
    // A sum that wrapped would turn white into black beside an edge.
    for (let size = 2; size <= 40; size++) {
      const data = new Uint8Array(12 * 2 * 3).map((_, i) => (Math.floor(i / 3) % 12 < 6 ? 255 : 0));
      const { data: out } = resize({ data, width: 12, height: 2 }, size, 1, filter);
      expect(out[0]).toBeGreaterThan(128);
      expect(out[out.length - 1]).toBeLessThan(128);
      for (let x = 1; x < size / 2 - 1; x++) expect(out[x * 3]).toBeGreaterThan(127);
    }
  });

  it('returns a copy if nothing changes', () => {
    const image = noise(5, 4);
    const result = resize(image, 5, 4, 'lanczos');
    expect(difference(result.data, image.data)).toEqual(EXACT);
    result.data[0] = (result.data[0] ?? 0) ^ 255;
    expect(result.data[0]).not.toBe(image.data[0]);
  });

  it('commutes with mirroring', () => {
    const mirror = (data: Uint8Array, width: number) =>
      data.map(
        (_, i) =>
          data[(Math.floor(i / 3 / width) * width + width - 1 - (Math.floor(i / 3) % width)) * 3 + (i % 3)] ?? 0,
      );
    const image = noise(37, 23, 5);
    const plain = resize(image, 16, 40, 'bicubic');
    const turned = resize({ ...image, data: mirror(image.data, 37) }, 16, 40, 'bicubic');
    expect(difference(turned.data, mirror(plain.data, 16)).largest).toBeLessThanOrEqual(1);
  });

  it('takes a strip of 1×10,000 and one as long as a side may be', () => {
    for (const height of [10_000, 65_535]) {
      const result = resize(noise(1, height), 448, 448, 'bicubic');
      expect(result.data.length).toBe(448 * 448 * 3);
      // Columns of a one-pixel-wide image are all alike.
      expect(difference(result.data.subarray(0, 3), result.data.subarray(447 * 3, 448 * 3))).toEqual(EXACT);
      expect(resize(noise(height, 1), 448, 448, 'lanczos').data.length).toBe(448 * 448 * 3);
    }
  });

  it.each([
    [0, 5, 'bicubic', 'ERR_OPTION_INVALID', /width.+0/],
    [5, -1, 'bicubic', 'ERR_OPTION_INVALID', /height.+-1/],
    [5, 2.5, 'bicubic', 'ERR_OPTION_INVALID', /height.+2\.5/],
    [Number.NaN, 5, 'bicubic', 'ERR_OPTION_INVALID', /width.+NaN/],
    [5, 5, 'nearest', 'ERR_OPTION_INVALID', /bilinear, bicubic, lanczos.+nearest/],
    [5, 5, 'toString', 'ERR_OPTION_INVALID', /filter/],
  ])('refuses %p×%p %s', async (width, height, filter, code, part) => {
    const error = await errorOf(() => resize(noise(3, 3), width, height, filter as ResampleFilter));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(part);
  });

  it('refuses data of another size', async () => {
    const error = await errorOf(() => resize({ data: new Uint8Array(26), width: 3, height: 3 }, 2, 2, 'bicubic'));
    expect(error.code).toBe('ERR_IMAGE_INVALID');
    expect(error.message).toMatch(/27 bytes.+26/);
    const empty = await errorOf(() => resize({ data: new Uint8Array(0), width: 0, height: 3 }, 2, 2, 'bicubic'));
    expect(empty.code).toBe('ERR_IMAGE_INVALID');
  });
});
