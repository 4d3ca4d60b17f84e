// The GPU's products with packed matrices, norms and rotary embedding agree with the processor's, run on the
// stand-in for CUDA: cuda_linear.cu and cuda_rows.cu beside this file compare. Has the tolerance of each kind of comparison.

import { runOnStandin } from '../support/standin';

/** Largest error of each kind: values that differ, or NMSE. */
const TOLERANCE: Record<string, number> = {
  same: 0, // bit for bit
  exact: 1e-9, // two planes of bf16 and f32 sums, against f64 on the same weights: 1e-6 is asked for, 1e-10 measured
  fast: 1e-4, // activations rounded to bf16
  f64: 1e-13, // f32 sums against f64
};

const SOURCES = [
  'spec/native/cuda_linear.cu',
  'spec/native/cuda_rows.cu',
  ...['rows', 'linear', 'f32', 'bf16', 'int4', 'int8', 'widen'].map((name) => `native/cuda/${name}.cu`),
  ...['linear', 'int4', 'int8', 'pool'].map((name) => `native/kernels/${name}.cc`),
  ...['level', 'int4', 'int8'].map((name) => `native/kernels/${name}_portable.cc`),
];

test('matrix and row kernels agree with the processor', async () => {
  const output = await runOnStandin(SOURCES);
  const lines = output.trimEnd().split('\n');
  const wrong = lines.filter((line) => {
    const [kind = '', , error = ''] = line.split('\t');
    return !(Number.parseFloat(error) <= (TOLERANCE[kind] ?? Number.NaN)); // NaN never passes
  });
  expect(wrong).toEqual([]);
  const count = (kind: string): number => lines.filter((line) => line.startsWith(`${kind}\t`)).length;
  expect({ exact: count('exact') > 150, fast: count('fast') > 50, same: count('same') > 1000 }).toEqual({
    exact: true,
    fast: true,
    same: true,
  });
});
