// The options that all conversation commands share, and their translation to options of the API. Checks everything that can be checked
// before a model is loaded. Knows nothing about conversations.

import { existsSync } from 'node:fs';
import { basename, isAbsolute, join, normalize, resolve } from 'node:path';
import type { ArgumentsCamelCase, InferredOptionTypes, Options } from 'yargs';
import { SparseVilaError } from '../errors';
import { checkFormat } from '../grammar/constraint';
import { readJson } from '../json';
import type { LoadOptions } from '../models/model';
import { PACKAGED_FILM_MODEL, PACKAGED_MODEL, PACKAGED_PICTURE, packageFolder } from '../runtime/paths';
import { type AskOptions, checkAskOptions, type SessionOptions, samplingOf } from '../session/options';
import type { SparsityMethod } from '../sparsity/method';
import { createSampler } from '../text/sampling';
import { groupsOf } from './arguments';
import { given, METHOD_OPTIONS } from './method_options';

const number = { type: 'number' } as const;
const text = { type: 'string' } as const;
/** One value for each time the option is given, so that a forgotten quotation mark is an error. */
const list = { ...text, array: true, nargs: 1 } as const;
const flag = { type: 'boolean' } as const;
const conversation = { group: 'Conversation:' } as const;
const sampling = { group: 'Sampling:' } as const;
const memory = { group: 'Memory:' } as const;

/** The options of `ask`, `chat`, `run` and `explain`. An option without a default here takes the API's or the checkpoint's default. */
export const CONVERSATION_OPTIONS = {
  model: {
    ...text,
    ...conversation,
    alias: 'm',
    describe: 'Checkpoint folder, or owner/name on the Hub',
    defaultDescription: 'the packaged assets/tiny-nvila; with --video, assets/tiny-nvila-film',
  },
  image: { ...text, ...conversation, array: true, alias: 'i', describe: 'Images of the first question' },
  video: {
    ...text,
    ...conversation,
    array: true,
    coerce: groupsOf,
    describe:
      'A video file (or the frames of a video, in order) of the first question; may be given again for another video',
  },
  fps: {
    ...number,
    ...conversation,
    describe: 'Frames per second: to take of a video file, or of the frames given',
    defaultDescription: 'as the model is set',
  },
  'max-frames': { ...number, ...conversation, describe: 'Maximum number of frames to take of a video file' },
  from: { ...number, ...conversation, describe: 'Second at which to begin in a video file' },
  to: { ...number, ...conversation, describe: 'Second at which to end in a video file' },
  'allow-urls': { ...flag, ...conversation, describe: 'Allow images and video files that are http(s) URLs' },
  'max-pixels': {
    ...number,
    ...conversation,
    describe: 'Maximum number of pixels of an image',
    defaultDescription: '64 million',
  },
  system: { ...text, ...conversation, describe: 'System message' },
  template: {
    ...text,
    ...conversation,
    describe: 'Chat template: a Jinja file, or vicuna_v1, llama_3, hermes-2, plain, qwen2, internvl2_5, mistral',
    defaultDescription: "the checkpoint's",
  },

  ...METHOD_OPTIONS,

  temperature: { ...number, ...sampling, describe: 'Sampling temperature; 0 always takes the most likely token' },
  'top-k': { ...number, ...sampling, describe: 'Sample from the k most likely tokens' },
  'top-p': { ...number, ...sampling, describe: 'Sample from the fewest tokens whose probabilities add up to this' },
  'repetition-penalty': { ...number, ...sampling, describe: 'Above 1, tokens that occurred before become less likely' },
  seed: { ...number, ...sampling, describe: 'Seed of the sampling; equal seeds give equal answers' },
  'max-tokens': { ...number, ...sampling, describe: 'Maximum number of tokens of an answer' },
  stop: { ...list, ...sampling, describe: 'Text before which the answer ends; may be given again' },

  history: {
    ...text,
    ...memory,
    choices: ['keep', 'forget'] as const,
    describe: "Keep each turn's text for later turns, or forget it and keep only its media",
    defaultDescription: 'keep',
  },
  kv: { ...text, ...memory, choices: ['bf16', 'f32'] as const, describe: 'Data type of keys and values in the cache' },
  weights: {
    ...text,
    ...memory,
    choices: ['f32', 'f16', 'bf16'] as const,
    describe: 'Data type of the weights',
    defaultDescription: 'as in the checkpoint',
  },
  precision: {
    ...text,
    ...memory,
    choices: ['exact', 'fast'] as const,
    describe: 'Rounding of activations in products with 4-bit weights',
    defaultDescription: 'exact',
  },
  'context-length': { ...number, ...memory, describe: 'Maximum number of tokens in the KV cache' },
  'kv-budget': {
    ...number,
    ...memory,
    describe: 'Bytes of the KV cache of a film that stay in memory, with --method rekv and --local-frames',
    defaultDescription: 'everything',
  },
} satisfies Record<string, Options>;

export const QUESTION_OPTION = {
  question: { ...list, ...conversation, alias: 'q', demandOption: true, describe: 'A question; may be given again' },
} satisfies Record<string, Options>;

export const OUTPUT_OPTIONS = {
  format: {
    ...text,
    group: 'Output:',
    describe: 'Hold each answer to JSON (json), or to the JSON schema in this file',
    defaultDescription: 'text',
  },
  json: { ...flag, default: false, group: 'Output:', describe: 'Print one JSON object at the end' },
  quiet: { ...flag, default: false, group: 'Output:', describe: 'Print only answers and errors' },
} satisfies Record<string, Options>;

/** The text below the options in the help of commands that take files. */
export const FILES_EPILOGUE =
  'A file name - is stdin; --question - asks each of its lines. A path under assets/ that does not exist in the working folder is looked up in the package.';

/** The types of the options, as yargs infers them and as a command receives them. */
export type ConversationFlags = InferredOptionTypes<typeof CONVERSATION_OPTIONS>;
export type ConversationArguments = ArgumentsCamelCase<ConversationFlags>;
/** The options that select and configure the model. */
export type ModelArguments = Pick<ConversationArguments, 'model' | 'weights' | 'precision'> &
  Partial<Pick<ConversationArguments, 'video' | 'template' | 'allowUrls' | 'maxPixels'>> & {
    /** Whether films are asked about; default: if `video` is given. */
    readonly isFilm?: boolean;
  };

/** `path`; if it does not exist and the package has a file of that name under assets/, the path of that file. */
export function packagedPath(path: string): string {
  const isAsset = !isAbsolute(path) && normalize(path).startsWith(join('assets', '/'));
  const packaged = join(packageFolder(), path);
  return isAsset && !existsSync(path) && existsSync(packaged) ? packaged : path;
}

/** The folder to load: by default the packaged model, or that for films. */
export function modelFolder({ model, video, isFilm = video !== undefined }: Partial<ModelArguments>): string {
  if (model !== undefined) return packagedPath(model);
  return isFilm ? PACKAGED_FILM_MODEL : PACKAGED_MODEL;
}

/** The option by which clients of a server and the jobs of a queue name the model. */
export const MODEL_NAME_OPTION = {
  'model-name': {
    ...text,
    describe: 'Name of the model for clients and in a queue',
    defaultDescription: "the folder's, or that on the Hub",
  },
} satisfies Record<string, Options>;

/** The name of the model: the given one, or the last part of its folder, whose path is nobody's business, or its name on the Hub. */
export function modelName(
  args: Pick<ConversationArguments, 'model'> & { readonly modelName?: string | undefined },
): string {
  const folder = modelFolder(args);
  return args.modelName ?? (existsSync(folder) ? basename(resolve(folder)) : folder);
}

/** The pictures of the first question. Without a model, pictures and videos, the packaged picture is used with the packaged model. */
export function imagePaths({
  model,
  image,
  video,
}: Pick<ConversationArguments, 'model' | 'image' | 'video'>): string[] {
  if (image !== undefined) return image.map(packagedPath);
  return model === undefined && video === undefined ? [PACKAGED_PICTURE] : [];
}

export function loadOptions({ weights, precision, template, allowUrls, maxPixels }: ModelArguments): LoadOptions {
  return given({ weights, precision, template, allowUrls, maxPixels });
}

/** Options for `session`. @throws SparseVilaError `ERR_OPTION_INVALID` for errors that can be found without a model */
export function sessionOptions(args: ConversationArguments, method: SparsityMethod): SessionOptions {
  const { kv, contextLength, kvBudget, system, history } = args;
  const options: SessionOptions = { method, ...given({ kv, contextLength, kvBudget, system, history }) };
  if (kvBudget !== undefined && method.retrieve?.localFrames === undefined)
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      'Expected --method rekv and --local-frames with --kv-budget, since only rows of frames that nothing attends can leave memory, received it without them.',
    );
  return options;
}

/** Options for `ask`. @throws SparseVilaError `ERR_OPTION_INVALID` for errors that can be found without a model */
export function askOptions(args: ConversationArguments): AskOptions {
  const { temperature, topK, topP, repetitionPenalty, seed, maxTokens, stop, verify } = args;
  const options: AskOptions = given({ temperature, topK, topP, repetitionPenalty, seed, maxTokens, stop, verify });
  checkAskOptions(options);
  // The temperature may come from the checkpoint, so only the ranges can be checked here.
  createSampler({ temperature: 1, ...samplingOf(options) });
  return options;
}

/** The form of the answers that `--format` names. @throws SparseVilaError for a file that is not read, or a schema that is not supported */
export function formatOf(format: string | undefined): Pick<AskOptions, 'format'> {
  if (format === undefined) return {};
  if (format === 'json') return { format: checkFormat({ type: 'json' }) };
  return { format: checkFormat({ type: 'schema', schema: readJson(packagedPath(format)) }) };
}
