// `sparsevila evaluate`: compares methods on questions with known answers. Prints a table or JSON, and writes two plots. Progress goes to
// stderr; Ctrl-C stops, and the same command continues.

import { createHash } from 'node:crypto';
import { basename, join, relative } from 'node:path';
import type { ArgumentsCamelCase, CommandModule, InferredOptionTypes, Options } from 'yargs';
import { SparseVilaError } from '../errors';
import { PROTOCOLS, type Protocol } from '../evaluate/converse';
import type { DataSet } from '../evaluate/data_set';
import { equalTimeRatios } from '../evaluate/equal_time';
import { evaluate } from '../evaluate/evaluate';
import { writePlots } from '../evaluate/plot';
import {
  methodEntry,
  POSITION_MODES,
  type Positions,
  parseMethods,
  parseRatios,
  type Ratios,
  ratiosForShare,
  type Setting,
  settingsOf,
  withRefresh,
} from '../evaluate/settings';
import { formatTable } from '../evaluate/table';
import type { Model } from '../index';
import { whyNoReuse } from '../models/tower_reuse';
import { replaceFile } from '../runtime/atomic';
import { progressReporter } from '../runtime/progress';
import { openResults, type ResultsFile } from '../runtime/results_file';
import { type MethodEntry, takesOption } from '../sparsity/methods';
import { asksFilms, dataSetOf, EVALUATE_OPTIONS, type EvaluateFlags, IMAGE_CACHE, modelKey } from './evaluate_options';
import { interruptible } from './interrupt';
import { METHOD_OPTIONS } from './method_options';
import { folderOf, openModel } from './open';
import { modelFolder } from './options';
import { columns, print, printJson } from './style';

const text = { type: 'string', group: 'Methods:' } as const;

const OPTIONS = {
  ...EVALUATE_OPTIONS,
  methods: { ...text, default: 'all', describe: 'Comma-separated names, or all. Dense always runs' },
  ratios: { ...text, describe: 'Comma-separated PREFILL/DECODE sparsities as shares, such as 0.6/0.75' },
  equal: {
    ...text,
    describe:
      "active=SHARES: ratios at which these shares are active at decode. time: as long as SparseVILA's 0.6/0.75",
    defaultDescription: 'without --ratios active=0.1, of films 0.025',
  },
  positions: {
    ...text,
    choices: [...POSITION_MODES, 'both'] as const,
    default: 'original' as const,
    describe: 'Positions of kept tokens',
  },
  verify: { ...METHOD_OPTIONS.verify, group: text.group },
  'local-frames': { ...METHOD_OPTIONS['local-frames'], group: text.group },
  refresh: {
    type: 'number',
    group: 'Methods:',
    describe: 'Also rows in which what an answer attends is selected again after so many of its tokens',
    defaultDescription: 'none',
  },
  protocol: {
    ...text,
    choices: [...PROTOCOLS, 'both'] as const,
    default: 'forget' as const,
    describe: 'forget: no turn sees the text of earlier turns; chat: all of them do',
  },
  out: {
    ...text,
    group: 'Output:',
    describe: 'Folder for results and plots',
    defaultDescription: 'evaluations/ and a name made of all options',
  },
  'missed-by': {
    type: 'number',
    group: 'Questions:',
    describe:
      'Score only questions that are answered wrongly when the picture is resized to save this share of its tokens',
    defaultDescription: 'all questions',
  },
  json: {
    type: 'boolean',
    default: false,
    group: 'Output:',
    describe: 'Print the rows as one JSON line, and nothing else',
  },
} satisfies Record<string, Options>;

/** The share of visual tokens active at decode for SparseVILA's presets of images and of long videos. */
const [PICTURE_SHARE, FILM_SHARE] = [0.1, 0.025];

type Flags = EvaluateFlags & InferredOptionTypes<typeof OPTIONS>;
type Arguments = ArgumentsCamelCase<Flags>;

const EPILOGUE =
  'Every method that prunes before the decoder, inside it, or retrieves per turn answers the same ' +
  'questions. With --equal active=0.1, methods with one ' +
  'stage leave a tenth of the visual tokens there (0.9/0 or 0/0.9), methods with two keep 0.4 at prefill ' +
  'and a quarter of these at decode (0.6/0.75); in general share^0.4 at prefill. --equal time measures a ' +
  "few conversations at seven ratios, fits each method's time as a line, and takes the ratio where it " +
  "meets SparseVILA's. A run that was stopped is continued by the same command; a finished one is only " +
  'shown again.';

export const evaluateCommand: CommandModule<object, Flags> = {
  command: 'evaluate',
  describe: 'Compare methods and ratios on questions with known answers',
  builder: (yargs) =>
    yargs
      .options(OPTIONS)
      .epilogue(EPILOGUE)
      .example(
        '$0 evaluate --scenes 300 --turns 6 --methods all --seed 1',
        'All methods with a tenth of the tokens active',
      )
      .example(
        '$0 evaluate --methods sparsevila --ratios 0.6/0.75,0.75/0.9,0.9/0 --positions both',
        'Ratios and positions of one method',
      )
      .example('$0 evaluate --methods all --equal active=0.05,0.1,0.2,0.4', 'Methods as curves')
      .example(
        '$0 evaluate --data assets/demo/questions.jsonl --score anls --equal time',
        'Questions of your own, another score, equal speed',
      )
      .example(
        '$0 evaluate --frames 8,16,32 --things 1-3 --methods sparsevila,hiprune --scenes 20',
        'Films of three lengths, and plots by length and place',
      )
      .example(
        '$0 evaluate --scenes 20 --methods sparsevila,random --missed-by 0.9',
        'Only questions that a smaller picture does not answer (VTC-Bench)',
      )
      .example(
        '$0 evaluate --scenes 20 --methods sparsevila --verify dense',
        'Answers of dense decoding, drafted sparsely',
      )
      .example('$0 evaluate --scenes 20 --methods sparsevila --json', 'The rows as JSON, shares from 0 to 1'),
  handler: async (args) => {
    await interruptible((signal) => run(args, signal), 'The same command continues from here.\n');
  },
};

async function run(given: Arguments, signal: AbortSignal): Promise<void> {
  const args = given.model === undefined ? given : { ...given, model: await folderOf(modelFolder(given), signal) };
  const data = await dataSetOf(args);
  const named = parseMethods(args.methods);
  const request = requestOf(args, asksFilms(args) ? FILM_SHARE : PICTURE_SHARE);
  const configuration = configurationOf(args, data);
  const folder =
    args.out ??
    join('evaluations', createHash('sha256').update(JSON.stringify(configuration)).digest('hex').slice(0, 12));
  const results = openResults(join(folder, 'results.jsonl'), configuration);
  const reporter = progressReporter();
  try {
    using model = await openModel({ ...args, isFilm: asksFilms(args) }, signal, { imageCache: IMAGE_CACHE });
    const methods = args.methods === 'all' ? named.filter((entry) => runsOn(entry, model)) : named;
    const { seed, maxTokens, score, verify } = args;
    const protocols: readonly Protocol[] = args.protocol === 'both' ? PROTOCOLS : [args.protocol];
    const common = { model, data, seed, maxTokens, signal, onProgress: reporter, ...(verify && { verify }) };
    const points = await pointsOf(methods, request, results, { ...common, protocol: protocols[0] ?? 'forget' });
    const own = settingsOf(methods, points, request.positions).map((setting) => withFrames(setting, args));
    const settings = withRefresh(own, args.refresh);
    const missedBy = missedOf(args);
    const rows = await evaluate({ ...common, settings, protocols, results, score, ...(missedBy && { missedBy }) });
    reporter.stop();
    const result = { seed, score, scenes: data.conversations.length, turns: data.turns, rows };
    replaceFile(join(folder, 'rows.json'), `${JSON.stringify(result, null, 2)}\n`);
    const plots = await writePlots(folder, rows, subtitleOf(args, data));
    if (args.json) printJson(result);
    else print(`${formatTable(rows, columns())}\n${plots.map((file) => relative('', file)).join('\n')}\n`);
  } finally {
    reporter.stop();
    results.close();
  }
}

/** The setting whose wrong answers are the questions that count. @throws SparseVilaError `ERR_OPTION_INVALID` */
function missedOf({ missedBy }: Arguments): Setting | undefined {
  if (missedBy === undefined) return undefined;
  return { method: 'downsample', prefillSparsity: missedBy, decodeSparsity: 0, positions: 'original' };
}

/** Whether a method that reuses frames inside the tower runs on the model's. */
function runsOn({ create }: MethodEntry, { plan }: Model): boolean {
  const { reuse } = create({ prefillSparsity: 0, decodeSparsity: 0 });
  return reuse === undefined || whyNoReuse(plan.tower) === undefined;
}

/** The setting with the option of the methods that retrieve frames. */
function withFrames(setting: Setting, { localFrames }: Arguments): Setting {
  const isTaken = localFrames !== undefined && takesOption(methodEntry(setting.method), 'localFrames');
  return isTaken ? { ...setting, localFrames } : setting;
}

interface Request {
  readonly ratios: readonly Ratios[];
  readonly shares: readonly number[];
  readonly time: boolean;
  readonly positions: readonly Positions[];
}

/** Parses --equal. @throws SparseVilaError `ERR_OPTION_INVALID` */
function requestOf({ ratios, equal, positions }: Arguments, share: number): Request {
  const modes = positions === 'both' ? POSITION_MODES : [positions];
  const given = ratios === undefined ? [] : parseRatios(ratios);
  const wanted = equal ?? (ratios === undefined ? `active=${share}` : undefined);
  if (wanted === undefined) return { ratios: given, shares: [], time: false, positions: modes };
  if (wanted === 'time') return { ratios: given, shares: [], time: true, positions: modes };
  const [name, list = ''] = wanted.split('=');
  const shares = list.split(',').map((share) => (share.trim() === '' ? Number.NaN : Number(share)));
  if (name !== 'active' || !shares.every((share) => share >= 0.001 && share <= 1)) {
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected active=SHARES, each from 0.001 to 1, such as active=0.1, or time, for --equal, received ${wanted}.`,
    );
  }
  return { ratios: given, shares, time: false, positions: modes };
}

/** The ratios of each method. Those measured for equal time are stored, so that a continued run uses the same ones. */
async function pointsOf(
  methods: readonly MethodEntry[],
  { ratios, shares, time, positions }: Request,
  results: ResultsFile,
  options: Omit<Parameters<typeof equalTimeRatios>[1], 'positions'>,
): Promise<(entry: MethodEntry) => readonly Ratios[]> {
  let measured: Readonly<Record<string, Ratios>> = {};
  if (time) {
    const known = results.pieces.get('equal time') as typeof measured | undefined;
    const [mode = 'original'] = positions;
    measured = known ?? Object.fromEntries(await equalTimeRatios(methods, { ...options, positions: mode }));
    if (known === undefined) results.append('equal time', measured);
  }
  return (entry) => [
    ...ratios,
    ...shares.map((share) => ratiosForShare(entry, share)),
    ...(measured[entry.name] === undefined ? [] : [measured[entry.name] as Ratios]),
  ];
}

/** The inputs that the results depend on. */
function configurationOf(args: Arguments, { key }: DataSet): Record<string, unknown> {
  const { methods, ratios, equal, positions, protocol, seed, maxTokens, missedBy, verify, localFrames, refresh } = args;
  const sparsity = { methods, ratios, equal, positions, missedBy, verify, localFrames, refresh };
  return { model: modelKey(args), data: key, protocol, seed, maxTokens, ...sparsity };
}

/** The subtitles of the plots. */
function subtitleOf(args: Arguments, { conversations }: DataSet): string[] {
  const questions = conversations.reduce((sum, { turns }) => sum + turns.length, 0);
  const drawn = asksFilms(args) ? `generated films of ${args.frames} frames` : 'generated scenes';
  const set = args.data === undefined ? `${drawn}, seed ${args.seed}` : basename(args.data);
  const protocol = { forget: 'each turn forgets the ones before', chat: 'earlier turns stay', both: 'both protocols' };
  return [`${questions} questions in ${conversations.length} conversations`, `${set}; ${protocol[args.protocol]}`];
}
