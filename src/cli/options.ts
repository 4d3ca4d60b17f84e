// The options that `ask` and `chat` share, as one record, and what the framework's own options they stand for. Checks what
// can be checked before a model is loaded. Knows nothing of conversations.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { ArgumentsCamelCase, InferredOptionTypes, Options } from 'yargs';
import { SparseVilaError } from '../errors';
import type { LoadOptions } from '../models/model';
import { packageFolder } from '../runtime/paths';
import type { AskOptions, SessionOptions } from '../session/session';
import type { SparsityMethod } from '../sparsity/method';
import { METHODS, type MethodEntry } from '../sparsity/methods';
import { SPARSE_VILA_PRESETS, type SparseVilaOptions, sparseVila } from '../sparsity/sparse_vila';

const { image: PRESET } = SPARSE_VILA_PRESETS;
const number = { type: 'number', requiresArg: true } as const;
const text = { type: 'string', requiresArg: true } as const;
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
    describe: 'Checkpoint folder',
    ...(packagedModel() === undefined ? {} : { defaultDescription: 'the packaged assets/tiny-nvila' }),
  },
  image: { ...text, ...conversation, array: true, describe: 'Images of the first question' },
  system: { ...text, ...conversation, describe: 'System message' },

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
    choices: ['perImage', 'global'] as const,
    describe: 'Count the prefill budget in each image, or over all of a turn',
    defaultDescription: 'perImage',
  },

  temperature: { ...number, ...sampling, describe: '0 always takes the likeliest token' },
  'top-k': { ...number, ...sampling, describe: 'Draw from the k likeliest tokens' },
  'top-p': { ...number, ...sampling, describe: 'Draw from the fewest tokens with this probability together' },
  'repetition-penalty': { ...number, ...sampling, describe: 'Above 1, tokens already there become less likely' },
  seed: { ...number, ...sampling, describe: 'The same seed gives the same answer again' },
  'max-tokens': { ...number, ...sampling, describe: 'Most tokens of an answer' },
  stop: { ...list, ...sampling, describe: 'End the answer before this text; may be given again' },

  evict: { ...flag, ...memory, describe: "Forget each turn's text, keep its images" },
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
  question: { ...list, ...conversation, demandOption: true, describe: 'A question; may be given again' },
} satisfies Record<string, Options>;

/** As yargs takes them from the record, and as it hands them to a command. */
export type ConversationFlags = InferredOptionTypes<typeof CONVERSATION_OPTIONS>;
export type ConversationArguments = ArgumentsCamelCase<ConversationFlags>;
/** Those of them that say which model. */
export type ModelArguments = Pick<ConversationArguments, 'model' | 'weights' | 'precision'>;

/** For yargs' `check`: numbers are numbers, and an option that takes one value is given once. */
export function checkArguments(args: Readonly<Record<string, unknown>>): true {
  for (const [name, option] of Object.entries<Options>(CONVERSATION_OPTIONS)) {
    const value = args[name];
    if (option.array !== true && Array.isArray(value))
      throw new Error(`Expected --${name} once, received it more often.`);
    if (option.type === 'number' && Number.isNaN(value)) throw new Error(`Expected a number for --${name}.`);
  }
  return true;
}

/** The packaged model's folder, where this is a clone of the repository. */
export function packagedModel(): string | undefined {
  const folder = join(packageFolder(), 'assets', 'tiny-nvila');
  return existsSync(join(folder, 'config.json')) ? folder : undefined;
}

/** The folder to load. @throws SparseVilaError `ERR_OPTION_MISSING` when none is given and none is packaged */
export function modelFolder({ model }: Pick<ConversationArguments, 'model'>): string {
  const folder = model ?? packagedModel();
  if (folder !== undefined) return folder;
  throw new SparseVilaError('ERR_OPTION_MISSING', 'Expected --model with a checkpoint folder, received none.');
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

export function loadOptions({ weights, precision }: ModelArguments): LoadOptions {
  return given({ weights, precision });
}

export function sessionOptions(args: ConversationArguments, method: SparsityMethod): SessionOptions {
  const { kv, contextLength, system } = args;
  return { method, history: args.evict ? 'evict' : 'keep', ...given({ kv, contextLength, system }) };
}

export function askOptions(args: ConversationArguments): AskOptions {
  const { temperature, topK, topP, repetitionPenalty, seed, maxTokens, stop } = args;
  return given({ temperature, topK, topP, repetitionPenalty, seed, maxTokens, stop });
}

type Given<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** Only what was given. */
function given<T extends object>(options: T): Given<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Given<T>;
}
