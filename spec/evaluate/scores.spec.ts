// Scores of answers, each with cases worked out by hand from the formula of its source.

import { editDistance } from '../../src/evaluate/edit_distance';
import { SCORES, type ScoreName } from '../../src/evaluate/scores';
import { formatTable } from '../../src/evaluate/table';
import { normalizeVqa } from '../../src/evaluate/vqa';

const score = (name: ScoreName, answer: string, answers: readonly string[]): number =>
  SCORES[name](answer, { question: 'q', kind: 'k', answer: answers[0] ?? '', answers });

test.each([
  ['', '', 0],
  ['', 'abc', 3],
  ['kitten', 'sitting', 3],
  ['flaw', 'lawn', 2],
  ['ab', 'ba', 2],
  ['😀b', '😀c', 1],
])('distance of %j and %j is %d', (a, b, distance) => {
  expect([editDistance(a, b), editDistance(b, a)]).toEqual([distance, distance]);
});

test.each([
  ['exact', ' d5 ', ['d5'], 1],
  ['exact', 'D5', ['d5'], 0],
  ['exact', 'two', ['2', 'two'], 1],
  ['normalized', 'The Red, Fox!', ['red fox'], 1],
  ['normalized', 'red  fox', ['a red fox'], 1],
  ['normalized', 'ＡＢＣ', ['abc'], 1],
  ['normalized', 'redfox', ['red fox'], 0],
  ['normalized', 'another', ['other'], 0],
  ['normalized', 'A', ['a'], 1],
  ['normalized', 'A', ['the'], 0],
  ['normalized', '?', ['!'], 0],
  ['contains', 'It is a red Fox.', ['red fox'], 1],
  ['contains', 'none', ['no'], 0],
  ['contains', 'No, none.', ['no'], 1],
  ['contains', 'snowman', ['now'], 0],
  ['contains', 'It is A', ['a'], 1],
  ['contains', '这是红色的', ['红色'], 1],
  ['contains', '', ['x'], 0],
] as const)('%s of %j beside %j is %d', (name, answer, answers, expected) => {
  expect(score(name, answer, answers)).toBe(expected);
});

// 1 - distance / longer length, where that quotient is below 0.5.
test.each([
  ['abcd', ['abcd'], 1],
  ['ABCD ', ['abcd'], 1],
  ['abce', ['abcd'], 0.75],
  ['abxx', ['abcd'], 0], // 2 / 4 is not below 0.5
  ['abcxx', ['abcdef'], 0], // 3 / 6
  ['abcdx', ['abcdef'], 1 - 2 / 6],
  ['1,234', ['1234'], 1 - 1 / 5],
  ['x', ['y', 'x'], 1],
  ['', ['x'], 0],
] as const)('anls of %j beside %j is %d', (answer, answers, expected) => {
  expect(score('anls', answer, answers)).toBeCloseTo(expected, 12);
});

/** `n` times one answer, and the others all different. */
const people = (answer: string, n: number): string[] =>
  Array.from({ length: 10 }, (_, i) => (i < n ? answer : `other ${i}`));

// Of ten people n agree: leaving one out, an agreeing one leaves n - 1, another one n. E.g. n = 3: (3 × 2/3 + 7 × 1) / 10.
test.each([
  [0, 0],
  [1, (1 * 0 + 9 * (1 / 3)) / 10],
  [2, (2 * (1 / 3) + 8 * (2 / 3)) / 10],
  [3, (3 * (2 / 3) + 7) / 10],
  [4, 1],
  [10, 1],
])('vqa: an answer that %d of ten annotators gave', (n, expected) => {
  expect(score('vqa', 'yes', people('Yes.', n))).toBeCloseTo(expected, 12);
});

test('vqa with fewer annotators: all others have to agree; a single answer has to be matched', () => {
  expect(score('vqa', 'two', ['2'])).toBe(1);
  expect(score('vqa', 'three', ['2'])).toBe(0);
  // Left out the first: 1 of 1; left out the second: 0 of 1.
  expect(score('vqa', 'a', ['x', 'y'])).toBe(0);
  expect(score('vqa', 'x', ['x', 'y'])).toBe(0.5);
});

test.each([
  ['The Two dogs', '2 dogs'],
  ['none', '0'],
  ['1,000', '1000'], // a number with a comma: punctuation goes without a trace
  ['red/blue', 'red blue'], // between letters it becomes a blank
  ['red , blue', 'red blue'], // beside a blank it goes
  ['U.S.', 'us'],
  ['3.5', '3.5'],
  ['dont', "don't"],
  ["couldnt've", "couldn't've"],
  ["couldn'tve", "couldn't've"],
  ['twas', "'twas"],
  ['ten o’clock', '10 o’clock'],
  ['a\nb', 'b'],
])('vqa normalizes %j to %j', (text, expected) => {
  expect(normalizeVqa(text)).toBe(expected);
});

test.each([52, 80, 200])('a table fits %d columns and contains all columns', (width) => {
  const ms = { image: 1, tower: 1, project: 1, prefill: 1, retrieve: 1, decode: 1, total: 12.34, conversation: 74 };
  const accuracyByKind = Object.fromEntries(['at', 'count', 'read', 'where', 'compare'].map((kind) => [kind, 0.5]));
  const row = { method: 'pyramiddrop', prefillSparsity: 0.6, decodeSparsity: 0.75, positions: 'compact' as const };
  const shares = { accuracy: 0.9511, accuracyByTurn: [1, 0.9], accuracyByKind, agreement: 0.95 };
  const table = formatTable([{ ...row, ...shares, activePrefill: 40, activeDecode: 10, ms, protocol: 'chat' }], width);
  expect(Math.max(...table.split('\n').map(({ length }) => length))).toBeLessThanOrEqual(width);
  for (const title of ['accuracy', 'later', 'as dense', 'ms all', ...Object.keys(accuracyByKind)])
    expect(table).toContain(title);
  expect(table).toMatch(/pyramiddrop +0\.6\/0\.75 +compact +chat +0\.951/);
});
