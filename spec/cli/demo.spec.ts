// The demo from end to end, and its token maps.
import { join } from 'node:path';
import { sideBySide } from '../../scripts/demo/table';
import { tokenMap } from '../../scripts/demo/token_map';
import { printable, styleFor } from '../../src/cli/style';
import { ROOT, startCli } from './run';

const plain = (_format: unknown, text: string): string => text;
const TRUTHS = ['d5', 'blue X, blue triangle', '3'];

test('npm run demo prints correct answers twice, a token map for each question, and times', async () => {
  const { code, stdout, stderr } = await startCli([], join(ROOT, 'dist/scripts/demo.js')).ended;
  expect([code, stderr]).toEqual([0, '']);
  const answers = stdout
    .split('\n')
    .flatMap((line) => /^ {2}.*[?.] (.*) ([✓✗]).* (\d+) kept, (\d+) /.exec(line)?.slice(1) ?? []);
  expect(answers.slice(0, 24)).toEqual([
    ...TRUTHS.flatMap((truth) => [truth, '✓', '100', '100']),
    ...TRUTHS.flatMap((truth) => [truth, '✓', '40', '10']),
  ]);
  const [pictures = '', film = ''] = stdout.split('watches a generated film of 48 frames');
  const maps = [...pictures.matchAll(/^\d(?: [·o1-9]){10} .*$/gm)].map(([row]) => row).join('');
  expect(maps.match(/·/g)).toHaveLength(3 * 60);
  for (const stage of ['image', 'vision tower', 'projector', 'prefill', 'retrieval', 'per decoded token', 'total'])
    for (const part of [pictures, film]) expect(part).toMatch(new RegExp(`^${stage} +[\\d.]+ +[\\d.]+$`, 'm'));
  expect(film.match(/✓/g)).toHaveLength(6);
  expect(film).toMatch(/4800 seen, 4800 kept, 4800 retrieved/);
  expect(film).toMatch(/4800 seen, 1200 kept, 120 retrieved/);
  expect(film.match(/^ {2}[ ▁▂▃▄▅▆▇█]{48} {2}\S.*\?$/gm)).toHaveLength(3);
  const [, dense = 0, sparse = 0] = (/^prefill +([\d.]+) +([\d.]+)$/m.exec(film) ?? []).map(Number);
  expect(dense).toBeGreaterThan(sparse);
});

test('a token map shows dropped and kept tokens, and by how many layers they were retrieved', () => {
  const kept = Int32Array.of(0, 2, 5);
  const retrieved = [Int32Array.of(1), Int32Array.of(1, 2)];
  expect(tokenMap({ grid: { rows: 2, cols: 3 }, kept, retrieved }, plain)).toEqual(['  a b c', '0 o · 2', '1 · · 1']);
});

test('blocks side by side are aligned regardless of colors', () => {
  expect(
    sideBySide(
      [
        ['ab', '\u001b[1mc\u001b[22m'],
        ['x', 'y', 'z'],
      ],
      3,
    ),
  ).toBe('ab   x\n\u001b[1mc\u001b[22m    y\n     z');
});

test('colors only on a terminal, and no control characters from a model', () => {
  const stream = (isTTY: boolean, colors: boolean) => ({ isTTY, hasColors: () => colors }) as NodeJS.WriteStream;
  expect(styleFor(stream(true, false))('bold', 'a')).toBe('a');
  expect(styleFor(stream(false, true))('bold', 'a')).toBe('a');
  expect(printable('a\u001b[2Jb\r\u009bc\u0007\td\n')).toBe('a[2Jbc\td\n');
});
