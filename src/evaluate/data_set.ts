// What is asked: conversations about pictures with true answers, out of packaged scenes or a user's own file. Knows no model.

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { messageOf, SparseVilaError } from '../errors';
import { readTextFile } from '../files';
import type { ImageInput } from '../image/decode';
import { sceneConversation } from '../scenes/conversation';

export interface TrueTurn {
  readonly question: string;
  readonly answer: string;
  /** What sort of question it is: accuracy is told for each. */
  readonly kind: string;
}

export interface TrueConversation {
  /** Where it comes from, for errors. */
  readonly place: string;
  readonly turns: readonly TrueTurn[];
  /** Paths, or pixels drawn at each call. */
  images(): readonly ImageInput[];
}

export interface DataSet {
  /** Of what it consists: equal keys are equal sets. */
  readonly key: string;
  /** Turns of the longest conversation. */
  readonly turns: number;
  readonly conversations: readonly TrueConversation[];
}

export interface ScenesOptions {
  readonly scenes: number;
  readonly turns: number;
  readonly frames: number;
  readonly seed: number;
}

/** Generated scenes. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function scenesSet({ scenes, turns, frames, seed }: ScenesOptions): DataSet {
  if (!Number.isInteger(scenes) || scenes < 1) {
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected an integer of at least 1 for scenes, received ${scenes}.`,
    );
  }
  const conversations = Array.from({ length: scenes }, (_, index) => {
    const scene = sceneConversation({ seed, index, frames, turns });
    return { place: `scene ${index} of seed ${seed}`, turns: scene.turns, images: () => scene.render() };
  });
  return { key: `scenes seed=${seed} scenes=${scenes} turns=${turns} frames=${frames}`, turns, conversations };
}

/**
 * Reads JSON lines `{"images": [paths], "turns": [{"question", "answer", "kind"}]}`; paths are relative to the file, `kind` may be
 * left out.
 * @throws SparseVilaError `ERR_DATA_SET`, naming the line
 */
export function readDataSet(file: string): DataSet {
  const codes = { missing: 'ERR_DATA_SET', unreadable: 'ERR_DATA_SET' } as const;
  const text = readTextFile(file, { what: 'JSON lines of conversations', limit: 256 * 2 ** 20, ...codes });
  const conversations = text
    .split('\n')
    .map((line, i) => ({ line: line.trim(), place: `${file}:${i + 1}` }))
    .filter(({ line }) => line !== '')
    .map(({ line, place }) => parseLine(line, place, dirname(file)));
  if (conversations.length === 0) {
    throw new SparseVilaError('ERR_DATA_SET', `${file}: expected at least one conversation, received an empty file.`);
  }
  const key = `file sha256=${createHash('sha256').update(text).digest('hex')}`;
  return { key, turns: conversations.reduce((most, { turns }) => Math.max(most, turns.length), 0), conversations };
}

function parseLine(line: string, place: string, folder: string): TrueConversation {
  const wrong = (expected: string, received: unknown): SparseVilaError =>
    new SparseVilaError('ERR_DATA_SET', `${place}: expected ${expected}, received ${show(received)}.`);
  let json: unknown;
  try {
    json = JSON.parse(line.replace(/^\uFEFF/, ''));
  } catch (cause) {
    throw new SparseVilaError('ERR_DATA_SET', `${place}: expected a JSON object, but ${messageOf(cause)}.`, { cause });
  }
  const { images, turns } = checkedObject(json, 'a conversation', ['images', 'turns'], wrong);
  if (!Array.isArray(images) || images.length === 0 || !images.every((path) => typeof path === 'string'))
    throw wrong('"images": [paths] of at least one picture', images);
  const paths = images.map((path: string) => resolve(folder, path));
  const lost = paths.find((path) => !existsSync(path));
  if (lost !== undefined)
    throw wrong(`the picture ${lost} to be there (paths are relative to the file)`, 'no such file');
  if (!Array.isArray(turns) || turns.length === 0)
    throw wrong('"turns": [{"question", "answer", "kind"}] of at least one turn', turns);
  return { place, turns: turns.map((turn, i) => parseTurn(turn, i, wrong)), images: () => paths };
}

type Wrong = (expected: string, received: unknown) => SparseVilaError;

function parseTurn(json: unknown, i: number, wrong: Wrong): TrueTurn {
  const {
    question,
    answer,
    kind = 'other',
  } = checkedObject(json, `turn ${i + 1}`, ['question', 'answer', 'kind'], wrong);
  for (const [name, value] of Object.entries({ question, answer, kind }))
    if (typeof value !== 'string' || value.trim() === '')
      throw wrong(`"${name}" of turn ${i + 1} to be a text of at least one character`, value);
  return { question: String(question), answer: String(answer), kind: String(kind) };
}

function checkedObject(json: unknown, what: string, keys: readonly string[], wrong: Wrong): Record<string, unknown> {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw wrong(`${what} to be a JSON object`, json);
  const stray = Object.keys(json).find((key) => !keys.includes(key));
  if (stray !== undefined)
    throw wrong(`${what} to have only ${keys.map((key) => `"${key}"`).join(', ')}`, `"${stray}"`);
  return json as Record<string, unknown>;
}

function show(value: unknown): string {
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? 'nothing');
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
