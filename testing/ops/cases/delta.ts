// Cases of `deltaRule`: rows after others that the state has seen.

import { allocState, copyState, type DeltaSizes, deltaRule, deltaWidth, stateBytes } from '../../../src/ops/delta';
import { float32 } from '../../../src/ops/run';
import { recordValues } from '../../../src/ops/vectors';
import type { Tensor } from '../../../src/runtime/tensor';
import { deltaRuleReference } from '../references/delta';
import { coldCopies, compare, inTurn, keeper, type OpCase, once, type PreparedCase, take } from './case';
import { noise } from './data';

export interface DeltaVectors {
  readonly conv: Float32Array;
  readonly aLog: Float32Array;
  readonly dtBias: Float32Array;
}

export interface DeltaCaseSizes extends DeltaSizes {
  readonly t: number;
  /** Rows that the state has seen. */
  readonly before: number;
  readonly big?: boolean;
}

export const namedSizes = ({ keyHeads, valueHeads, keyWidth, valueWidth, taps }: DeltaSizes): string =>
  `${keyHeads}/${valueHeads}x${keyWidth}x${valueWidth} taps ${taps}`;

export function deltaVectors(seed: string, sizes: DeltaSizes): DeltaVectors {
  const { valueHeads, taps } = sizes;
  return {
    conv: noise(`${seed}conv`, deltaWidth(sizes) * taps, 0.5),
    // Heads that forget within a row, and heads that hardly do.
    aLog: noise(`${seed}a`, valueHeads, 1.5),
    dtBias: noise(`${seed}dt`, valueHeads, 2).map((x) => x - 1),
  };
}

export function deltaRecord({ conv, aLog, dtBias }: DeltaVectors): Tensor {
  const { values } = recordValues([conv, aLog, dtBias]);
  return float32(values, [values.length]);
}

function deltaCase(sizes: DeltaCaseSizes): OpCase {
  const { t, before, big = false } = sizes;
  return {
    ...{
      op: 'deltaRule',
      name: `${t} rows after ${before}, ${namedSizes(sizes)}`,
      dtype: 'f32',
      tolerance: 'f32',
      big,
    },
    prepare: () => prepare(sizes),
  };
}

function prepare(sizes: DeltaCaseSizes): PreparedCase {
  const { t, before, valueHeads, keyWidth, valueWidth, big = false } = sizes;
  const keep = keeper();
  const seed = `delta ${t} ${before} ${keyWidth} `;
  const width = deltaWidth(sizes);
  const [x, gates] = [noise(`${seed}x`, (before + t) * width), noise(`${seed}g`, (before + t) * 2 * valueHeads, 2)];
  const vectors = deltaVectors(seed, sizes);
  const record = keep.tensor(deltaRecord(vectors));
  const rows = (values: Float32Array, n: number, from: number, to: number) =>
    keep.tensor(float32(values.slice(from * n, to * n), [to - from, n]));
  const inputs = (from: number, to: number) =>
    [rows(x, width, from, to), rows(gates, 2 * valueHeads, from, to)] as const;
  const first = keep.tensor(allocState(sizes));
  if (before > 0) deltaRule(...inputs(0, before), first, record, sizes).dispose();
  const own = inputs(before, before + t);
  const states = Array.from({ length: big ? coldCopies(stateBytes(sizes)) : 0 }, () => keep.tensor(copyState(first)));
  const next = inTurn(states);
  const call = (): Tensor[] => {
    const state = copyState(first);
    const y = deltaRule(...own, state, record, sizes);
    state.dispose();
    return [y];
  };
  const reference = once(() => deltaRuleReference(x, gates, vectors, sizes).subarray(before * valueHeads * valueWidth));
  return {
    run: () => (big ? [deltaRule(...own, next(), record, sizes)] : call()),
    check() {
      const [y = new Float32Array()] = take(call());
      return [compare('y', y, reference())];
    },
    // A state is read and written once for each call, however many rows there are.
    bytes: 2 * stateBytes(sizes) + 4 * t * (width + 2 * valueHeads + valueHeads * valueWidth),
    flops: 7 * t * valueHeads * keyWidth * valueWidth,
    dispose: keep.dispose,
  };
}

/** Sizes that are multiples of nothing. */
export const ODD_DELTA: DeltaSizes = { keyHeads: 2, valueHeads: 6, keyWidth: 13, valueWidth: 21, taps: 4 };
/** The state layers of Qwen3.5-2B (16 value heads) and 9B (32). */
const QWEN: DeltaSizes = { keyHeads: 16, valueHeads: 16, keyWidth: 128, valueWidth: 128, taps: 4 };

export const DELTA_CASES: readonly OpCase[] = [
  deltaCase({ ...ODD_DELTA, t: 1, before: 0 }),
  deltaCase({ ...ODD_DELTA, t: 1, before: 40 }),
  deltaCase({ ...ODD_DELTA, t: 2, before: 2 }),
  deltaCase({ ...ODD_DELTA, t: 71, before: 5 }),
  deltaCase({ ...ODD_DELTA, keyHeads: 3, valueHeads: 3, taps: 1, t: 9, before: 3 }),
  deltaCase({ ...ODD_DELTA, keyWidth: 32, valueWidth: 16, taps: 3, t: 33, before: 1 }),
  deltaCase({ ...QWEN, t: 1, before: 3, big: true }),
  deltaCase({ ...QWEN, valueHeads: 32, t: 1, before: 3, big: true }),
  deltaCase({ ...QWEN, t: 512, before: 0, big: true }),
];
