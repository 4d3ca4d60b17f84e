// The options that the commands with a conversation share, as one record, and the framework's own options that they stand for.
// Checks what can be checked before a model is loaded. Knows nothing of conversations.

import { existsSync } from 'node:fs';
import { isAbsolute, join, normalize } from 'node:path';
import type { ArgumentsCamelCase, InferredOptionTypes, Options } from 'yargs';
import { SparseVilaError } from '../errors';
import type { LoadOptions } from '../models/model';
import { checkValue, integer } from '../options';
import { PACKAGED_MODEL, PACKAGED_PICTURE, packageFolder } from '../runtime/paths';
import { type AskOptions, checkAskOptions, type SessionOptions, samplingOf } from '../session/options';
import type { SparsityMethod } from '../sparsity/method';
import { METHODS, type MethodEntry } from '../sparsity/methods';
import { SPARSE_VILA_PRESETS, type SparseVilaOptions, sparseVila } from '../sparsity/sparse_vila';
import { createSampler } from '../text/sampling';

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

/** What `ask` and `chat` both take. Without a default here, the framework's or the checkpoint's counts. */
export const CONVERSATION_OPTIONS = {
  model: {
    ...text,
    ...conversation,
    alias: 'm',
    describe: 'Checkpoint folder',
    defaultDescription: 'the packaged assets/tiny-nvila',
  },
  image: { ...text, ...conversation, array: true, alias: 'i', describe: 'Images of the first question' },
  'allow-urls': { ...flag, ...conversation, describe: 'Fetch images that are http(s) URLs' },
  'max-pixels': {
    ...number,
    ...conversation,
    describe: 'Most pixels of an image',
    defaultDescription: '64 million',
  },
  system: { ...text, ...conversation, describe: 'System message' },
  template: {
    ...text,
    ...conversation,
    describe: 'Chat template: a Jinja file, or vicuna_v1, llama_3, hermes-2, plain, qwen2, mistral',
    defaultDescription: "the checkpoint's",
  },

  method: {
    ...text,
    ...sparsity,
    choices: METHODS.map(({ name }) => name),
    default: 'sparsevila',
    describe: 'How visual tokens are dropped; dense drops none',
  },
  'prefill-sparsity': {
    ...number,
    ...sparsity,
    describe: 'Share of visual tokens dropped during prefill',
    defaultDescription: String(PRESET.prefillSparsity),
  },
  'decode-sparsity': {
    ...number,
    ...sparsity,
    describe: 'Share of the kept ones that an answer does not attend',
    defaultDescription: String(PRESET.decodeSparsity),
  },
  positions: {
    ...text,
    ...sparsity,
    choices: ['original', 'compact'] as const,
    describe: 'Where kept tokens stand: as in the whole image, or renumbered',
    defaultDescription: 'original',
  },
  'salience-layer': {
    ...number,
    ...sparsity,
    describe: 'Layer of the vision tower whose attention ranks the tokens',
    defaultDescription: '-1, the last',
  },
  budget: {
    ...text,
    ...sparsity,
    choices: ['plane', 'medium', 'global'] as const,
    describe: 'Count the prefill budget in each image, tile and frame, in each image or video, or over all of a turn',
    defaultDescription: 'plane',
  },

  temperature: { ...number, ...sampling, describe: '0 always takes the likeliest token' },
  'top-k': { ...number, ...sampling, describe: 'Draw from the k likeliest tokens' },
  'top-p': { ...number, ...sampling, describe: 'Draw from the fewest tokens with this probability together' },
  'repetition-penalty': { ...number, ...sampling, describe: 'Above 1, tokens already there become less likely' },
  seed: { ...number, ...sampling, describe: 'The same seed gives the same answer again' },
  'max-tokens': { ...number, ...sampling, describe: 'Most tokens of an answer' },
  stop: { ...list, ...sampling, describe: 'End the answer before this text; may be given again' },

  history: {
    ...text,
    ...memory,
    choices: ['keep', 'forget'] as const,
    describe: "Keep each turn's text, or forget it and keep its images",
    defaultDescription: 'keep',
  },
  kv: { ...text, ...memory, choices: ['bf16', 'f32'] as const, describe: 'Storage of keys and values' },
  weights: {
    ...text,
    ...memory,
    choices: ['f32', 'f16', 'bf16'] as const,
    describe: 'Storage of weights',
    defaultDescription: 'as in the checkpoint',
  },
  precision: {
    ...text,
    ...memory,
    choices: ['exact', 'fast'] as const,
    describe: 'Rounding of activations in products with 4-bit weights',
    defaultDescription: 'exact',
  },
  'context-length': { ...number, ...memory, describe: 'Rows that the KV cache may hold' },
} satisfies Record<string, Options>;

export const QUESTION_OPTION = {
  question: { ...list, ...conversation, alias: 'q', demandOption: true, describe: 'A question; may be given again' },
} satisfies Record<string, Options>;

export const OUTPUT_OPTIONS = {
  json: { ...flag, default: false, group: 'Output:', describe: 'Print one JSON object at the end' },
  quiet: { ...flag, default: false, group: 'Output:', describe: 'Print nothing but answers and errors' },
} satisfies Record<string, Options>;

/** What help says below the options of a command that takes files. */
export const FILES_EPILOGUE =
  'A file name - is stdin; --question - asks each of its lines. A path under assets/ that is not in the working folder is one of the package.';

/** As yargs takes them from the record, and as it hands them to a command. */
export type ConversationFlags = InferredOptionTypes<typeof CONVERSATION_OPTIONS>;
export type ConversationArguments = ArgumentsCamelCase<ConversationFlags>;
/** Those of them that say which model. */
export type ModelArguments = Pick<ConversationArguments, 'model' | 'weights' | 'precision'> &
  Partial<Pick<ConversationArguments, 'template' | 'allowUrls' | 'maxPixels'>>;

/** `path` as it is given; where nothing is there and the package has a file of that name under assets/, the package's. */
export function packagedPath(path: string): string {
  const isAsset = !isAbsolute(path) && normalize(path).startsWith(join('assets', '/'));
  const packaged = join(packageFolder(), path);
  return isAsset && !existsSync(path) && existsSync(packaged) ? packaged : path;
}

/** The folder to load: the packaged model where none is given. */
export function modelFolder({ model }: Pick<ConversationArguments, 'model'>): string {
  return model === undefined ? PACKAGED_MODEL : packagedPath(model);
}

/** The pictures of the first question. Where neither a model nor a picture is given, the packaged picture goes with the packaged model. */
export function imagePaths({ model, image }: Pick<ConversationArguments, 'model' | 'image'>): string[] {
  if (image !== undefined) return image.map(packagedPath);
  return model === undefined ? [PACKAGED_PICTURE] : [];
}

/**
 * The sparsity method and the ratios and positions it was made with; where a ratio is not given, the image preset's.
 * @throws SparseVilaError `ERR_OPTION_INVALID` for a value out of range, or an option that the method has no use for
 */
export function methodOf(args: ConversationArguments): {
  method: SparsityMethod;
  options: Pick<SparseVilaOptions, 'prefillSparsity' | 'decodeSparsity' | 'positions'>;
} {
  const { prefillSparsity, decodeSparsity, positions, salienceLayer, budget } = args;
  const chosen = given({ prefillSparsity, decodeSparsity, positions, salienceLayer, budget });
  const entry = METHODS.find(({ name }) => name === args.method) as MethodEntry;
  const isOurs = entry.name === 'sparsevila';
  const hasPlaces = entry.stage.includes('tower');
  const { uses } = entry;
  const taken = {
    prefillSparsity: uses.prefill,
    decodeSparsity: uses.decode,
    positions: hasPlaces,
    salienceLayer: isOurs,
    budget: isOurs,
  };
  const useless = Object.keys(chosen).find((name) => !taken[name as keyof typeof taken]);
  if (useless !== undefined) {
    const option = useless.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected no --${option} with --method ${entry.name}, which has no use for it. Leave it out, or use --method sparsevila.`,
    );
  }
  const options = given({
    prefillSparsity: uses.prefill ? (prefillSparsity ?? PRESET.prefillSparsity) : undefined,
    decodeSparsity: uses.decode ? (decodeSparsity ?? PRESET.decodeSparsity) : undefined,
    positions: hasPlaces ? ((positions ?? 'original') as 'original' | 'compact') : undefined,
  });
  return { method: isOurs ? sparseVila(chosen) : entry.create({ ...PRESET, ...options }), options };
}

export function loadOptions({ weights, precision, template, allowUrls, maxPixels }: ModelArguments): LoadOptions {
  return given({ weights, precision, template, allowUrls, maxPixels });
}

/** @throws SparseVilaError `ERR_OPTION_INVALID`, as far as that can be told without a model */
export function sessionOptions(args: ConversationArguments, method: SparsityMethod): SessionOptions {
  const { kv, contextLength, system, history } = args;
  const options: SessionOptions = {
    method,
    ...given({ kv, contextLength, system, history }),
  };
  if (contextLength !== undefined) checkValue('session', 'contextLength', contextLength, integer(2));
  return options;
}

/** @throws SparseVilaError `ERR_OPTION_INVALID`, as far as that can be told without a model */
export function askOptions(args: ConversationArguments): AskOptions {
  const { temperature, topK, topP, repetitionPenalty, seed, maxTokens, stop } = args;
  const options: AskOptions = given({ temperature, topK, topP, repetitionPenalty, seed, maxTokens, stop });
  checkAskOptions(options);
  // Without a temperature here the checkpoint's counts: only the ranges are known.
  createSampler({ temperature: 1, ...samplingOf(options) });
  return options;
}

type Given<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** Only what was given. */
function given<T extends object>(options: T): Given<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Given<T>;
}
