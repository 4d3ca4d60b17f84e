// Without a terminal progress is a few lines.
import { amount, barSize, lineReporter } from '../../src/runtime/progress';

/** A reporter on a clock of our own, and what it wrote. */
function reporter() {
  const clock = { ms: 0 };
  const lines: string[] = [];
  const report = lineReporter({ write: (text) => lines.push(text) }, () => clock.ms);
  return { clock, lines, report };
}

describe('lineReporter', () => {
  test('writes the start and the end of a quick step', () => {
    const { lines, report } = reporter();
    for (let done = 0; done <= 100; done++) report({ step: 'fetch', done, total: 100, unit: 'files' });
    expect(lines).toEqual(['fetch: 0 % (0 of 100 files)\n', 'fetch: 100 % (100 of 100 files)\n']);
  });

  test('writes at most one line per tenth of a slow step', () => {
    const { clock, lines, report } = reporter();
    for (let done = 0; done <= 1000; done++, clock.ms += 1000) report({ step: 'fetch', done, total: 1000 });
    expect(lines).toHaveLength(11);
    expect(lines[1]).toBe('fetch: 10 %\n');
  });

  test('writes at most one line per two seconds', () => {
    const { clock, lines, report } = reporter();
    for (let done = 0; done <= 100; done++, clock.ms += 50) report({ step: 'fetch', done, total: 100 });
    expect(lines).toEqual(['fetch: 0 %\n', 'fetch: 40 %\n', 'fetch: 80 %\n', 'fetch: 100 %\n']);
  });

  test('names each step, and prints its end once', () => {
    const { lines, report } = reporter();
    for (const step of ['fetch', 'unpack']) {
      for (const done of [0, 1, 1, 1]) report({ step, done, total: 1 });
    }
    expect(lines).toEqual(['fetch: 0 %\n', 'fetch: 100 %\n', 'unpack: 0 %\n', 'unpack: 100 %\n']);
  });
});

test.each([
  [{ done: 12_345_678, total: 273_829_956, unit: 'B' }, '12 of 274 MB'],
  [{ done: 0.5e9, total: 1.5e9, unit: 'B' }, '0.50 of 1.50 GB'],
  [{ done: 1000, total: 9000, unit: 'B' }, '1 of 9 kB'],
  [{ done: 3, total: 9, unit: 'files' }, '3 of 9 files'],
  [{ done: 3, total: 9 }, ''],
])('the amount of %j is %j', (progress, text) => {
  expect(amount({ step: 'any', ...progress })).toBe(text);
});

test.each([40, 80, 120])('the line of a bar fits %d columns', (columns) => {
  const progress = { step: 'measure times', done: 7, total: 100, unit: 'cells' };
  const line = `${progress.step} ${'x'.repeat(barSize(progress, columns))} 100 %  100 of 100 cells  59 min 59 s left`;
  // The narrowest line has a bar of one character and is cut by cli-progress.
  if (columns >= 80) expect(line.length).toBeLessThanOrEqual(columns);
  else expect(barSize(progress, columns)).toBe(1);
});
