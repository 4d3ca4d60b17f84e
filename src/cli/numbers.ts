// What numeric options of the command line take, by name. They are checked before a command begins, so that errors have the name that was typed.

import { type Check, COUNT, finite, integer, NATURAL, SEED } from '../options';
import { LAYER, SHARE } from '../sparsity/options';

const POSITIVE: Check = {
  expected: 'a number above 0',
  accepts: (value) => Number.isFinite(value) && Number(value) > 0,
};

const NUMBERS: Readonly<Record<string, Check>> = {
  ...{ fps: POSITIVE, 'max-frames': COUNT, 'max-pixels': COUNT, 'local-frames': COUNT, 'kv-budget': COUNT },
  ...{ refresh: COUNT, 'refresh-rejected': COUNT },
  ...{ 'prefill-sparsity': SHARE, 'decode-sparsity': SHARE, 'missed-by': SHARE, 'salience-layer': LAYER },
  ...{ 'dense-layers': NATURAL, 'none-layers': NATURAL, 'max-tokens': COUNT, 'context-length': integer(2) },
  ...{ 'top-k': NATURAL, 'repetition-penalty': POSITIVE, seed: SEED, scenes: COUNT, turns: COUNT },
  'top-p': {
    expected: 'a number above 0 and at most 1',
    accepts: (value) => typeof value === 'number' && value > 0 && value <= 1,
  },
  ...{ port: integer(0, 65_535), concurrency: COUNT, samples: COUNT, rows: COUNT, 'group-size': COUNT },
  ...{
    'max-running': COUNT,
    'max-requests': COUNT,
    'max-client-requests': COUNT,
    'max-pictures': COUNT,
    'max-body': POSITIVE,
    'max-seconds': POSITIVE,
  },
};

/** What an option takes; those that the table does not name take finite numbers of at least 0. */
const checkOf = (name: string): Check => (Object.hasOwn(NUMBERS, name) ? (NUMBERS[name] as Check) : finite(0));

/** Why a text is not a value of a numeric option: what is expected; undefined if it is one. */
export function expectedNumber(name: string, text: string): string | undefined {
  const { expected, accepts } = checkOf(name);
  return text.trim() !== '' && accepts(Number(text)) ? undefined : expected;
}
