// The work folder of a checkpoint: one holder, resumable, and nothing incomplete under the final name.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openWorkFolder, type WorkFolder } from '../../src/checkpoint/work_folder';

let parent: string;
let out: string;
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), 'sparsevila-work-'));
  out = join(parent, 'out');
});
afterEach(() => rmSync(parent, { recursive: true }));
const code = (expected: string) => expect.objectContaining({ code: expected });
/** A checkpoint that is made below the work folder. */
function made({ folder }: WorkFolder): string {
  mkdirSync(join(folder, 'made'));
  writeFileSync(join(folder, 'made', 'config.json'), '{}');
  return join(folder, 'made');
}

test('a checkpoint is installed, and nothing else is left', async () => {
  const work = openWorkFolder(out, 'key');
  writeFileSync(join(work.folder, 'part'), '');
  work.finish('step', 1);
  await work.install(made(work));
  work.close();
  expect(readdirSync(parent)).toEqual(['out']);
  expect(readdirSync(out)).toEqual(['config.json']);
});

test('a run continues an earlier one with the same key', () => {
  const first = openWorkFolder(out, 'key');
  first.finish('step', { a: 1 });
  first.close();
  const again = openWorkFolder(out, 'key');
  expect([...again.finished]).toEqual([['step', { a: 1 }]]);
  again.close();
  expect(() => openWorkFolder(out, 'other')).toThrow(code('ERR_RESUME_MISMATCH'));
  // The refusal has released the lock.
  openWorkFolder(out, 'key').close();
});

test('without finished steps no file is left, and another key can begin', () => {
  const work = openWorkFolder(out, 'key');
  writeFileSync(join(work.folder, 'half'), '');
  work.close();
  expect(readdirSync(parent)).toEqual([]);
  openWorkFolder(out, 'other').close();
});

test('a second holder is refused until the first closes', () => {
  const work = openWorkFolder(out, 'key');
  expect(() => openWorkFolder(out, 'key')).toThrow(code('ERR_BUSY'));
  work.close();
  openWorkFolder(out, 'key').close();
});

test('an output that appears meanwhile, even an empty folder, is not replaced', async () => {
  const work = openWorkFolder(out, 'key');
  mkdirSync(out);
  await expect(work.install(made(work))).rejects.toMatchObject({ code: 'ERR_OUTPUT_EXISTS' });
  work.close();
  expect(readdirSync(out)).toEqual([]);
});

test('files of a run that was killed after naming the checkpoint are removed by the next run', async () => {
  const work = openWorkFolder(out, 'key');
  await work.install(made(work));
  work.close();
  mkdirSync(`${out}.partial`);
  writeFileSync(join(`${out}.partial`, 'resume.json'), JSON.stringify({ key: 'key', finished: { install: true } }));
  expect(() => openWorkFolder(out, 'key')).toThrow(code('ERR_OUTPUT_EXISTS'));
  expect(readdirSync(parent)).toEqual(['out']);
});

test('a run that was killed just before naming the checkpoint continues', () => {
  const first = openWorkFolder(out, 'key');
  first.finish('step', 1);
  first.finish('install', true);
  first.close();
  const again: WorkFolder = openWorkFolder(out, 'key');
  expect([...again.finished.keys()]).toEqual(['step']);
  again.close();
});

describe('inputs and outputs apart', () => {
  test('the output in the input, also through links and ..', () => {
    const model = join(parent, 'model');
    mkdirSync(join(model, 'llm'), { recursive: true });
    symlinkSync('model/llm', join(parent, 'link'));
    for (const inside of ['model/q', 'model/llm/a/q', 'link/q', 'other/../model/q'])
      expect(() => openWorkFolder(join(parent, inside), 'key', [model])).toThrow(code('ERR_OUTPUT_INSIDE'));
    expect(readdirSync(model)).toEqual(['llm']);
    openWorkFolder(join(parent, 'model-q'), 'key', [model]).close();
  });

  test('the input in the work folder', () => {
    const model = join(parent, 'out.partial', 'decoder');
    mkdirSync(model, { recursive: true });
    expect(() => openWorkFolder(out, 'key', [model])).toThrow(code('ERR_OUTPUT_INSIDE'));
    expect(existsSync(model)).toBe(true);
  });

  test('the output is the input', () => {
    mkdirSync(out);
    symlinkSync('out', join(parent, 'alias'));
    for (const name of ['out', 'alias'])
      expect(() => openWorkFolder(join(parent, name), 'key', [out])).toThrow(code('ERR_OUTPUT_EXISTS'));
  });
});

test('other kinds of files in place of the work folder, and dangling links', () => {
  writeFileSync(`${out}.partial`, '');
  expect(() => openWorkFolder(out, 'key')).toThrow(code('ERR_OUTPUT_UNWRITABLE'));
  symlinkSync('nowhere', out);
  expect(() => openWorkFolder(out, 'key')).toThrow(code('ERR_OUTPUT_EXISTS'));
  expect(() => openWorkFolder(join(parent, 'n'.repeat(300)), 'key')).toThrow(code('ERR_OUTPUT_UNWRITABLE'));
});
