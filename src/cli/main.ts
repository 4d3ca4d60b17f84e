#!/usr/bin/env node
// The `sparsevila` command: finds the subcommand, loads only its module, and turns errors into one line and an exit code
// (0 done, 1 failed, 2 refused before any work, 130 and 143 stopped by SIGINT and SIGTERM).

import { join, relative } from 'node:path';
import type { Argv, CommandModule } from 'yargs';
import { codeOf, messageOf, received } from '../errors';
import { packageFolder } from '../runtime/paths';
import { type DeclaredOptions, prepareArguments } from './arguments';
import { asPackageError, loadYargs, runBare, version } from './bare';
import { errorLine } from './error_line';
import { columns } from './style';
import { didYouMean, EXIT, isUsageError, signalExit, UsageError } from './usage';

const ABOUT = "Vision-language models in Node on TensorFlow.js, with SparseVILA's decoupled visual sparsity.";

type Command = CommandModule<object, never>;
interface Entry {
  readonly describe: string;
  /** The options that positional arguments stand for, in order; the last one takes all that remain. */
  readonly positionals?: readonly string[];
  load(): Promise<Command>;
}

/** The commands in the order of help. */
const COMMANDS: Readonly<Record<string, Entry>> = {
  run: {
    describe: 'Ask one question: run MODEL "question" a.png',
    positionals: ['model', 'question', 'image'],
    load: async () => (await import('./run.js')).runCommand as Command,
  },
  ask: { describe: 'Ask questions about images', load: async () => (await import('./ask.js')).askCommand as Command },
  chat: {
    describe: 'Hold a conversation about images',
    load: async () => (await import('./chat.js')).chatCommand as Command,
  },
  explain: {
    describe: 'Draw the visual tokens that a conversation attended',
    load: async () => (await import('./explain.js')).explainCommand as Command,
  },
  serve: {
    describe: 'Serve a model over HTTP: serve MODEL',
    positionals: ['model'],
    load: async () => (await import('./serve.js')).serveCommand as Command,
  },
  evaluate: {
    describe: 'Compare methods and ratios on questions with known answers',
    load: async () => (await import('./evaluate.js')).evaluateCommand as Command,
  },
  tune: {
    describe: 'Find the most aggressive ratios that keep a given quality',
    load: async () => (await import('./tune.js')).tuneCommand as Command,
  },
  inspect: {
    describe: 'Describe a checkpoint folder and what it needs, from its headers',
    positionals: ['model'],
    load: async () => (await import('./inspect.js')).inspectCommand as Command,
  },
  download: {
    describe: 'Download a model of the Hub: download owner/name',
    positionals: ['name'],
    load: async () => (await import('./hub.js')).downloadCommand as Command,
  },
  list: {
    describe: 'List the models of the Hub that are in the cache',
    load: async () => (await import('./hub.js')).listCommand as Command,
  },
  remove: {
    describe: 'Remove a model from the cache: remove owner/name',
    positionals: ['name'],
    load: async () => (await import('./hub.js')).removeCommand as Command,
  },
  cache: {
    describe: 'Show or clear the cache of packed weights',
    load: async () => (await import('./cache.js')).cacheCommand as Command,
  },
  batch: {
    describe: 'Answer the questions of a file: batch in.jsonl out.jsonl',
    positionals: ['in', 'out'],
    load: async () => (await import('./batch.js')).batchCommand as Command,
  },
  worker: {
    describe: 'Answer the jobs of a queue on Redis or Postgres',
    load: async () => (await import('./worker.js')).workerCommand as Command,
  },
  quantize: {
    describe: 'Make a 4-bit checkpoint',
    load: async () => (await import('./quantize.js')).quantizeCommand as Command,
  },
  convert: {
    describe: 'Write a checkpoint in another format, float type or layout',
    load: async () => (await import('./convert.js')).convertCommand as Command,
  },
  setup: {
    describe: 'Fetch the engine and compile the native modules',
    load: async () => (await import('./setup.js')).setupCommand as Command,
  },
  doctor: {
    describe: 'Check this machine: what is installed, what is missing, and how to fix it',
    load: async () => (await import('./doctor.js')).doctorCommand as Command,
  },
};

const FIRST_EXAMPLES: readonly Example[] = [
  [
    '$0 run assets/tiny-nvila "Where is the yellow 2?" assets/demo/scene.png',
    'Ask the packaged model about its picture',
  ],
  ['$0 ask --help', 'The options and examples of a command'],
  ['$0 doctor', 'Check what is installed, and what is missing'],
];

/** Runs the command line `args` and returns its exit code; prints to stdout and stderr. */
export async function main(args: readonly string[]): Promise<number> {
  const words = args[0] === 'help' ? [...args.slice(1), '--help'] : [...args];
  const position = words.findIndex((word) => !word.startsWith('-'));
  const name = position < 0 ? undefined : words[position];
  try {
    await run(name, [...words.slice(0, Math.max(0, position)), ...words.slice(position + 1)]);
    return Number(process.exitCode ?? 0);
  } catch (thrown) {
    const error = asPackageError(thrown);
    process.stderr.write(`${describe(error, args.includes('--debug'), name)}\n`);
    if (isAbort(error)) return Number(process.exitCode ?? signalExit('SIGINT'));
    return isUsageError(error) ? EXIT.usage : EXIT.failure;
  }
}

async function run(name: string | undefined, rest: readonly string[]): Promise<void> {
  const yargs = await loadYargs();
  if (yargs instanceof Error) return await runBare(name, rest, yargs);
  if (name === undefined) {
    const top = base(yargs([])).usage(`$0 <command> [options]\n\n${ABOUT}`);
    for (const [command, { describe }] of Object.entries(COMMANDS)) top.command(command, describe);
    const prepared = prepareArguments(rest, declaredBy(top), []);
    if (prepared.includes('--help')) return await printHelp(top, FIRST_EXAMPLES);
    await top.demandCommand(1, 'Expected a command, received none.').parseAsync(prepared);
    return;
  }
  const entry = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (entry === undefined) {
    throw new UsageError(`Unknown command ${received(name)}.${didYouMean(name, Object.keys(COMMANDS))}`);
  }
  const command = await entry.load();
  const declared = base(yargs([]));
  const examples = collectExamples(declared);
  (command.builder as (yargs: Argv) => Argv)(declared);
  const prepared = prepareArguments(rest, declaredBy(declared), entry.positionals ?? []);
  const usage = [name, ...(entry.positionals ?? []).map((option) => `[${option}]`), '[options]'].join(' ');
  declared.usage(`$0 ${usage}\n\n${command.describe || entry.describe}`);
  if (prepared.includes('--help')) return await printHelp(declared, examples);
  const parsed = await declared.parseAsync(prepared);
  // yargs answers --version by itself.
  if (!prepared.includes('--version')) await command.handler(parsed as never);
}

/** The options that all command lines have. */
function base(yargs: Argv): Argv {
  return yargs
    .scriptName('sparsevila')
    .option('debug', { type: 'boolean', default: false, describe: 'Show the stack of an error' })
    .alias('help', 'h')
    .version(version())
    .strict()
    .detectLocale(false)
    .wrap(Math.min(100, columns()))
    .exitProcess(false)
    .fail((message, error) => {
      // A YError is thrown by yargs itself, and also means a wrong command line.
      throw error && error.name !== 'YError' ? error : new UsageError(message ?? error.message);
    });
}

type Example = readonly [command: string, describe: string];

/** Collects the examples of a command. yargs' help would break them into columns, but they have to be copied whole. */
function collectExamples(yargs: Argv): readonly Example[] {
  const examples: Example[] = [];
  const take = (command: string, describe: string): Argv => {
    examples.push([command, describe]);
    return yargs;
  };
  Object.assign(yargs, { example: take });
  return examples;
}

/** Prints help, then for each example a line that describes it and the unbroken command. */
async function printHelp(yargs: Argv, examples: readonly Example[]): Promise<void> {
  // Paths are relative to the package's folder; elsewhere they are rewritten.
  const assets = relative('', join(packageFolder(), 'assets'));
  const here = (command: string): string =>
    command.replaceAll('$0', 'sparsevila').replaceAll(' assets/', ` ${assets}/`);
  const lines = examples.map(([command, describe]) => `  # ${describe}\n  ${here(command)}\n`);
  process.stdout.write(`${await yargs.getHelp()}\n\nExamples:\n${lines.join('\n')}`);
}

/** The declared options; yargs' types do not have `getOptions`. */
function declaredBy(yargs: Argv): DeclaredOptions {
  return (yargs as unknown as { getOptions(): DeclaredOptions }).getOptions();
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}

function describe(error: unknown, debug: boolean, command: string | undefined): string {
  if (debug && error instanceof Error) return errorLine(error.stack ?? error);
  if (isAbort(error)) return 'sparsevila: stopped; the same command continues.';
  if (!isUsageError(error)) return errorLine(error);
  // yargs lists wrong values on separate lines.
  const line = errorLine(error)
    .replace(/\s*\n\s*/g, ' ')
    .replace(/[.?]?$/, (end) => end || '.');
  const known = command !== undefined && Object.hasOwn(COMMANDS, command);
  return `${line} See \`sparsevila ${known ? `${command} ` : ''}--help\`.`;
}

/** Ignores a closed output pipe, as in `sparsevila ask … | head -1`; a full disk is an error. */
function onOutputError(error: Error): void {
  if (codeOf(error) === 'EPIPE') process.exit(0);
  try {
    process.stderr.write(`sparsevila: the output cannot be written: ${messageOf(error)}.\n`);
  } finally {
    process.exit(EXIT.failure);
  }
}

if (require.main === module) {
  process.stdout.on('error', onOutputError);
  process.stderr.on('error', () => process.exit(EXIT.failure));
  main(process.argv.slice(2)).then((code) => {
    process.exitCode = code;
  });
}
