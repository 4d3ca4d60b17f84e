#!/usr/bin/env node
// The `sparsevila` command: registers the subcommands and turns errors into one line and an exit code
// (0 done, 1 failed, 130 stopped). Knows nothing of what the subcommands do.

import { codeOf, messageOf } from '../errors';
import { doctorCommand } from './doctor';
import { setupCommand } from './setup';

const USAGE = `$0 <command> [options]

Vision-language models in Node on TensorFlow.js, with SparseVILA's decoupled visual sparsity.`;

/** Runs the command line `args` and returns its exit code; what it prints goes to stdout and stderr. */
export async function main(args: readonly string[]): Promise<number> {
  // yargs is an ES module, so a CommonJS module can only load it like this.
  const { default: yargs } = await import('yargs');
  try {
    await yargs(args)
      .scriptName('sparsevila')
      .usage(USAGE)
      .command(setupCommand)
      .command(doctorCommand)
      .option('debug', { type: 'boolean', default: false, describe: 'Show the stack of an error' })
      .demandCommand(1, 'Expected a command but received none.')
      .strict()
      .wrap(Math.min(120, process.stdout.columns ?? 100))
      .exitProcess(false)
      .fail((message, error) => {
        throw error ?? new UsageError(message);
      })
      .parseAsync();
    return Number(process.exitCode ?? 0);
  } catch (error) {
    process.stderr.write(`${describe(error, args.includes('--debug'))}\n`);
    return isAbort(error) ? 130 : 1;
  }
}

/** A command line that yargs refuses. */
class UsageError extends Error {}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}

function describe(error: unknown, debug: boolean): string {
  if (debug && error instanceof Error) return `sparsevila: ${error.stack}`;
  if (isAbort(error)) return 'sparsevila: stopped; the same command continues.';
  const code = codeOf(error);
  if (error instanceof UsageError)
    return `sparsevila: ${error.message.replace(/\.?$/, '.')} See \`sparsevila --help\`.`;
  return `sparsevila: ${code === undefined ? '' : `${code}: `}${messageOf(error)}`;
}

if (require.main === module) {
  main(process.argv.slice(2)).then((code) => {
    process.exitCode = code;
  });
}
