// The table that scripts/gpu/report.ts makes of what runs on a GPU wrote: figures, misses of predictions, bars, and failed steps.
import { FIGURES } from '../scripts/gpu/figures';
import { type Run, table, withTable } from '../scripts/gpu/report';

const FIRST: Run = {
  device: 'gpu',
  commit: 'abc1234',
  date: '2026-11-29',
  steps: [
    { step: 'smi', code: 0, seconds: 1, result: { name: 'NVIDIA H200', driver: '580.95.05' } },
    { step: 'kernels', code: 1, seconds: 40, result: { passed: 18, failed: ['attend'], seed: 1 } },
    {
      step: 'bench',
      code: 0,
      seconds: 60,
      result: {
        limits: { copy_tb_s: 4.1, bf16_tflop_s: 700 },
        'int4 4096x11008, 1 row': { us: 9, of_copy: 0.65 },
        'int4 3584x18944, 1 row': { error: 'out of memory' },
        'int4 4096x11008, 4096 rows': { us: 2300, of_bf16: 0.2 },
      },
    },
    {
      step: 'step',
      code: 0,
      seconds: 60,
      result: {
        contexts: [
          { visual: 8192, share: 0.1, graph_us: 3000, us: 4000 },
          { visual: 0, share: 1, graph_us: 1900 },
        ],
      },
    },
    { step: 'memcheck', code: null, seconds: 0, result: null },
  ],
};

const row = (lines: readonly string[], name: string): string[] =>
  (lines.find((line) => line.startsWith(`| ${name} |`)) ?? '').split('|').map((cell) => cell.trim());

test('gives each figure its value, marks misses of predictions, and says which bars are met', () => {
  const lines = table([FIRST]);
  expect(lines).toHaveLength(4 + FIGURES.length);
  expect(lines[0]).toMatch(/^NVIDIA H200, driver 580\.95\.05, 2026-11-29 at abc1234\./);
  expect(lines[0]).toContain('failed or left out: kernels (1), memcheck (left out).');
  expect(row(lines, 'copy')[3]).toBe('4.1 TB/s');
  expect(row(lines, 'W4A16 4096x11008, 4096 rows')[3]).toBe('2300 us');
  expect(row(lines, 'W4A16 3584x18944, 1 row')[3]).toBe('not measured');
  expect(row(lines, '7B decode step, an empty context, in a graph').slice(3, 5)).toEqual([
    expect.stringMatching(/^1900 us/),
    '≤ 2000 us, met',
  ]);
  expect(lines.filter((line) => line.endsWith('| ≥ 40 %, missed |'))).toHaveLength(1);
  expect(lines.filter((line) => line.endsWith('| ≥ 60 %, met |'))).toHaveLength(1);
  expect(
    row(
      table([{ ...FIRST, steps: [{ step: 'device', code: 0, seconds: 1, result: { toDeviceGBs: 2 } }] }]),
      'copy to the device',
    )[3],
  ).toBe('2.0 GB/s (3.0x off)');
});

test('a later run replaces the steps of an earlier one', () => {
  const again: Run = { ...FIRST, commit: 'def5678', steps: [{ step: 'kernels', code: 0, seconds: 40, result: null }] };
  const [first = ''] = table([FIRST, again]);
  expect(first).toContain('at abc1234 and 2026-11-29 at def5678');
  expect(first).toContain('failed or left out: memcheck (left out).');
});

test('puts the table between its marks and nowhere else', () => {
  const page = 'a\n<!-- figures: scripts/gpu/report.ts -->\nold\n<!-- /figures -->\nb\n';
  expect(withTable(page, ['new'])).toBe('a\n<!-- figures: scripts/gpu/report.ts -->\n\nnew\n\n<!-- /figures -->\nb\n');
  expect(() => withTable('no marks', ['new'])).toThrow('Expected <!-- figures');
});
