// Cases of `linear` and `gatedMlp` with 4-bit and 8-bit matrices.

import type { OpCase } from './case';
import { linearCase, mlpCase } from './linear';
import type { Int4Grid, StoredType } from './stored';

const grid = (group: Int4Grid['group'], stored: 32 | 64 | 128, rest: Partial<Int4Grid> = {}): Int4Grid => ({
  group,
  stored,
  zeros: 'integer',
  scales: 'f16',
  ...rest,
});

/** Every stored group, both kinds of zeros and of scales, and inputs that fill no group (whole rows). */
const GRIDS: readonly { k: number; n: number; grid: Int4Grid }[] = [
  { k: 96, n: 83, grid: grid(32, 32) },
  { k: 192, n: 83, grid: grid(64, 64, { zeros: 'none', scales: 'bf16' }) },
  { k: 384, n: 203, grid: grid(128, 128) },
  { k: 512, n: 67, grid: grid(256, 128, { zeros: 'none' }) },
  { k: 131, n: 83, grid: grid('row', 32, { zeros: 'none' }) },
  { k: 203, n: 83, grid: grid('row', 64, { scales: 'bf16' }) },
  { k: 1027, n: 131, grid: grid('row', 128) },
  { k: 320, n: 84, grid: grid(32, 32, { zeros: 'scaled' }) },
  { k: 384, n: 132, grid: grid(128, 128, { zeros: 'scaled' }) },
];
const INT4: readonly StoredType[] = ['int4', 'int4 fast'];
/** Rows of a product: one, a tile that is not full, several tiles. */
const ROWS = [1, 3, 37] as const;

/** Group sizes as published checkpoints have them. */
const BIG = grid(128, 128);

export const INTEGER_CASES: readonly OpCase[] = [
  ...INT4.flatMap((type) => [
    ...GRIDS.flatMap((sizes, i) => ROWS.map((t) => linearCase({ t, type, bias: (i + t) % 2 === 1, ...sizes }))),
    // More rows than a tile has (96), one output more than a group of strips (128).
    linearCase({ t: 103, k: 256, n: 129, type, grid: BIG, activation: 'gelu' }),
    linearCase({ t: 3, k: 1, n: 5, type, grid: grid('row', 32) }),
    linearCase({
      t: 3,
      k: 131,
      n: 67,
      type,
      grid: grid('row', 32),
      gated: true,
      bias: true,
      activation: 'gelu_pytorch_tanh',
    }),
    linearCase({ t: 37, k: 256, n: 129, type, grid: BIG, gated: true, bias: true, activation: 'silu' }),
    mlpCase({ t: 1, d: 131, m: 203, type, grid: grid('row', 128) }),
    mlpCase({ t: 29, d: 96, m: 224, type, grid: grid(32, 32, { zeros: 'none' }) }),
  ]),
  linearCase({ t: 1, k: 131, n: 83, type: 'int8', bias: true }),
  linearCase({ t: 3, k: 1, n: 5, type: 'int8' }),
  linearCase({ t: 37, k: 131, n: 203, type: 'int8', gated: true, bias: true, activation: 'silu' }),
  linearCase({ t: 37, k: 1027, n: 131, type: 'int8', bias: true, activation: 'gelu_pytorch_tanh' }),
  linearCase({ t: 103, k: 254, n: 129, type: 'int8' }),

  ...INT4.flatMap((type) => [
    linearCase({ t: 1, k: 4096, n: 11008, type, grid: BIG, big: true }),
    linearCase({ t: 1, k: 3584, n: 18944, type, grid: BIG, big: true }),
    // A decode step of eight conversations reads the weights as fast as one.
    linearCase({ t: 8, k: 4096, n: 11008, type, grid: BIG, big: true }),
    linearCase({ t: 512, k: 4096, n: 4096, type, grid: BIG, big: true }),
    linearCase({ t: 512, k: 4096, n: 11008, type, grid: BIG, big: true }),
  ]),
  linearCase({ t: 1024, k: 1024, n: 4096, type: 'int8', bias: true, activation: 'gelu_pytorch_tanh', big: true }),
];
