// Scenes, questions and pixels against scene.py, the generator that the packaged model was trained with: draw by draw, all fed from one
// stream of random numbers (scripts/fixtures/scenes.py). And what anyone may rely on: determinism, and the shares of kinds.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { decodeImage } from '../../src/image/decode';
import { type SceneConversation, sceneConversation } from '../../src/scenes/conversation';
import { CELL, glyphBank, VARIANTS } from '../../src/scenes/glyphs';
import type { Question } from '../../src/scenes/questions';
import { TYPES } from '../../src/scenes/scene';

const FIXTURES = resolve(__dirname, '../../../spec/fixtures/scenes');

interface Case {
  readonly seed: number;
  readonly index: number;
  readonly types: readonly (readonly number[])[];
  readonly colors: readonly (readonly number[])[];
  readonly turns: readonly Question[];
  readonly turnsAsked: number;
  readonly sha256?: readonly string[];
}
const CASES = JSON.parse(readFileSync(join(FIXTURES, 'scenes.json'), 'utf8')) as Case[];

/** A digest of each picture: jest compares long arrays slowly. */
function bytesOf(conversation: SceneConversation): string[] {
  return conversation.render().map(({ data }) => createHash('sha256').update(data).digest('hex'));
}

describe.each(CASES)('seed $seed, conversation $index', (expected) => {
  const { seed, index, types, colors, turnsAsked } = expected;
  const drawn = sceneConversation({ seed, index, frames: types.length, turns: turnsAsked });

  it('has the frames of scene.py', () => {
    expect(drawn.frames.map((frame) => [...frame.types])).toEqual(types);
    expect(drawn.frames.map((frame) => [...frame.colors])).toEqual(colors);
  });

  it('has the questions of scene.py', () => {
    expect(drawn.turns).toEqual(expected.turns);
  });
});

describe('pixels', () => {
  it('every one is that of scene.py', async () => {
    const { data } = await decodeImage(join(FIXTURES, 'scene.png'));
    const [picture] = sceneConversation({ seed: 1, index: 0 }).render();
    const wrong = [...data.keys()].filter((i) => data[i] !== picture?.data[i]);
    expect(wrong.slice(0, 10)).toEqual([]);
    expect(picture?.data).toHaveLength(280 * 280 * 3);
  });

  it.each(CASES.filter(({ sha256 }) => sha256 !== undefined))('of seed $seed, conversation $index, all frames', (c) => {
    expect(bytesOf(sceneConversation({ seed: c.seed, index: c.index, frames: c.types.length }))).toEqual(c.sha256);
  });

  it('do not depend on the time of drawing or the number of questions', () => {
    const [one, two] = [sceneConversation({ seed: 5, index: 3 }), sceneConversation({ seed: 5, index: 3, turns: 2 })];
    expect(bytesOf(one)).toEqual(bytesOf(two));
    expect(one.turns.slice(0, 2)).toEqual(two.turns);
    expect(bytesOf(sceneConversation({ seed: 5, index: 4 }))).not.toEqual(bytesOf(one));
  });
});

describe('distribution', () => {
  const turns = Array.from({ length: 500 }, (_, index) => sceneConversation({ seed: 11, index }).turns).flat();

  it('six questions each, kinds in their shares', () => {
    expect(turns).toHaveLength(3000);
    const share = (kind: string): number => turns.filter((turn) => turn.kind === kind).length / turns.length;
    // Each kind is 2 of 11 draws, of which none, few or some are refused because they have no answer.
    for (const kind of ['color', 'where', 'at', 'row']) expect(Math.abs(share(kind) - 2 / 11)).toBeLessThan(0.04);
    for (const kind of ['count', 'yesno', 'list']) expect(Math.abs(share(kind) - 1 / 11)).toBeLessThan(0.04);
    expect(share('frame')).toBe(0);
  });

  it('questions about several frames name the frame', () => {
    const several = Array.from({ length: 50 }, (_, index) => sceneConversation({ seed: 11, index, frames: 3 }).turns);
    const asked = several.flat();
    expect(asked.filter(({ kind }) => kind === 'frame').length).toBeGreaterThan(10);
    for (const { question, answer, kind } of asked) {
      if (kind === 'where') expect(answer).toMatch(/^frame [123], [a-j]\d$/);
      if (kind === 'at' || kind === 'row' || kind === 'count') expect(question).toMatch(/ in frame [123][?.]$/);
    }
  });
});

test('every glyph of the bank occurs', () => {
  const bank = glyphBank();
  for (let glyph = 0; glyph < TYPES.length * VARIANTS; glyph++) {
    const mask = bank.subarray(glyph * CELL * CELL, (glyph + 1) * CELL * CELL);
    expect(mask.filter((alpha) => alpha > 127).length).toBeGreaterThan(20);
  }
});

test.each([
  [{ seed: -1, index: 0 }, /from 0 to 2147483647 for seed, received -1/],
  [{ seed: 1, index: 0.5 }, /for index, received 0.5/],
  [{ seed: 1, index: 0, frames: 0 }, /from 1 to 999 for frames, received 0/],
  [{ seed: 1, index: 0, turns: Number.NaN }, /for turns, received NaN/],
])('refuses %j', (options, message) => {
  expect(() => sceneConversation(options)).toThrow(message);
});
