// What numeric options of benchmarks take: counts, but for those named here.

import type { Argv } from 'yargs';
import { SparseVilaError } from '../../src/errors';
import { type Check, COUNT, finite } from '../../src/options';
import { SHARE } from '../../src/sparsity/options';

const FROM_0_TO_1: Check = {
  expected: 'a share from 0 to 1',
  accepts: (value) => typeof value === 'number' && value >= 0 && value <= 1,
};

const NUMBERS: Readonly<Record<string, Check>> = {
  ...{ 'decode-sparsity': SHARE, acceptance: FROM_0_TO_1, computed: FROM_0_TO_1, tau: finite(0), seconds: finite(0) },
};

/** Checks the numbers of a command. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function checkNumbers(args: Readonly<Record<string, unknown>>, yargs: Argv): void {
  const { number } = (yargs as unknown as { getOptions(): { readonly number: readonly string[] } }).getOptions();
  for (const name of number) {
    const check = NUMBERS[name] ?? COUNT;
    for (const value of [args[name]].flat()) {
      if (value === undefined || check.accepts(value)) continue;
      throw new SparseVilaError(
        'ERR_OPTION_INVALID',
        `Expected ${check.expected} for --${name}, received ${String(value)}.`,
      );
    }
  }
}
