// Resizes RGB images exactly as Pillow's Image.resize does, bit for bit.
// Knows nothing about models or files; plain JavaScript on bytes and int32.
// Source: Pillow up to 12.1, src/libImaging/Resample.c (precompute_coeffs, normalize_coeffs_8bpc, the two 8bpc passes), with which the
// published models were trained. Pillow 12.2 and 12.3 (height > 100 widths) and 13 (height shrinks by more than twice what the width does)
// run the vertical pass first for such images; the bytes between the passes then differ, and so do results, by a few levels.

import { SparseVilaError } from '../errors';
import type { RgbImage } from './decode';

export type ResampleFilter = 'bilinear' | 'bicubic' | 'lanczos';

/** Fraction bits of the weights, Pillow's 32 - 8 - 2. A sum stays below 2^21 + 255·2^22·Σ|w|, with Σ|w| ≤ 1.58 (lanczos): int32. */
const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);

/** One axis: output i is the sum over k < count[i] of input[first[i] + k]·weights[i·taps + k], in 2^-22. */
interface Axis {
  inSize: number;
  outSize: number;
  taps: number;
  first: Int32Array;
  count: Int32Array;
  weights: Int32Array;
}

/**
 * `image` resampled to width×height; equals `Image.resize((width, height), filter)` of Pillow ≤ 12.1 bit for bit.
 *
 * Per axis `scale = in/out`, `f = max(scale, 1)`, `center = (i + 0.5)·scale`; weights `k((j - center + 0.5)/f)` in double over
 * `|j - center| < support·f`, divided by their sum, rounded to 22 fraction bits; sums start at one half and are shifted and
 * clamped. The horizontal pass comes first, with uint8 between; a pass whose size does not change is skipped.
 * Rows are resampled when they are needed and added to their output rows, so memory beyond the output is a few rows.
 *
 * @param image uint8 HWC, 3 channels
 * @param width, height in pixels, positive integers
 * @returns a new image, even if nothing changes
 * @throws SparseVilaError ERR_OPTION_INVALID (size, filter), ERR_IMAGE_INVALID (data does not fit width·height·3)
 */
export function resize(image: RgbImage, width: number, height: number, filter: ResampleFilter): RgbImage {
  check(image, width, height, filter);
  const source = image.data;
  if (width === image.width && height === image.height) return { data: source.slice(), width, height };
  const columns = width === image.width ? undefined : axis(image.width, width, filter);
  const data = new Uint8Array(width * height * 3);
  // Stores clamp to 0..255 here, as Pillow's clip8 does.
  const out = new Uint8ClampedArray(data.buffer);
  if (height === image.height) {
    for (let y = 0; y < height && columns !== undefined; y++) {
      resampleRow(source, y * image.width * 3, columns, out, y * width * 3);
    }
  } else {
    resampleRows(source, columns, axis(image.height, height, filter), out, width * 3);
  }
  return { data, width, height };
}

/** Horizontal pass over one row of RGB. */
function resampleRow(source: Uint8Array, from: number, columns: Axis, out: Uint8ClampedArray, to: number): void {
  const { first, count, weights, taps, outSize } = columns;
  for (let x = 0, at = to; x < outSize; x++, at += 3) {
    let pixel = from + 3 * (first[x] ?? 0);
    let w = x * taps;
    const end = w + (count[x] ?? 0);
    let r = HALF;
    let g = HALF;
    let b = HALF;
    for (; w < end; w++, pixel += 3) {
      const weight = weights[w] as number;
      r = (r + (source[pixel] as number) * weight) | 0;
      g = (g + (source[pixel + 1] as number) * weight) | 0;
      b = (b + (source[pixel + 2] as number) * weight) | 0;
    }
    out[at] = r >> PRECISION_BITS;
    out[at + 1] = g >> PRECISION_BITS;
    out[at + 2] = b >> PRECISION_BITS;
  }
}

/**
 * Vertical pass (after the horizontal one where `columns` is given). Input rows are taken in order; output rows whose windows
 * hold the current row are consecutive, `open` ≤ y < `next`, and are summed in a ring of that many int32 rows.
 */
function resampleRows(
  source: Uint8Array,
  columns: Axis | undefined,
  rows: Axis,
  out: Uint8ClampedArray,
  rowLength: number,
): void {
  const { first, count, weights, taps, outSize, inSize } = rows;
  const ringRows = mostOverlapping(rows);
  const sums = new Int32Array(ringRows * rowLength).fill(HALF);
  const scratch = new Uint8ClampedArray(columns === undefined ? 0 : rowLength);
  const stride = source.length / inSize;
  let open = 0;
  let next = 0;
  for (let r = 0; r < inSize && open < outSize; r++) {
    while (next < outSize && (first[next] ?? 0) <= r) next++;
    if (open === next) continue;
    const from = columns === undefined ? r * rowLength : 0;
    if (columns !== undefined) resampleRow(source, r * stride, columns, scratch, 0);
    const row = columns === undefined ? source : scratch;
    for (let y = open; y < next; y++) {
      const k = r - (first[y] ?? 0);
      const to = (y % ringRows) * rowLength;
      addRow(sums, to, row, from, rowLength, weights[y * taps + k] ?? 0);
    }
    while (open < next && (first[open] ?? 0) + (count[open] ?? 0) <= r + 1) {
      const at = (open % ringRows) * rowLength;
      for (let i = 0, to = open * rowLength; i < rowLength; i++, to++)
        out[to] = (sums[at + i] as number) >> PRECISION_BITS;
      sums.fill(HALF, at, at + rowLength);
      open++;
    }
  }
}

function addRow(
  sums: Int32Array,
  to: number,
  row: Uint8Array | Uint8ClampedArray,
  from: number,
  length: number,
  weight: number,
): void {
  for (let i = 0; i < length; i++) {
    sums[to + i] = ((sums[to + i] as number) + (row[from + i] as number) * weight) | 0;
  }
}

/** The largest number of output rows in progress at once; windows start and end in order. */
function mostOverlapping({ first, count, outSize }: Axis): number {
  let most = 1;
  for (let i = 0, open = 0; i < outSize; i++) {
    while ((first[open] ?? 0) + (count[open] ?? 0) <= (first[i] ?? 0)) open++;
    most = Math.max(most, i - open + 1);
  }
  return most;
}

/** Pillow's precompute_coeffs and normalize_coeffs_8bpc, with the same order of operations, which determines the last bit. */
function axis(inSize: number, outSize: number, filter: ResampleFilter): Axis {
  const { kernel, support: unit } = FILTERS[filter];
  const scale = inSize / outSize;
  const filterScale = Math.max(scale, 1);
  const support = unit * filterScale;
  const inverse = 1 / filterScale;
  const taps = Math.min(inSize, Math.ceil(support) * 2 + 1);
  const first = new Int32Array(outSize);
  const count = new Int32Array(outSize);
  const weights = new Int32Array(outSize * taps);
  const exact = new Float64Array(taps);
  for (let i = 0; i < outSize; i++) {
    const center = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const n = Math.min(inSize, Math.trunc(center + support + 0.5)) - start;
    let sum = 0;
    for (let k = 0; k < n; k++) {
      const w = kernel((k + start - center + 0.5) * inverse);
      exact[k] = w;
      sum += w;
    }
    first[i] = start;
    count[i] = n;
    for (let k = 0; k < n; k++) {
      const w = ((exact[k] ?? 0) / (sum === 0 ? 1 : sum)) * (1 << PRECISION_BITS);
      weights[i * taps + k] = Math.trunc(w < 0 ? w - 0.5 : w + 0.5);
    }
  }
  return { inSize, outSize, taps, first, count, weights };
}

/** Kernels with their support, before scaling. */
const FILTERS: Record<ResampleFilter, { kernel: (x: number) => number; support: number }> = {
  bilinear: { kernel: (x) => Math.max(0, 1 - Math.abs(x)), support: 1 },
  bicubic: { kernel: cubic, support: 2 },
  lanczos: { kernel: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0), support: 3 },
};

/** Keys' cubic convolution with a = -1/2. */
function cubic(signed: number): number {
  const a = -0.5;
  const x = Math.abs(signed);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

function sinc(x: number): number {
  if (x === 0) return 1;
  const t = x * Math.PI;
  return Math.sin(t) / t;
}

function check(image: RgbImage, width: number, height: number, filter: string): void {
  for (const [name, value] of Object.entries({ width, height })) {
    if (Number.isSafeInteger(value) && value > 0) continue;
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected a positive integer for ${name} of resize but received ${value}.`,
    );
  }
  if (!Object.hasOwn(FILTERS, filter)) {
    const known = Object.keys(FILTERS).join(', ');
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected one of ${known} for filter of resize but received ${String(filter)}.`,
    );
  }
  const expected = image.width * image.height * 3;
  if (!(expected > 0) || image.data.length !== expected) {
    throw new SparseVilaError(
      'ERR_IMAGE_INVALID',
      `Expected ${image.width}·${image.height}·3 = ${expected} bytes of RGB for image of resize but received ${image.data.length}.`,
    );
  }
}
