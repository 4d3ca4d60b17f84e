// Every numeric option of every command, and of every benchmark, refuses what is not in its range, by the name that was typed, before anything runs.

import { readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Argv, CommandModule, Options } from 'yargs';
import { checkNumbers } from '../../scripts/bench/numbers';
import { type DeclaredOptions, prepareArguments } from '../../src/cli/arguments';
import { codeOf, messageOf } from '../../src/errors';
import { cli } from './run';

/** The options that a command declares. */
function declaredBy({ builder }: CommandModule): DeclaredOptions {
  const options: Record<string, Options> = {};
  const recorder: object = new Proxy(
    {},
    {
      get:
        (_, method) =>
        (...given: unknown[]): object => {
          if (method === 'options') Object.assign(options, given[0]);
          if (method === 'option') options[given[0] as string] = given[1] as Options;
          return recorder;
        },
    },
  );
  if (typeof builder === 'function') (builder as (argv: Argv) => Argv)(recorder as Argv);
  const named = (test: (option: Options) => boolean): string[] =>
    Object.entries(options).flatMap(([name, option]) => (test(option) ? [name] : []));
  return {
    ...{ key: Object.fromEntries(Object.keys(options).map((name) => [name, true])), narg: {}, choices: {}, alias: {} },
    array: named(({ array }) => array === true),
    boolean: named(({ type }) => type === 'boolean'),
    number: named(({ type }) => type === 'number'),
  };
}

/** The commands that the files of a folder export. */
function commandsIn(folder: string): [string, CommandModule][] {
  const path = resolve(__dirname, '../..', folder);
  const files = readdirSync(path).filter((file) => file.endsWith('.js') && file !== 'main.js');
  return files.flatMap((file) =>
    Object.values(require(join(path, file)) as object).flatMap((value): [string, CommandModule][] =>
      typeof value === 'object' && value !== null && 'command' in value && 'handler' in value
        ? [[String((value as CommandModule).command), value as CommandModule]]
        : [],
    ),
  );
}

/** Those with numeric options. */
const declaredIn = (folder: string) =>
  commandsIn(folder)
    .map(([name, command]) => [name, declaredBy(command)] as const)
    .filter(([, { number }]) => number.length > 0);
const COMMANDS = declaredIn('src/cli');
const BENCHMARKS = declaredIn('scripts/bench');
const WRONG = ['x', '', 'NaN', '-Infinity', '1e999', '-1e9'];
/** Layers count from the last one. */
const NEGATIVE = ['salience-layer'];
/** Options that take other numbers than integers. */
const FRACTIONS = [
  ...['from', 'to', 'fps', 'prefill-sparsity', 'decode-sparsity', 'missed-by'],
  ...['temperature', 'top-p', 'repetition-penalty', 'max-body', 'max-seconds'],
];

function faultOf(work: () => unknown): [string | undefined, string] {
  try {
    work();
  } catch (error) {
    return [codeOf(error), messageOf(error)];
  }
  return ['none', ''];
}
const refusal = (option: string) => expect.stringMatching(new RegExp(`^Expected .+ for --${option}, received `));

const wrongFor = (option: string): string[] => [
  ...WRONG.filter((one) => !(one === '-1e9' && NEGATIVE.includes(option))),
  ...(FRACTIONS.includes(option) ? [] : ['1.5']),
];

it('there are options to look at', () => {
  const counts = [COMMANDS, BENCHMARKS].map((all) => all.reduce((sum, [, { number }]) => sum + number.length, 0));
  expect(counts.map((count) => count > 30)).toEqual([true, true]);
});

it.each(COMMANDS)('%s refuses wrong numbers', (_, declared) => {
  for (const option of declared.number)
    for (const value of wrongFor(option)) {
      // An empty text is refused in every list.
      if (value === '' && declared.array.includes(option)) continue;
      const fault = faultOf(() => prepareArguments([`--${option}=${value}`], declared, []));
      expect([option, value, ...fault]).toEqual([option, value, 'ERR_OPTION_INVALID', refusal(option)]);
    }
});

it.each(BENCHMARKS)('bench %s refuses wrong numbers', (_, { number }) => {
  const yargs = { getOptions: () => ({ number }) } as unknown as Argv;
  for (const option of number)
    for (const value of [Number.NaN, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, -1]) {
      const fault = faultOf(() => checkNumbers({ [option]: value }, yargs));
      expect([option, value, ...fault]).toEqual([option, value, 'ERR_OPTION_INVALID', refusal(option)]);
    }
});

it.each([
  [
    ['ask', '--question', 'x', '--max-frames', '1.5'],
    /Expected an integer of at least 1 for --max-frames, received 1\.5/,
  ],
  [['evaluate', '--frames', '0'], /Expected comma-separated integers of at least 1 for --frames, received "0"/],
  [['evaluate', '--frames', '8,x'], /Expected comma-separated integers of at least 1 for --frames, received "8,x"/],
  [['ask', '--question', 'x', '--kv-budget', '1000'], /Expected --method rekv and --local-frames with --kv-budget/],
  [['ask', '--question', 'x', '--local-frames', '4'], /Expected no --local-frames with --method sparsevila.*rekv/],
])('%j', async (args, message) => {
  const { code, stdout, stderr } = await cli(args);
  expect([code, stdout, stderr]).toEqual([2, '', expect.stringMatching(message)]);
  expect(stderr).toContain('ERR_OPTION_INVALID');
});
