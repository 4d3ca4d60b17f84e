// Shared by the commands that write checkpoints: the options of input and output, and a progress bar that is removed before anything is
// printed.

import type { Options } from 'yargs';
import { type ProgressReporter, progressReporter } from '../runtime/progress';
import { print, printJson } from './style';

export const CHECKPOINT_OPTIONS = {
  model: { type: 'string', alias: 'm', demandOption: true, describe: 'Checkpoint folder, or owner/name on the Hub' },
  out: { type: 'string', demandOption: true, describe: 'New folder' },
  json: { type: 'boolean', default: false, describe: 'Print the result as JSON' },
} as const satisfies Record<string, Options>;

export interface CheckpointArguments {
  readonly model: string;
  readonly out: string;
  readonly json: boolean;
}

/** Prints the result of `work`, as `text` of it or as JSON. */
export async function printResult<T>(
  json: boolean,
  work: (reporter: ProgressReporter) => Promise<T>,
  text: (result: T) => string,
): Promise<void> {
  const reporter = progressReporter();
  try {
    const result = await work(reporter);
    reporter.stop();
    if (json) printJson(result, 2);
    else print(text(result));
  } finally {
    reporter.stop();
  }
}
