// The options of sparsity methods that all conversation commands share, and the method that they make.

import type { ArgumentsCamelCase, InferredOptionTypes, Options } from 'yargs';
import { SparseVilaError } from '../errors';
import type { SparsityMethod } from '../sparsity/method';
import { METHODS, type MethodEntry, type MethodOption, type MethodRatios, takesOption } from '../sparsity/methods';
import { refreshed } from '../sparsity/refreshed';
import { SPARSE_VILA_PRESETS, type SparseVilaOptions, sparseVila } from '../sparsity/sparse_vila';
import { SCHEDULE_OPTIONS, withSchedule } from './schedule_options';

const { image: PRESET } = SPARSE_VILA_PRESETS;
const number = { type: 'number' } as const;
const text = { type: 'string' } as const;
const sparsity = { group: 'Sparsity:' } as const;

const namesOf = (entries: readonly MethodEntry[]): string => entries.map(({ name }) => name).join(', ');
const onlyOf = (option: MethodOption): string =>
  `only of ${namesOf(METHODS.filter((entry) => takesOption(entry, option)))}`;
const notOf = (option: MethodOption): string =>
  `not of ${namesOf(METHODS.filter((entry) => !takesOption(entry, option)))}`;

/** An option without a default here takes the method's default. */
export const METHOD_OPTIONS = {
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
  'local-frames': {
    ...number,
    ...sparsity,
    describe: `Last frames that each frame of a film attends while it is read; ${onlyOf('localFrames')}`,
    defaultDescription: 'all frames before it',
  },
  ...SCHEDULE_OPTIONS,
  refresh: {
    ...number,
    ...sparsity,
    describe: 'Number of its tokens after which what an answer attends is selected again',
    defaultDescription: 'never',
  },
  'refresh-rejected': {
    ...number,
    ...sparsity,
    describe: 'With --verify, number of rejected drafts after which what drafts attend is selected again',
    defaultDescription: 'never',
  },
  verify: {
    ...text,
    ...sparsity,
    choices: ['dense'] as const,
    describe:
      'Draft on the retrieved visual tokens and verify with all kept ones: the answer is that of dense decoding',
  },
} satisfies Record<string, Options>;

export type MethodArguments = ArgumentsCamelCase<InferredOptionTypes<typeof METHOD_OPTIONS>>;

/**
 * The sparsity method, and the ratios and positions it was made with; a ratio that is not given is that of the `image` preset.
 * @throws SparseVilaError `ERR_OPTION_INVALID` for a value out of range, or an option that the method does not take
 */
export function methodOf(
  args: MethodArguments,
  { hasQuestion = false } = {},
): {
  method: SparsityMethod;
  entry: MethodEntry;
  ratios: MethodRatios;
  options: Pick<SparseVilaOptions, 'prefillSparsity' | 'decodeSparsity' | 'positions'>;
} {
  const { prefillSparsity, decodeSparsity, positions, salienceLayer, budget, localFrames } = args;
  const chosen = given({ prefillSparsity, decodeSparsity, positions, salienceLayer, budget, localFrames });
  const { localFrames: _, ...ours } = chosen;
  const entry = METHODS.find(({ name }) => name === args.method) as MethodEntry;
  const isOurs = entry.name === 'sparsevila';
  const takes = (option: MethodOption): boolean => takesOption(entry, option);
  const refused = (Object.keys(chosen) as MethodOption[]).find((option) => !takes(option));
  if (refused !== undefined) {
    const option = refused.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    const other = refused === 'localFrames' ? 'rekv' : 'sparsevila';
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected no --${option} with --method ${entry.name}, which does not take it. Omit it, or use --method ${other}.`,
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
  const ratios = { ...PRESET, ...options, ...given({ localFrames }) };
  const created = isOurs ? sparseVila(ours) : entry.create(ratios);
  const { refresh: every, refreshRejected: rejected } = args;
  const refresh = given({ every, rejected });
  const renewed = Object.keys(refresh).length === 0 ? created : refreshed(created, refresh);
  return { method: withSchedule(renewed, args), entry, ratios, options };
}

type Given<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** The options that are not undefined. */
export function given<T extends object>(options: T): Given<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Given<T>;
}
