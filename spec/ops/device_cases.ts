// A script for `runOn`: checks every small case of the op table on the process's device, and calls it twice for equal bits; and
// makes the calls that ops refuse.

import { start } from '../../src/runtime/start';
import type { Comparison } from '../../testing/ops/cases/case';
import { OP_CASES, titleOf } from '../../testing/ops/cases/index';
import { print } from '../support/device';
import { bitsOf, difference } from './levels';
import { REFUSED } from './refused';

export interface CaseResult {
  readonly comparisons: readonly Comparison[];
  /** A description of the difference between two equal calls; null if there is none. */
  readonly differs: string | null;
  /** The error that was thrown instead. */
  readonly thrown?: string;
}

export interface CaseResults {
  readonly device: string;
  readonly cases: Readonly<Record<string, CaseResult>>;
  /** The error of each call that has to be refused; null if it threw none. */
  readonly refused: Readonly<Record<string, string | null>>;
}

function thrownBy(call: () => unknown): string | null {
  try {
    call();
    return null;
  } catch (error) {
    return String(error);
  }
}

if (require.main === module) {
  const cases: Record<string, CaseResult> = {};
  for (const item of OP_CASES.filter(({ big }) => !big)) {
    try {
      const prepared = item.prepare();
      const comparisons = prepared.check();
      const differs = difference(bitsOf(prepared.run()), bitsOf(prepared.run())) ?? null;
      prepared.dispose();
      cases[titleOf(item)] = { comparisons, differs };
      start().native.deviceReport(); // looks at other devices, which must not become the current one
    } catch (error) {
      cases[titleOf(item)] = { comparisons: [], differs: null, thrown: String(error) };
    }
  }
  const refused = Object.fromEntries(REFUSED.map(([name, call]) => [name, thrownBy(call)]));
  print({ device: start().device, cases, refused } satisfies CaseResults);
}
