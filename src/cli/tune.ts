// `sparsevila tune`: the most aggressive ratios that keep a given quality, as a configuration to paste.

import type { ArgumentsCamelCase, CommandModule, InferredOptionTypes, Options } from 'yargs';
import { SparseVilaError } from '../errors';
import { methodEntry, POSITION_MODES, ratiosText } from '../evaluate/settings';
import { type Goal, type Tuned, tune } from '../evaluate/tune';
import { progressReporter } from '../runtime/progress';
import { METHODS } from '../sparsity/methods';
import { asksFilms, dataSetOf, EVALUATE_OPTIONS, type EvaluateFlags, IMAGE_CACHE } from './evaluate_options';
import { interruptible } from './interrupt';
import { openModel } from './open';
import { print, printJson } from './style';

const text = { type: 'string', group: 'Goal:' } as const;

const OPTIONS = {
  ...EVALUATE_OPTIONS,
  keep: {
    ...text,
    default: 'agreement=0.97',
    describe: 'agreement=SHARE with the answers of dense, or accuracy=SHARE by --score',
  },
  method: {
    ...text,
    choices: METHODS.filter(({ uses }) => uses.prefill || uses.decode).map(({ name }) => name),
    default: 'sparsevila',
    describe: 'Whose ratios',
  },
  positions: { ...text, choices: POSITION_MODES, default: 'original' as const, describe: 'Positions of kept tokens' },
  schedule: {
    ...{ type: 'boolean', default: false, group: 'Goal:' },
    describe: 'Also find decoder layers that need no visual tokens while an answer is written',
  },
  json: { type: 'boolean', default: false, group: 'Goal:', describe: 'Print the result as one JSON line' },
} satisfies Record<string, Options>;

type Flags = EvaluateFlags & InferredOptionTypes<typeof OPTIONS>;
type Arguments = ArgumentsCamelCase<Flags>;

export const tuneCommand: CommandModule<object, Flags> = {
  command: 'tune',
  describe: 'Find the most aggressive ratios that keep a given quality',
  builder: (yargs) =>
    yargs
      .options(OPTIONS)
      .epilogue(
        'Each turn forgets the ones before, as in evaluate. Most aggressive: the least sum of the shares of visual tokens active while the ' +
          'question is read and while the answer is written. The share of answers kept is that of this set: on few questions it is known ' +
          'roughly (of 600, to about 1.5 points), so leave a margin or ask more.',
      )
      .example('$0 tune --model assets/tiny-nvila --keep agreement=0.95', 'On generated scenes')
      .example('$0 tune --data assets/demo/questions.jsonl --keep accuracy=0.8', 'Questions of your own')
      .example('$0 tune --scenes 20 --method visionzip', 'Another method')
      .example('$0 tune --scenes 5 --keep agreement=0.9 --schedule', 'Also layers that need no visual tokens'),
  handler: async (args) => {
    await interruptible((signal) => run(args, signal));
  },
};

async function run(args: Arguments, signal: AbortSignal): Promise<void> {
  const goal = goalOf(args.keep);
  const data = await dataSetOf(args);
  const method = methodEntry(args.method);
  const reporter = progressReporter();
  try {
    using model = await openModel({ ...args, isFilm: asksFilms(args) }, signal, { imageCache: IMAGE_CACHE });
    const { seed, maxTokens, positions, score, schedule } = args;
    const what = { model, data, method, positions, goal, score, seed, maxTokens, schedule };
    const tuned = await tune({ ...what, signal, onProgress: reporter });
    reporter.stop();
    if (tuned === undefined) throw unreachable(goal);
    const { best, tried } = tuned;
    const result = { method: method.name, positions, goal, ...best, tried };
    if (args.json) printJson(result);
    else print(report(args, goal, tuned));
  } finally {
    reporter.stop();
  }
}

/** Checks --keep. @throws SparseVilaError `ERR_OPTION_INVALID` */
function goalOf(keep: string): Goal {
  const [measure, value = '', ...more] = keep.split('=');
  const least = value.trim() === '' ? Number.NaN : Number(value);
  if ((measure === 'agreement' || measure === 'accuracy') && least > 0 && least <= 1 && more.length === 0)
    return { measure, least };
  throw new SparseVilaError(
    'ERR_OPTION_INVALID',
    `Expected agreement=SHARE or accuracy=SHARE, above 0 and at most 1, for --keep, received ${keep}.`,
  );
}

function unreachable({ measure, least }: Goal): SparseVilaError {
  return new SparseVilaError(
    'ERR_GOAL',
    `Expected some ratios to keep ${measure} ${least}, but none of the grid do. Ask for less; ` +
      '`sparsevila evaluate --methods dense` shows what the model reaches without sparsity.',
  );
}

function report(args: Arguments, { measure, least }: Goal, { best, tried }: Tuned): string {
  const shown = (value: number): string => String(Math.round(value * 1000) / 1000);
  const lines = tried.map(({ value, ...ratios }) => {
    return `${ratiosText(ratios).padEnd(9)} ${measure} ${value === undefined ? `below ${least}` : shown(value)}`;
  });
  const { prefillSparsity, decodeSparsity, none = [] } = best;
  const options = `{ prefillSparsity: ${prefillSparsity}, decodeSparsity: ${decodeSparsity}, positions: '${args.positions}' }`;
  const created =
    args.method === 'sparsevila'
      ? `sparseVila(${options})`
      : `METHODS.find(({ name }) => name === '${args.method}')?.create(${options})`;
  const layers = [...none].sort((a, b) => a - b);
  const code = layers.length === 0 ? created : `scheduled(${created}, { none: [${layers.join(', ')}] })`;
  const { uses } = methodEntry(args.method);
  const flags = [
    `--method ${args.method}`,
    ...(uses.prefill ? [`--prefill-sparsity ${prefillSparsity}`] : []),
    ...(uses.decode ? [`--decode-sparsity ${decodeSparsity}`] : []),
    `--positions ${args.positions}`,
    ...(layers.length === 0 ? [] : [`--none-layers ${layers.join(' ')}`]),
  ].join(' ');
  return `${lines.join('\n')}\n
${ratiosText(best)} keeps ${measure} ${shown(best.value)}:

  vlm.session({ method: ${code} })

  sparsevila ask ${flags} -q "…"
`;
}
