// `sparsevila explain` on the packaged model and a picture whose truths are known.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { cli, picture } from './run';

const folder = mkdtempSync(join(tmpdir(), 'explain-'));
afterAll(() => rmSync(folder, { recursive: true }));

const SCENE = ['--image', picture(20)];
const QUESTIONS = ['--question', 'Where is the yellow 2?', '--question', 'Read row 7.'];
const out = (name: string): string[] => ['--out', join(folder, name)];

interface Explained {
  out: string;
  method: string;
  decodeSparsity?: number;
  pictures: { grid: number; plane: number; rows: number; cols: number; kept: number[]; salience: number[] }[];
  turns: { question: string; answer: string; tokens: Record<string, number>; retrieved: (number[][] | null)[] }[];
}

async function explained(args: readonly string[]): Promise<Explained> {
  const { code, stdout, stderr } = await cli(['explain', ...args, '--json']);
  expect([code, stderr]).toEqual([0, '']);
  return JSON.parse(stdout) as Explained;
}

it('gives the answers of ask, and draws every cell that its JSON names', async () => {
  const result = await explained([...SCENE, ...QUESTIONS, ...out('a.png')]);
  expect(result).toMatchObject({ out: join(folder, 'a.png'), method: 'sparsevila', decodeSparsity: 0.75 });
  expect(result.turns.map(({ answer }) => answer)).toEqual(['d5', 'blue X, blue triangle']);
  expect(result.pictures).toHaveLength(1);
  const { kept = [], salience = [] } = result.pictures[0] ?? {};
  expect(result.pictures[0]).toMatchObject({ medium: 0, grid: 0, plane: 0, rows: 10, cols: 10 });
  expect([kept.length, salience.length]).toEqual([40, 100]);
  const least = Math.min(...kept.map((cell) => salience[cell] ?? 0));
  expect(salience.filter((value) => value >= least)).toHaveLength(40);
  for (const { retrieved } of result.turns) {
    expect(retrieved.map((layers) => layers?.map(({ length }) => length))).toEqual([[10, 10, 10, 10]]);
    for (const cell of retrieved[0]?.flat() ?? []) expect(kept).toContain(cell);
  }
  const image = sharp(readFileSync(result.out));
  expect(await image.metadata()).toMatchObject({ format: 'png', width: 2988, hasAlpha: false });
});

it('dense: the JSON has every cell, and a picture is drawn', async () => {
  const result = await explained([...SCENE, '--question', 'Read row 7.', '--method', 'dense', ...out('dense.png')]);
  expect(result.turns[0]).toMatchObject({ answer: 'blue X, blue triangle', retrieved: [null] });
  expect([result.pictures[0]?.kept.length, result.pictures[0]?.salience.length]).toEqual([100, 100]);
  expect((await sharp(readFileSync(result.out)).metadata()).width).toBe(2256);
});

it('several pictures have their own cells; without --json only the file name is printed', async () => {
  const args = ['explain', '--image', picture(20), picture(19), '--question', 'Where is the yellow A?'];
  const { code, stdout, stderr } = await cli([...args, ...out('new/folder/two.PNG')]);
  const path = join(folder, 'new/folder/two.PNG');
  expect([code, stdout, stderr]).toEqual([0, `${path}\n`, '']);
  const [one, two] = [readFileSync(join(folder, 'a.png')), readFileSync(path)];
  expect((await sharp(two).metadata()).height).toBeGreaterThan(1.6 * ((await sharp(one).metadata()).height ?? 0));
});

describe('a wrong command line', () => {
  const there = join(folder, 'there.png');
  writeFileSync(there, 'mine');
  test.each([
    ['no question', [...SCENE, ...out('x.png')], /Missing required argument: question/],
    ['no output', [...SCENE, ...QUESTIONS], /Missing required argument: out/],
    [
      'no image',
      ['--model', 'assets/tiny-nvila', ...QUESTIONS, ...out('x.png')],
      /ERR_OPTION_MISSING: Expected --image/,
    ],
    ['missing image', ['--image', 'nope.png', ...QUESTIONS, ...out('x.png')], /ERR_IMAGE_NOT_FOUND/],
    ['another kind of file', [...SCENE, ...QUESTIONS, ...out('x.jpg')], /ERR_OPTION_INVALID: .*\.png for --out/],
    ['a file that is there', [...SCENE, ...QUESTIONS, '--out', there], /ERR_OUTPUT_EXISTS: .*there\.png exists/],
    [
      'a folder that does not exist',
      [...SCENE, ...QUESTIONS, '--out', join(there, 'x.png')],
      /ERR_OUTPUT_UNWRITABLE: .*x\.png/,
    ],
    [
      'a ratio with dense',
      [...SCENE, ...QUESTIONS, ...out('x.png'), '--method', 'dense', '--decode-sparsity', '0.5'],
      /ERR_OPTION_INVALID/,
    ],
  ] as const)('%s', async (_name, args, message) => {
    const { code, stdout, stderr } = await cli(['explain', ...args]);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^sparsevila: [^\n]+\n$/);
    expect([code, stdout]).toEqual([/_IMAGE_|_OUTPUT_/.test(stderr) ? 1 : 2, '']);
    expect(readFileSync(there, 'utf8')).toBe('mine');
    expect(existsSync(join(folder, 'x.png'))).toBe(false);
  });
});

test('--help has examples and the shared options', async () => {
  const { code, stdout } = await cli(['explain', '--help']);
  expect(code).toBe(0);
  expect(stdout).toMatch(/Examples:\n {2}# .*\n {2}sparsevila explain /);
  for (const option of ['--out', '--prefill-sparsity', '--seed', '--history']) expect(stdout).toContain(option);
});
