// Every small case of the op table against its reference on the stand-in of a GPU: the GPU's kernels, registration, memory and
// copies, without a GPU. Memory of the device that the host touches ends the process, and all cases with it. With
// SPARSEVILA_DEVICE=gpu on a real GPU (scripts/gpu/run.sh).

import { OP_CASES, titleOf } from '../../testing/ops/cases/index';
import { TOLERANCES, within } from '../../testing/ops/tolerance';
import { runOn } from '../support/device';
import type { CaseResults } from './device_cases';
import { HOST_ONLY, keep, REFUSED } from './refused';

const SMALL = OP_CASES.filter(({ big }) => !big).map((item) => ({ ...item, title: titleOf(item) }));

let results: CaseResults;
beforeAll(async () => {
  results = await runOn<CaseResults>(process.env.SPARSEVILA_DEVICE === 'gpu' ? 'gpu' : 'standin', 'ops/device_cases');
});

afterAll(() => keep.dispose());

test('runs on the device', () => {
  expect(results.device).toBe('GPU');
});

describe.each(SMALL)('$title', ({ title, tolerance }) => {
  test('equals its reference', () => {
    const { comparisons, thrown } = results.cases[title] ?? { comparisons: [] };
    expect(thrown).toBeUndefined();
    expect(comparisons.length).toBeGreaterThan(0);
    // JSON has no NaN, which JSON.stringify writes as null.
    const wrong = comparisons.filter(({ error }) => !within(error ?? Number.NaN, tolerance));
    expect({ tolerance: TOLERANCES[tolerance], wrong }).toEqual({ tolerance: TOLERANCES[tolerance], wrong: [] });
  });

  test('gives equal bits for equal calls', () => {
    expect(results.cases[title]?.differs ?? null).toBeNull();
  });
});

describe('what an op refuses', () => {
  test.each(REFUSED.filter(([name]) => !HOST_ONLY.test(name)))('%s', (name, _call, message) => {
    expect(results.refused[name]).toMatch(message);
  });
});
