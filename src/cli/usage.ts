// Errors of the command line itself: their messages, the help that they refer to, and the exit codes.

import { constants } from 'node:os';
import { codeOf } from '../errors';
import { nearest } from '../options';

/** Exit codes: a failure, and a command line that was refused before any work. Signals end with 128 + their number. */
export const EXIT = { failure: 1, usage: 2 } as const;

/** An invalid command line. */
export class UsageError extends Error {}

const USAGE_CODES: readonly (string | undefined)[] = ['ERR_OPTION_INVALID', 'ERR_OPTION_MISSING', 'ERR_QUESTION'];

/** Whether the command line is at fault: such an error exits with code 2 and refers to the command's help. */
export function isUsageError(error: unknown): boolean {
  return error instanceof UsageError || USAGE_CODES.includes(codeOf(error));
}

/** The exit code after a signal: 130 for SIGINT, 143 for SIGTERM. */
export function signalExit(signal: NodeJS.Signals): number {
  return 128 + (constants.signals[signal] ?? 0);
}

/** ` Did you mean X?` for the known name that `given` begins, or whose whole or last word is nearest to it; empty if none is near. */
export function didYouMean(given: string, known: readonly string[], prefix = ''): string {
  if (given.length < 2) return '';
  const begun = known.find((name) => name.startsWith(given));
  const lastWords = new Map(known.map((name) => [name.split('-').at(-1) ?? name, name]));
  const meant = begun ?? nearest(given, known) ?? lastWords.get(nearest(given, [...lastWords.keys()]) ?? '');
  return meant === undefined ? '' : ` Did you mean ${prefix}${meant}?`;
}
