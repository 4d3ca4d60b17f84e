// The options that `evaluate` and `tune` share, and the objects that they describe.

import { createHash } from 'node:crypto';
import { closeSync, fstatSync } from 'node:fs';
import { join } from 'node:path';
import type { ArgumentsCamelCase, InferredOptionTypes, Options } from 'yargs';
import { messageOf, received, SparseVilaError } from '../errors';
import { type DataSet, readDataSet, scenesSet } from '../evaluate/data_set';
import { SCORE_NAMES } from '../evaluate/scores';
import { filesBelow, isFolder, openRegular, readFileBounded, shownPath } from '../files';
import { checkImage } from '../image/source';
import { COUNT } from '../options';
import { CONVERSATION_OPTIONS, modelFolder, packagedPath } from './options';

const number = { type: 'number' } as const;
const text = { type: 'string' } as const;
const data = { group: 'Questions:' } as const;

export const EVALUATE_OPTIONS = {
  model: {
    ...CONVERSATION_OPTIONS.model,
    group: 'Model:',
    defaultDescription: 'the packaged assets/tiny-nvila; of films, assets/tiny-nvila-film',
  },
  weights: { ...CONVERSATION_OPTIONS.weights, group: 'Model:' },
  precision: { ...CONVERSATION_OPTIONS.precision, group: 'Model:' },
  template: { ...CONVERSATION_OPTIONS.template, group: 'Model:' },
  data: {
    ...text,
    ...data,
    describe: 'JSON lines of {"images": [paths], "turns": [{"question", "answer" or "answers", "kind"}]}',
    defaultDescription: 'generated scenes, which the packaged model was made for',
  },
  scenes: {
    ...number,
    ...data,
    describe: 'Number of generated scenes, each of which is a conversation',
    defaultDescription: '100',
  },
  turns: { ...number, ...data, describe: 'Number of questions about each scene', defaultDescription: '6' },
  frames: {
    ...text,
    ...data,
    describe:
      'Comma-separated numbers of frames: more than 1 makes films, of which the packaged film model knows up to 48 frames',
    defaultDescription: '1',
  },
  things: {
    ...text,
    ...data,
    describe: "FEWEST-MOST things in a film's frame",
    defaultDescription: '1-5',
  },
  score: {
    ...text,
    ...data,
    choices: SCORE_NAMES,
    default: 'exact' as const,
    describe:
      'Score of an answer, from 0 to 1: exact match, normalized (case, punctuation, articles), contains, VQA, ANLS',
  },
  seed: { ...number, ...data, default: 1, describe: 'Seed of the scenes and of random methods' },
  'max-tokens': { ...number, ...data, default: 64, describe: 'Maximum number of tokens of an answer' },
} satisfies Record<string, Options>;

export type EvaluateFlags = InferredOptionTypes<typeof EVALUATE_OPTIONS>;
export type EvaluateArguments = ArgumentsCamelCase<EvaluateFlags>;

/** Bytes of the image cache: all methods are asked about the same pictures. */
export const IMAGE_CACHE = 512e6;

/** The set of questions: the file, or scenes. @throws SparseVilaError `ERR_DATA_SET`, `ERR_OPTION_INVALID` */
export async function dataSetOf(args: EvaluateArguments): Promise<DataSet> {
  const { scenes, turns, frames, things, seed } = args;
  if (args.data === undefined) {
    if (things !== undefined && !asksFilms(args))
      throw new SparseVilaError(
        'ERR_OPTION_INVALID',
        'Expected --things with films, whose --frames are more than 1, received it without them.',
      );
    const drawn = { frames: framesOf(args), ...(things !== undefined && { things: thingsOf(things) }) };
    return scenesSet({ scenes: scenes ?? 100, turns: turns ?? 6, ...drawn, seed });
  }
  const stray = Object.entries({ scenes, turns, frames, things }).find(([, value]) => value !== undefined);
  if (stray === undefined) {
    const data = readDataSet(packagedPath(args.data));
    await checkPictures(data);
    return data;
  }
  throw new SparseVilaError(
    'ERR_OPTION_INVALID',
    `Expected no --${stray[0]} with --data, whose file has the questions. Omit one of them.`,
  );
}

/** The numbers of frames of scenes. @throws SparseVilaError `ERR_OPTION_INVALID` */
function framesOf({ frames = '1' }: Pick<EvaluateArguments, 'frames'>): number[] {
  return frames.split(',').map((text) => {
    if (text.trim() !== '' && COUNT.accepts(Number(text))) return Number(text);
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected comma-separated integers of at least 1 for --frames, received ${received(frames)}.`,
    );
  });
}

/** Whether the scenes are films. */
export function asksFilms(args: Pick<EvaluateArguments, 'frames' | 'data'>): boolean {
  return args.data === undefined && framesOf(args).some((frames) => frames > 1);
}

/** @throws SparseVilaError `ERR_OPTION_INVALID` */
function thingsOf(text: string): [number, number] {
  const [, fewest, most] = /^(\d+)-(\d+)$/.exec(text) ?? [];
  if (fewest !== undefined && most !== undefined) return [Number(fewest), Number(most)];
  throw new SparseVilaError('ERR_OPTION_INVALID', `Expected FEWEST-MOST, such as 1-5, for --things, received ${text}.`);
}

/** Checks that all pictures exist and start like pictures, before the model is loaded. @throws SparseVilaError `ERR_DATA_SET` */
async function checkPictures({ conversations }: DataSet): Promise<void> {
  for (const { place, images } of conversations) {
    try {
      for (const image of images()) await checkImage(image);
    } catch (cause) {
      throw new SparseVilaError('ERR_DATA_SET', `${place}: ${messageOf(cause)}`, { cause });
    }
  }
}

/**
 * Identifies a checkpoint by the names, sizes and times of its weight files, and by its configs.
 * @throws SparseVilaError `ERR_MODEL_MISSING`; `ERR_FILE_…` for a file that cannot be read
 */
export function modelKey(args: EvaluateArguments): string {
  const folder = modelFolder({ ...args, isFilm: asksFilms(args) });
  if (!isFolder(folder)) {
    const message = `Expected a checkpoint folder at ${shownPath(folder)}, but there is none. Check the path.`;
    throw new SparseVilaError('ERR_MODEL_MISSING', message);
  }
  const hash = createHash('sha256').update(JSON.stringify([args.weights, args.precision, args.template]));
  for (const name of filesBelow(folder).filter((path) => /(\.safetensors|config\.json)$/.test(path))) {
    const file = join(folder, name);
    if (/config\.json$/.test(name)) {
      hash.update(name).update(readFileBounded(file, { what: 'a JSON file', limit: 64 * 2 ** 20 }));
      continue;
    }
    const { fd } = openRegular(file, { what: 'a safetensors file' });
    const { size, mtimeMs } = fstatSync(fd);
    closeSync(fd);
    hash.update(JSON.stringify([name, size, mtimeMs]));
  }
  return hash.digest('hex').slice(0, 16);
}
