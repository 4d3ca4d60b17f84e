// Rounding, scales, clipping and feedback against their definitions, and the ops against plain TypeScript, bit for bit.

import { roundToF16 } from '../../src/checkpoint/half';
import { dequantizeMatrix, type Matrix, roundEven } from '../../src/checkpoint/round';
import { clipLimits, feedbackRound, packQuantizedMatrices, packRounded, quantizeMatrix } from '../../src/ops/quantize';
import { floats } from '../../src/ops/run';
import { dequantize, type PackedMatrix } from '../../src/ops/weights';
import { addToGram, emptyGram, type Gram, gramOf, gramsOf } from '../../src/quantize/gram';
import { candidateScale, meanShare, searchScale } from '../../src/quantize/scale_search';
import type { Rows } from '../../src/quantize/statistics';
import { start } from '../../src/runtime/start';
import {
  clamped,
  clipLimitsReference,
  divideRows,
  feedbackReference,
  inverseFactor,
  quantizeReference,
  roundMatrix,
  scaleColumns,
  scaled,
} from '../../testing/ops/references/quantize';
import { levels } from '../ops/levels';
import { noise, randomMatrix } from './matrices';

const pace = async (): Promise<void> => undefined;
const round = { group: 16, symmetric: false };

/** The Gram matrix of rows, added in two parts. */
function gramFrom({ values, width, weights }: Rows): Gram {
  const gram = emptyGram(width, round.group);
  addToGram(gram, values.subarray(0, 70 * width), weights.subarray(0, 70));
  addToGram(gram, values.subarray(70 * width), weights.subarray(70));
  return gram;
}

/** Correlated inputs of uneven size, like those of a model. */
function rowsOf(rows: number, width: number, seed: number): Rows {
  const [own, shared] = [noise(rows * width, seed), noise(rows, seed + 1)];
  const values = own.map(
    (x, i) => (x * 0.4 + (shared[Math.floor(i / width)] as number)) * (1 + 4 * Number(i % 7 === 0)),
  );
  return { values, rows, width, weights: new Float32Array(rows).fill(1 / rows) };
}

/** Mean squared output error of replacing `from` by `to`. */
function outputError(from: Matrix, to: Matrix, x: Rows): number {
  let total = 0;
  for (let t = 0; t < x.rows; t++)
    for (let n = 0; n < from.rows; n++) {
      let sum = 0;
      for (let k = 0; k < from.cols; k++)
        sum +=
          (x.values[t * x.width + k] as number) *
          ((to.values[n * to.cols + k] as number) - (from.values[n * from.cols + k] as number));
      total += sum * sum;
    }
  return total / x.rows;
}

describe('rounding', () => {
  it('is half to even', () => {
    expect([0.5, 1.5, 2.5, -0.5, -1.5, 0.49999].map(roundEven).map((x) => x + 0)).toEqual([0, 2, 2, 0, -2, 0]);
  });

  it.each([false, true])('keeps every weight within half a step of its range; symmetric %s', (symmetric) => {
    const matrix = randomMatrix(5, 40, 1);
    const { scale, zero, q } = quantizeMatrix(matrix, { group: 16, symmetric });
    const back = dequantizeMatrix(quantizeMatrix(matrix, { group: 16, symmetric }));
    for (let i = 0; i < matrix.values.length; i++) {
      const step = scale[Math.floor(i / 40) * 3 + Math.floor((i % 40) / 16)] as number;
      // A binary16 scale may cut the range by its own rounding: 15 steps of 2^-11.
      expect(Math.abs((back.values[i] as number) - (matrix.values[i] as number))).toBeLessThanOrEqual(
        step * (0.5 + 15 * 2 ** -11) + 1e-7,
      );
    }
    expect([...scale].every((s) => s === roundToF16(s) && s > 0)).toBe(true);
    expect([...zero, ...q].every((n) => n >= 0 && n <= 15)).toBe(true);
    if (symmetric) expect(new Set(zero)).toEqual(new Set([8]));
  });

  it('holds constant and zero groups', () => {
    const matrix = { rows: 1, cols: 32, values: Float32Array.from({ length: 32 }, (_, i) => (i < 16 ? 0 : 3)) };
    const { values } = roundMatrix(matrix, round);
    expect([...values.subarray(0, 16)]).toEqual(new Array(16).fill(0));
    expect(values.every(Number.isFinite)).toBe(true);
  });
});

describe('scales', () => {
  const matrix = randomMatrix(6, 32, 2);
  const meanAbs = Float64Array.from(noise(32, 3), Math.abs);

  it('are duo scales around 1', () => {
    const share = meanShare([matrix], 16);
    const scale = candidateScale(meanAbs, share, 0.5);
    const raw = [...meanAbs].map((x, c) => Math.max(Math.sqrt(x) / (Math.sqrt(share[c] as number) + 1e-4), 1e-4));
    const middle = Math.sqrt(Math.max(...raw) * Math.min(...raw));
    for (const [c, s] of scale.entries()) expect(s).toBeCloseTo((raw[c] as number) / middle, 5);
    expect(candidateScale(new Float64Array(4).fill(Number.NaN), new Float64Array(4).fill(1), 0.5)).toEqual(
      Float32Array.of(1, 1, 1, 1),
    );
  });

  it('of one have no effect', () => {
    expect(roundMatrix(matrix, round, new Float32Array(32).fill(1))).toEqual(roundMatrix(matrix, round));
  });

  it.each([false, true])('rounding with them equals scaling, rounding and scaling back; symmetric %s', (symmetric) => {
    const options = { group: 12, symmetric };
    const s = Float32Array.from({ length: 32 }, (_, c) => 0.5 + c / 7);
    const plain = dequantizeMatrix(quantizeMatrix(scaleColumns(matrix, s), options));
    const exact = plain.values.map((w, i) => w / (s[i % 32] as number));
    // The plain implementation also rounds to f32 before it divides.
    for (const [i, w] of roundMatrix(matrix, options, s).values.entries()) expect(w).toBeCloseTo(exact[i] as number, 6);
    expect(roundMatrix(matrix, options)).toEqual(dequantizeMatrix(quantizeMatrix(matrix, options)));
  });

  it('that are found are never worse than none', async () => {
    const x = rowsOf(64, 32, 4);
    const magnitude = Float64Array.from({ length: 32 }, (_, c) => {
      let sum = 0;
      for (let t = 0; t < 64; t++) sum += Math.abs(x.values[t * 32 + c] as number);
      return sum / 64;
    });
    const loss = (s: Float32Array): number => outputError(matrix, roundMatrix(matrix, round, s), x);
    const found = await searchScale([matrix], { meanAbs: magnitude, group: 16, loss, pace });
    expect(found.plainLoss).toBe(outputError(matrix, roundMatrix(matrix, round), x));
    expect(found.loss).toBeLessThan(found.plainLoss);
    const worst = await searchScale([matrix], { meanAbs: magnitude, group: 16, loss: () => 1, pace });
    expect(worst.ratio).toBeUndefined();
    expect(worst.scale).toEqual(new Float32Array(32).fill(1));
  });
});

describe('clipping and feedback', () => {
  const matrix = randomMatrix(24, 48, 5);
  const x = rowsOf(200, 48, 6);
  const ones = new Float32Array(48).fill(1);

  it('the Gram matrix is the weighted sum over rows of scaled inputs', () => {
    const s = Float32Array.from({ length: 48 }, (_, c) => 1 + c / 10);
    const found = gramOf(gramFrom(x), s, 16, 32);
    for (const [a, b] of [
      [0, 0],
      [3, 9],
      [15, 2],
    ] as const) {
      let sum = 0;
      for (let t = 0; t < 200; t++)
        sum +=
          ((x.values[t * 48 + 16 + a] as number) * (x.values[t * 48 + 16 + b] as number)) /
          200 /
          ((s[16 + a] as number) * (s[16 + b] as number));
      expect(found[a * 16 + b]).toBeCloseTo(sum, 4);
    }
  });

  it('clipping lowers the sum of the groups errors and only shrinks', () => {
    const limits = clipLimits(matrix, round, {}, gramsOf(gramFrom(x), ones, 16));
    const clipped = clamped(matrix, limits, 16);
    expect(clipped.values.every((w, i) => Math.abs(w) <= Math.abs(matrix.values[i] as number) + 1e-6)).toBe(true);
    const groupwise = (to: Matrix): number =>
      [0, 16, 32].reduce((sum, begin) => {
        const part = ({ values }: Matrix): Matrix => ({
          rows: 24,
          cols: 48,
          values: values.map((w, i) => (i % 48 >= begin && i % 48 < begin + 16 ? w : 0)),
        });
        return sum + outputError(part(matrix), part(to), x);
      }, 0);
    expect(groupwise(roundMatrix(clipped, round))).toBeLessThan(groupwise(roundMatrix(matrix, round)));
  });

  it('the factor is that of the damped inverse', () => {
    const products = gramOf(gramFrom(x), ones, 0, 16);
    const u = inverseFactor(products, 16);
    let trace = 0;
    for (let i = 0; i < 16; i++) trace += products[17 * i] as number;
    for (let i = 0; i < 16; i++)
      for (let j = 0; j < 16; j++) {
        // (U^T U) (H + λ I) = 1
        let sum = 0;
        for (let k = 0; k < 16; k++) {
          let inverse = 0;
          for (let m = 0; m < 16; m++) inverse += (u[m * 16 + i] as number) * (u[m * 16 + k] as number);
          sum += inverse * ((products[k * 16 + j] as number) + (k === j ? (0.01 * trace) / 16 : 0));
        }
        expect(sum).toBeCloseTo(i === j ? 1 : 0, 6);
        if (j < i) expect(u[i * 16 + j]).toBe(0);
      }
  });

  it('feedback keeps the grid and at least halves the output error of correlated inputs', () => {
    const nearest = quantizeMatrix(matrix, round);
    const inputs = gramFrom(x);
    const better = feedbackRound(matrix, nearest, {}, inputs.block, gramsOf(inputs, ones, inputs.block));
    expect([better.scale, better.zero]).toEqual([nearest.scale, nearest.zero]);
    const error = (to: typeof better): number => outputError(matrix, dequantizeMatrix(to), x);
    expect(error(better)).toBeLessThan(error(nearest) / 2);
  });
});

// The loops have only three levels.
const LEVELS = levels().filter((level) => /^(portable|avx2|avx512)$/.test(level));

describe.each(LEVELS)('the ops equal plain TypeScript bit for bit: %s', (level) => {
  const { native } = start();
  const before = native.isa();
  beforeAll(() => {
    native.isa(level);
  });
  afterAll(() => {
    native.isa(before);
  });

  // More rows than feedback takes at once, groups that do not divide the columns, columns of several blocks.
  const cols = 700;
  const matrix = withSpecialGroups(randomMatrix(37, cols, 11));
  const scaling = {
    columns: noise(cols, 12).map((x) => 2 ** x),
    rows: noise(37, 13).map((x) => 2 ** x),
  };
  const s = scaling.columns;
  const applied = scaled(matrix, scaling);
  const rounds = [16, 128, 24].flatMap((group) => [false, true].map((symmetric) => ({ group, symmetric })));

  it.each(rounds)('rounding %j', (options) => {
    expect(quantizeMatrix(matrix, options)).toEqual(quantizeReference(matrix, options));
    expect(quantizeMatrix(matrix, options, { columns: s })).toEqual(
      quantizeReference(scaleColumns(matrix, s), options),
    );
    expect(quantizeMatrix(matrix, options, scaling)).toEqual(quantizeReference(applied, options));
    const limits = noise(37 * Math.ceil(cols / options.group), 14).map((x) => Math.abs(x) + 0.1);
    expect(quantizeMatrix(matrix, options, scaling, limits)).toEqual(
      quantizeReference(clamped(applied, limits, options.group), options),
    );
  });

  it.each(rounds)('packing the candidates of a search %j', (options) => {
    const other = randomMatrix(20, cols, 15);
    const stacked = packRounded([matrix, other], options, s);
    const expected = [matrix, other].flatMap((one) => [...roundMatrix(one, options, s).values]);
    expect(unpacked(stacked)).toEqual(Float32Array.from(expected));
  });

  it.each(rounds)('packing the result %j', (options) => {
    const other = quantizeReference(randomMatrix(20, cols, 15), options);
    const quantized = quantizeReference(applied, options);
    const rows = Float32Array.from([...scaling.rows.map((x) => 1 / x), ...new Float32Array(20).fill(1)]);
    const expected = [
      divideRows(scaleColumns(dequantizeMatrix(quantized), s, true), rows.subarray(0, 37)),
      scaleColumns(dequantizeMatrix(other), s, true),
    ].flatMap(({ values }) => [...values]);
    expect(unpacked(packQuantizedMatrices([quantized, other], { columns: s, rows }))).toEqual(
      Float32Array.from(expected),
    );
    expect(unpacked(packQuantizedMatrices([quantized], {}))).toEqual(dequantizeMatrix(quantized).values);
  });

  it.each(rounds)('clipping and feedback %j', (options) => {
    const inputs = emptyGram(cols, options.group);
    const { values, weights } = rowsOf(90, cols, 16);
    addToGram(inputs, values, weights);
    const grams = gramsOf(inputs, s, options.group);
    const limits = clipLimits(matrix, options, scaling, grams);
    expect(limits).toEqual(clipLimitsReference(applied, grams, options));
    const clipped = clamped(applied, limits, options.group);
    expect(clipped).not.toEqual(applied);
    const grid = quantizeReference(clipped, options);
    const products = gramsOf(inputs, s, inputs.block);
    const found = feedbackRound(matrix, grid, scaling, inputs.block, products);
    expect(found).toEqual(feedbackReference(applied, grid, inputs.block, products));
    expect(found.q).not.toEqual(grid.q);
  });
});

/** Groups whose rounding is special: zeros, a constant, one sign, very small, and very large values. */
function withSpecialGroups({ rows, cols, values }: Matrix): Matrix {
  const changed = values.slice();
  for (let c = 0; c < 300; c++) {
    changed[c] = c < 100 ? 0 : 3;
    changed[cols + c] = Math.abs(values[cols + c] as number) + 1;
    changed[2 * cols + c] = (values[2 * cols + c] as number) * 1e-7;
    changed[3 * cols + c] = (values[3 * cols + c] as number) * 1e4;
    changed[4 * cols + c] = Math.round(8 * (values[4 * cols + c] as number)) / 8; // ties
  }
  return { rows, cols, values: changed };
}

function unpacked(matrix: PackedMatrix): Float32Array {
  const rows = dequantize(matrix);
  const values = floats(rows).slice();
  rows.dispose();
  matrix.tensor.dispose();
  return values;
}
