// Sets of questions: conversations about pictures with true answers, from packaged scenes or a user's file. Knows no model.

import { createHash } from 'node:crypto';
import { closeSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { messageOf, received, SparseVilaError } from '../errors';
import { openRegular } from '../files';
import type { ImageInput } from '../image/decode';
import { type JsonLine, readJsonLines } from '../json';
import { ANYTHING, type Checks, COUNT, checkOptions, checkValue, integer, NAME, SEED } from '../options';
import { sceneConversation } from '../scenes/conversation';
import { sceneFilm } from '../scenes/film';

export interface TrueTurn {
  readonly question: string;
  readonly answer: string;
  /** All accepted answers, `answer` first, if there are several: other spellings, or answers of several annotators. */
  readonly answers?: readonly string[];
  /** The kind of the question: accuracy is reported for each kind. */
  readonly kind: string;
  /** The number of the only frame of a film that shows the answer, from 0. */
  readonly frame?: number;
}

export interface TrueConversation {
  /** Its origin, for errors. */
  readonly place: string;
  readonly turns: readonly TrueTurn[];
  /** The number of frames, if the pictures are those of one film. */
  readonly frames?: number;
  /** Paths, or pixels that are drawn at each call. */
  images(): readonly ImageInput[];
}

export interface DataSet {
  /** Identifies the content: equal keys mean equal sets. */
  readonly key: string;
  /** Number of turns of the longest conversation. */
  readonly turns: number;
  readonly conversations: readonly TrueConversation[];
}

export interface ScenesOptions {
  /** Number of scenes; of films, for each length. */
  readonly scenes: number;
  readonly turns: number;
  /** Numbers of frames: scenes with more than one are films. */
  readonly frames: number | readonly number[];
  /** The fewest and the most things of a film's frame; default 1 to 5. */
  readonly things?: readonly [fewest: number, most: number];
  readonly seed: number;
}

/** All scenes are drawn before the first question is asked. */
const MOST_SCENES = 100_000;
const MOST_BYTES = 256e6;

const SCENES: Checks<ScenesOptions> = {
  scenes: { ...integer(1, MOST_SCENES), required: true },
  turns: { ...COUNT, required: true },
  frames: {
    required: true,
    expected: 'numbers of frames, each at least 1,',
    accepts: (value) => [value].flat().length > 0 && [value].flat().every((one) => COUNT.accepts(one)),
  },
  things: ANYTHING,
  seed: { ...SEED, required: true },
};

/** Generated scenes: pictures, or films, length after length. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function scenesSet(options: ScenesOptions): DataSet {
  const { scenes, turns, frames, things, seed } = checkOptions('scenesSet', options, SCENES);
  const lengths = [frames].flat();
  const conversations = lengths.flatMap((length) =>
    Array.from({ length: scenes }, (_, index) => {
      const place = `scene ${index} of seed ${seed}`;
      const common = { seed, index, frames: length, turns };
      const scene = length > 1 ? sceneFilm({ ...common, ...(things && { things }) }) : sceneConversation(common);
      const film = length > 1 ? { place: `${place}, ${length} frames`, frames: length } : { place };
      return { ...film, turns: scene.turns, images: () => scene.render() };
    }),
  );
  const drawn = `frames=${lengths.join(',')}${things === undefined ? '' : ` things=${things.join('-')}`}`;
  return { key: `scenes seed=${seed} scenes=${scenes} turns=${turns} ${drawn}`, turns, conversations };
}

/**
 * Reads JSON lines `{"images": [paths], "turns": [{"question", "answer", "kind"}]}`. Paths are relative to the file, `kind` is optional, and
 * `"answers": [texts]` replaces `answer` if several are accepted.
 * @throws SparseVilaError `ERR_DATA_SET`, naming the line
 */
export function readDataSet(file: string): DataSet {
  checkValue('readDataSet', 'file', file, NAME);
  const set = { what: 'JSON lines of conversations', code: 'ERR_DATA_SET', limit: MOST_BYTES } as const;
  const { text, values: conversations } = readJsonLines(file, set, (line) => parseLine(line, dirname(file)));
  const key = `file sha256=${createHash('sha256').update(text).digest('hex')}`;
  return { key, turns: conversations.reduce((most, { turns }) => Math.max(most, turns.length), 0), conversations };
}

function parseLine({ json, place, ...line }: JsonLine, folder: string): TrueConversation {
  const wrong: Wrong = (expected, received) => line.wrong(expected, show(received));
  const { images, turns } = checkedObject(json, 'a conversation', ['images', 'turns'], wrong);
  if (!Array.isArray(images) || images.length === 0 || !images.every((path) => typeof path === 'string'))
    throw wrong('"images": [paths] of at least one picture', images);
  const paths = images.map((path: string) => resolve(folder, path));
  for (const path of paths) requirePicture(path, place);
  if (!Array.isArray(turns) || turns.length === 0)
    throw wrong('"turns": [{"question", "answer", "kind"}] of at least one turn', turns);
  return { place, turns: turns.map((turn, i) => parseTurn(turn, i, wrong)), images: () => paths };
}

/** Checks that a picture is a file that can be opened, so that a wrong path is reported before any conversation. */
function requirePicture(path: string, place: string): void {
  try {
    closeSync(openRegular(path, { what: 'a picture (paths are relative to the file)' }).fd);
  } catch (cause) {
    throw new SparseVilaError('ERR_DATA_SET', `${place}: ${messageOf(cause)}`, { cause });
  }
}

type Wrong = (expected: string, received: unknown) => SparseVilaError;

function parseTurn(json: unknown, i: number, wrong: Wrong): TrueTurn {
  const keys = ['question', 'answer', 'answers', 'kind'];
  const { question, answer, answers, kind = 'other' } = checkedObject(json, `turn ${i + 1}`, keys, wrong);
  const text = (name: string, value: unknown): string => {
    if (typeof value === 'string' && value.trim() !== '') return value;
    throw wrong(`"${name}" of turn ${i + 1} to be a text of at least one character`, value);
  };
  const shared = { question: text('question', question), kind: text('kind', kind) };
  if (answers === undefined) return { ...shared, answer: text('answer', answer) };
  if (answer !== undefined || !Array.isArray(answers) || answers.length === 0)
    throw wrong(`either "answer" or "answers": [texts] of at least one text in turn ${i + 1}`, answers);
  const accepted = answers.map((one) => text('answers', one));
  return { ...shared, answer: accepted[0] ?? '', answers: accepted };
}

function checkedObject(json: unknown, what: string, keys: readonly string[], wrong: Wrong): Record<string, unknown> {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw wrong(`${what} to be a JSON object`, json);
  const stray = Object.keys(json).find((key) => !keys.includes(key));
  if (stray !== undefined) throw wrong(`${what} to have only ${keys.map((key) => `"${key}"`).join(', ')}`, stray);
  return json as Record<string, unknown>;
}

/** Cuts long values: their beginning is enough to find them in the line. */
function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  return typeof value === 'object' ? (JSON.stringify(value) ?? '').slice(0, 80) : received(value);
}
