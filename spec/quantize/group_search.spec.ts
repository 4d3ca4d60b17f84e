// The search for linear layers that belong together: what it returns is what it measured, scales cancel out, and nothing is scaled
// that nothing can take up.
import { collectInputs, outputError, type SearchedGroup, searchGroups } from '../../src/quantize/group_search';
import { dequantizeMatrix, type Matrix, type QuantizedMatrix } from '../../src/quantize/round';
import { noise, randomMatrix } from './matrices';

const ROWS = 37;
const round = { group: 16, symmetric: false };
const breathe = async (): Promise<void> => undefined;

/** x W^T, f32 [t, rows]. */
function times(x: Float32Array, { rows, cols, values }: Matrix): Float32Array {
  const out = new Float32Array((x.length / cols) * rows);
  for (let t = 0; t < x.length / cols; t++)
    for (let n = 0; n < rows; n++) {
      let sum = 0;
      for (let k = 0; k < cols; k++) sum += (x[t * cols + k] as number) * (values[n * cols + k] as number);
      out[t * rows + n] = sum;
    }
  return out;
}

const divided = (x: Float32Array, s: Float32Array | undefined): Float32Array =>
  s === undefined ? x : x.map((value, i) => value / (s[i % s.length] as number));

type Site = 'first' | 'second';

/** Two layers, [32, 48] and [21, 32], the second fed by the first; inputs with channels that stand out. */
function chain(scaled: boolean) {
  const [first, second] = [randomMatrix(32, 48, 5), randomMatrix(21, 32, 6)];
  const x = noise(ROWS * 48, 7).map((value, i) => value * (i % 48 === 3 || i % 48 === 30 ? 25 : 1));
  const between = times(x, first);
  const statisticsOf = (values: Float32Array, width: number) => {
    const collector = collectInputs(width, round.group, ROWS);
    collector.see(values.subarray(0, 11 * width));
    collector.see(values.subarray(11 * width));
    return collector.finish();
  };
  const group = (site: Site, matrix: Matrix, input: Float32Array): SearchedGroup<Site, Site> => ({
    ...{ site, linears: [site], scaled, isClipped: () => true, statistics: statisticsOf(input, matrix.cols) },
    loss: ([replaced]) => outputError([times(input, replaced as Matrix)], [times(input, matrix)]),
  });
  const groups = [group('first', first, x), group('second', second, between)];
  const linears = {
    first: { matrix: first, input: 'first', output: 'second' },
    second: { matrix: second, input: 'second' },
  } as const;
  return { x, between, first, second, groups, linears };
}

it('collects means and products of all rows, whatever the parts', () => {
  const { x, groups } = chain(true);
  const { meanAbs, gram } = (groups[0] as SearchedGroup<Site, Site>).statistics;
  for (const c of [0, 3, 47]) {
    let [sum, product] = [0, 0];
    for (let t = 0; t < ROWS; t++) {
      sum += Math.abs(x[t * 48 + c] as number);
      product += (x[t * 48 + c] as number) * (x[t * 48 + 3] as number);
    }
    expect(meanAbs[c]).toBeCloseTo(sum / ROWS, 5);
    expect(gram.parts[0]?.[c * gram.block + 3]).toBeCloseTo(product / ROWS, 3);
  }
});

it('what is returned has the error that is reported, less than that of rounding to nearest', async () => {
  const { x, between, first, second, groups, linears } = chain(true);
  const made = await searchGroups(linears, groups, { round, feedback: true, breathe });
  const { first: s, second: t } = made.scales;
  expect(s).toHaveLength(48);
  // As a checkpoint is run: inputs divided by what came before, whose rows are divided by what comes after.
  const plain = (quantized: QuantizedMatrix): Matrix => dequantizeMatrix(quantized);
  const outputs = {
    first: times(divided(x, s), plain(made.linears.first)).map((value, i) => value * (t?.[i % 32] ?? 1)),
    second: times(divided(between, t), plain(made.linears.second)),
  };
  const targets = { first: times(x, first), second: times(between, second) };
  for (const [i, site] of (['first', 'second'] as const).entries()) {
    const { group, rtn, chosen } = made.errors[i] ?? { group: '', rtn: 0, chosen: 0 };
    expect(group).toBe(site);
    expect(chosen).toBeLessThan(rtn);
    expect(outputError([outputs[site]], [targets[site]]) / chosen).toBeCloseTo(1, 3);
  }
});

it('without anything that takes scales up there are none, and clipping and feedback still help', async () => {
  const { groups, linears } = chain(false);
  const made = await searchGroups(linears, groups, { round, feedback: true, breathe });
  expect(made.scales).toEqual({});
  for (const { rtn, chosen, ratio } of made.errors) {
    expect(ratio).toBeNull();
    expect(chosen).toBeLessThan(rtn);
  }
});
