// The rows of baselines, which a method must beat to have chosen anything.

import { downsample } from './downsample';
import { type MethodEntry, tower } from './method_entry';
import { random } from './random';
import { randomDeep } from './random_deep';
import { uniform } from './uniform';

export const BASELINE_ROWS: readonly MethodEntry[] = [
  {
    name: 'random',
    title: 'Random',
    stage: 'tower + decode',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'baseline',
    uses: { prefill: true, decode: true },
    create: random,
  },
  {
    name: 'random-deep',
    title: 'Random in deep layers',
    stage: 'prefill',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'baseline',
    uses: { prefill: true, decode: false },
    create: ({ prefillSparsity, seed = 0 }) => randomDeep({ prefillSparsity, seed }),
  },
  {
    name: 'downsample',
    title: 'Down-sampling',
    stage: 'pixels or tower',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'baseline (VTC-Bench, 2510.07143)',
    uses: { prefill: true, decode: false },
    create: tower(downsample),
  },
  {
    name: 'uniform',
    title: 'Uniform (strided)',
    stage: 'tower + decode',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'baseline',
    uses: { prefill: true, decode: true },
    create: ({ seed: _, ...ratios }) => uniform(ratios),
  },
];
