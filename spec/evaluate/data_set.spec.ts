// Reading a user's own set of questions, and errors that name the line.

import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readDataSet, scenesSet } from '../../src/evaluate/data_set';
import { scene } from '../support/assets';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-data-'));
  copyFileSync(scene(0), join(folder, 'a.png'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function file(...lines: readonly unknown[]): string {
  const path = join(folder, 'set.jsonl');
  writeFileSync(path, lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n'));
  return path;
}

const TURN = { question: 'What is at b4?', answer: 'red F', kind: 'at' };
const GOOD = { images: ['a.png'], turns: [TURN] };

test('picture paths are relative to the file; kind is optional; blank lines are ignored', () => {
  const { turns, conversations, key } = readDataSet(
    file(GOOD, '', { ...GOOD, turns: [TURN, { question: 'q', answer: 'a' }] }),
  );
  expect(turns).toBe(2);
  expect(conversations.map((one) => one.images())).toEqual([[join(folder, 'a.png')], [join(folder, 'a.png')]]);
  expect(conversations[0]?.turns).toEqual([TURN]);
  expect(conversations[1]?.turns[1]).toEqual({ question: 'q', answer: 'a', kind: 'other' });
  expect(conversations[1]?.place).toMatch(/set\.jsonl:3$/);
  expect(readDataSet(file(GOOD)).key).not.toBe(key);
});

test('of several accepted answers the first one is shown', () => {
  const { conversations } = readDataSet(file({ ...GOOD, turns: [{ question: 'q', answers: ['3', 'three'] }] }));
  expect(conversations[0]?.turns).toEqual([{ question: 'q', answer: '3', answers: ['3', 'three'], kind: 'other' }]);
});

test.each([
  [{ ...GOOD, turns: [{ question: 'q', answer: '3', answers: ['3'] }] }, /:2: expected either "answer" or "answers"/],
  [{ ...GOOD, turns: [{ question: 'q', answers: [] }] }, /:2: expected either "answer" or "answers"/],
  [{ ...GOOD, turns: [{ question: 'q', answers: ['3', 4] }] }, /:2: expected "answers" of turn 1 to be a text/],
  [{ ...GOOD, images: ['.'] }, /:2: .*cannot be read \(it is a directory\)/],
  ['{"images": [', /set\.jsonl:2: expected a JSON object, but /],
  ['[]', /set\.jsonl:2: expected a conversation to be a JSON object, received \[\]/],
  [{ ...GOOD, image: 'a.png' }, /:2: expected a conversation to have only "images", "turns", received "image"/],
  [{ turns: [TURN] }, /:2: expected "images": \[paths\] of at least one picture, received nothing/],
  [{ ...GOOD, images: [7] }, /:2: expected "images": \[paths\]/],
  [
    { ...GOOD, images: ['b.png'] },
    /:2: .*b\.png: cannot be read \(no such file\)\. Expected a picture \(paths are relative/,
  ],
  [{ ...GOOD, turns: [] }, /:2: expected "turns": .* of at least one turn, received \[\]/],
  [{ ...GOOD, turns: [TURN, { question: 'q' }] }, /:2: expected "answer" of turn 2 to be a text .*, received nothing/],
  [{ ...GOOD, turns: [{ ...TURN, question: ' ' }] }, /:2: expected "question" of turn 1 to be a text/],
  [{ ...GOOD, turns: [{ ...TURN, truth: 'x' }] }, /:2: expected turn 1 to have only .* received "truth"/],
])('refuses the line %j', (line, message) => {
  expect(() => readDataSet(file(GOOD, line))).toThrow(expect.objectContaining({ code: 'ERR_DATA_SET' }));
  expect(() => readDataSet(file(GOOD, line))).toThrow(message);
});

test('refuses missing and empty files', () => {
  expect(() => readDataSet(join(folder, 'none.jsonl'))).toThrow(/none\.jsonl: cannot be read/);
  expect(() => readDataSet(file(''))).toThrow(/expected at least one conversation/);
});

test('scenes of several frames are films, whose questions name no frame and know where the answer is', () => {
  const set = scenesSet({ scenes: 3, turns: 8, frames: [4, 6], things: [2, 3], seed: 1 });
  expect(set.conversations.map(({ frames }) => frames)).toEqual([4, 4, 4, 6, 6, 6]);
  for (const { turns, frames = 0 } of set.conversations)
    for (const { question, frame, kind } of turns) {
      expect(question).toMatch(/^What color is the .*|^On which square is the .*|^Is there a .* in any frame\?$/);
      expect(frame === undefined).toBe(kind === 'shown');
      expect(frame ?? 0).toBeLessThan(frames);
    }
  expect(set.key).not.toBe(scenesSet({ scenes: 3, turns: 8, frames: [4, 6], seed: 1 }).key);
  expect(() => scenesSet({ scenes: 1, turns: 1, frames: 2, things: [3, 2], seed: 1 })).toThrow(/received 3 and 2/);
});

test('scenes are equal only for equal seeds', () => {
  const set = (seed: number) => scenesSet({ scenes: 2, turns: 3, frames: 2, seed });
  expect(set(1).conversations.map(({ turns }) => turns)).toEqual(set(1).conversations.map(({ turns }) => turns));
  expect(set(1).key).not.toBe(set(2).key);
  expect(set(1).conversations[0]?.images()).toHaveLength(2);
  expect(() => scenesSet({ scenes: 0, turns: 3, frames: 1, seed: 1 })).toThrow(
    /from 1 to 100000 for scenes, received 0/,
  );
});
