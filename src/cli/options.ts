// The options that all conversation commands share, and their translation to options of the API. Checks everything that can be checked
// before a model is loaded. Knows nothing about conversations.

import { existsSync } from 'node:fs';
import { basename, isAbsolute, join, normalize, resolve } from 'node:path';
import type { ArgumentsCamelCase, InferredOptionTypes, Options } from 'yargs';
import { SparseVilaError } from '../errors';
import { checkFormat } from '../grammar/constraint';
import { readJson } from '../json';
import type { LoadOptions } from '../models/model';
import { checkValue, integer } from '../options';
import { PACKAGED_FILM_MODEL, PACKAGED_MODEL, PACKAGED_PICTURE, packageFolder } from '../runtime/paths';
import { type AskOptions, checkAskOptions, type SessionOptions, samplingOf } from '../session/options';
import type { SparsityMethod } from '../sparsity/method';
import { METHODS, type MethodEntry, type MethodOption, type MethodRatios, takesOption } from '../sparsity/methods';
import { SPARSE_VILA_PRESETS, type SparseVilaOptions, sparseVila } from '../sparsity/sparse_vila';
import { createSampler } from '../text/sampling';
import { groupsOf } from './arguments';
import { SCHEDULE_OPTIONS, withSchedule } from './schedule_options';

const { image: PRESET } = SPARSE_VILA_PRESETS;
const number = { type: 'number' } as const;
const text = { type: 'string' } as const;
/** One value for each time the option is given, so that a forgotten quotation mark is an error. */
const list = { ...text, array: true, nargs: 1 } as const;
const flag = { type: 'boolean' } as const;
const conversation = { group: 'Conversation:' } as const;
const sparsity = { group: 'Sparsity:' } as const;
const sampling = { group: 'Sampling:' } as const;
const memory = { group: 'Memory:' } as const;

const namesOf = (entries: readonly MethodEntry[]): string => entries.map(({ name }) => name).join(', ');
const onlyOf = (option: MethodOption): string =>
  `only of ${namesOf(METHODS.filter((entry) => takesOption(entry, option)))}`;
const notOf = (option: MethodOption): string =>
  `not of ${namesOf(METHODS.filter((entry) => !takesOption(entry, option)))}`;

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

  method: {
    ...text,
    ...sparsity,
    choices: METHODS.map(({ name }) => name),
    default: 'sparsevila',
    describe: 'Sparsity method; dense keeps and attends all visual tokens',
  },
  'prefill-sparsity': {
    ...number,
    ...sparsity,
    describe: `Share of visual tokens that are dropped before or during prefill; ${notOf('prefillSparsity')}`,
    defaultDescription: String(PRESET.prefillSparsity),
  },
  'decode-sparsity': {
    ...number,
    ...sparsity,
    describe: `Share of the kept visual tokens that an answer does not attend; ${notOf('decodeSparsity')}`,
    defaultDescription: String(PRESET.decodeSparsity),
  },
  positions: {
    ...text,
    ...sparsity,
    choices: ['original', 'compact'] as const,
    describe: `Positions of kept tokens: as in the whole image, or renumbered; ${onlyOf('positions')}`,
    defaultDescription: 'original',
  },
  'salience-layer': {
    ...number,
    ...sparsity,
    describe: `Layer of the vision tower whose attention ranks the tokens; ${onlyOf('salienceLayer')}`,
    defaultDescription: '-1, the last',
  },
  budget: {
    ...text,
    ...sparsity,
    choices: ['plane', 'medium', 'global'] as const,
    describe: `Over what the prefill budget is counted: each image, tile and frame; each image or video; or all media of a turn; ${onlyOf('budget')}`,
    defaultDescription: 'plane',
  },
  ...SCHEDULE_OPTIONS,
  verify: {
    ...text,
    ...sparsity,
    choices: ['dense'] as const,
    describe:
      'Draft on the retrieved visual tokens and verify with all kept ones: the answer is that of dense decoding',
  },

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

/**
 * The sparsity method, and the ratios and positions it was made with; a ratio that is not given is that of the `image` preset.
 * @throws SparseVilaError `ERR_OPTION_INVALID` for a value out of range, or an option that the method does not take
 */
export function methodOf(
  args: ConversationArguments,
  { hasQuestion = false } = {},
): {
  method: SparsityMethod;
  entry: MethodEntry;
  ratios: MethodRatios;
  options: Pick<SparseVilaOptions, 'prefillSparsity' | 'decodeSparsity' | 'positions'>;
} {
  const { prefillSparsity, decodeSparsity, positions, salienceLayer, budget } = args;
  const chosen = given({ prefillSparsity, decodeSparsity, positions, salienceLayer, budget });
  const entry = METHODS.find(({ name }) => name === args.method) as MethodEntry;
  const isOurs = entry.name === 'sparsevila';
  const takes = (option: MethodOption): boolean => takesOption(entry, option);
  const refused = (Object.keys(chosen) as MethodOption[]).find((option) => !takes(option));
  if (refused !== undefined) {
    const option = refused.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected no --${option} with --method ${entry.name}, which does not take it. Omit it, or use --method sparsevila.`,
    );
  }
  const options = given({
    prefillSparsity: takes('prefillSparsity') ? (prefillSparsity ?? PRESET.prefillSparsity) : undefined,
    decodeSparsity: takes('decodeSparsity') ? (decodeSparsity ?? PRESET.decodeSparsity) : undefined,
    positions: takes('positions') ? ((positions ?? 'original') as 'original' | 'compact') : undefined,
  });
  if (entry.frameScores && !hasQuestion)
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected another --method than ${entry.name}, which has to know the question before the media. Use it with ask or evaluate.`,
    );
  const ratios = { ...PRESET, ...options };
  const created = isOurs ? sparseVila(chosen) : entry.create(ratios);
  return { method: withSchedule(created, args), entry, ratios, options };
}

export function loadOptions({ weights, precision, template, allowUrls, maxPixels }: ModelArguments): LoadOptions {
  return given({ weights, precision, template, allowUrls, maxPixels });
}

/** Options for `session`. @throws SparseVilaError `ERR_OPTION_INVALID` for errors that can be found without a model */
export function sessionOptions(args: ConversationArguments, method: SparsityMethod): SessionOptions {
  const { kv, contextLength, system, history } = args;
  const options: SessionOptions = { method, ...given({ kv, contextLength, system, history }) };
  if (contextLength !== undefined) checkValue('session', 'contextLength', contextLength, integer(2));
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

type Given<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** The options that are not undefined. */
function given<T extends object>(options: T): Given<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Given<T>;
}
