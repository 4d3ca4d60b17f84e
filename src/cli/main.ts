#!/usr/bin/env node
// The `sparsevila` command: registers the subcommands and turns errors into one line and an exit code
// (0 done, 1 failed, 130 stopped). Knows nothing of what the subcommands do.

import { codeOf } from '../errors';
import { askCommand } from './ask';
import { chatCommand } from './chat';
import { convertCommand } from './convert';
import { doctorCommand } from './doctor';
import { errorLine } from './error_line';
import { evaluateCommand } from './evaluate';
import { explainCommand } from './explain';
import { STOPPED } from './interrupt';
import { quantizeCommand } from './quantize';
import { setupCommand } from './setup';
import { tuneCommand } from './tune';

const USAGE = `$0 <command> [options]

Vision-language models in Node on TensorFlow.js, with SparseVILA's decoupled visual sparsity.`;

/** Runs the command line `args` and returns its exit code; what it prints goes to stdout and stderr. */
export async function main(args: readonly string[]): Promise<number> {
  // yargs is an ES module, so a CommonJS module can only load it like this.
  const { default: yargs } = await import('yargs');
  try {
    await yargs(joinDashes(args))
      .scriptName('sparsevila')
      .usage(USAGE)
      .command(askCommand)
      .command(chatCommand)
      .command(explainCommand)
      .command(evaluateCommand)
      .command(tuneCommand)
      .command(quantizeCommand)
      .command(convertCommand)
      .command(setupCommand)
      .command(doctorCommand)
      .option('debug', { type: 'boolean', default: false, describe: 'Show the stack of an error' })
      .demandCommand(1, 'Expected a command but received none.')
      .strict()
      .detectLocale(false)
      .wrap(Math.min(120, process.stdout.columns ?? 100))
      .exitProcess(false)
      .fail((message, error) => {
        throw error ?? new UsageError(message);
      })
      .parseAsync();
    return Number(process.exitCode ?? 0);
  } catch (error) {
    process.stderr.write(`${describe(error, args.includes('--debug'))}\n`);
    return isAbort(error) ? STOPPED : 1;
  }
}

/** `--image -` as `--image=-`: yargs' lists take a lone dash for the next option. */
function joinDashes(args: readonly string[]): string[] {
  const joined: string[] = [];
  for (const arg of args) {
    const option = joined.at(-1);
    if (arg === '-' && option?.startsWith('--')) joined[joined.length - 1] = `${option}=-`;
    else joined.push(arg);
  }
  return joined;
}

/** A command line that yargs refuses. */
class UsageError extends Error {}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}

function describe(error: unknown, debug: boolean): string {
  if (debug && error instanceof Error) return `sparsevila: ${error.stack}`;
  if (isAbort(error)) return 'sparsevila: stopped; the same command continues.';
  if (error instanceof UsageError) {
    // yargs lists wrong values on lines of their own.
    const line = error.message.replace(/\s*\n\s*/g, ' ').replace(/[.?]?$/, (end) => end || '.');
    return `sparsevila: ${line} See \`sparsevila --help\`.`;
  }
  return errorLine(error);
}

if (require.main === module) {
  // A reader that has seen enough, `sparsevila ask … | head -1`, is no error.
  process.stdout.on('error', (error) => {
    if (codeOf(error) !== 'EPIPE') throw error;
    process.exit(0);
  });
  main(process.argv.slice(2)).then((code) => {
    process.exitCode = code;
  });
}
