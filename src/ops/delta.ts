// The gated delta rule (arXiv 2412.06464, eq. 10) over the state of one sequence in one layer, which a call changes in place. Only ops make, change
// and copy states.

import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { float32, floats, run, runTyped, withInt32 } from './run';

/** Heads of a delta layer. `valueHeads / keyHeads` consecutive value heads share a key head. */
export interface DeltaSizes {
  readonly keyHeads: number;
  readonly valueHeads: number;
  /** Width of a key head and of a value head. */
  readonly keyWidth: number;
  readonly valueWidth: number;
  /** Rows that the convolution sees: a row and those before it. */
  readonly taps: number;
}

/** The sizes in the order of the ops. */
export const deltaNumbers = ({ keyHeads, valueHeads, keyWidth, valueWidth, taps }: DeltaSizes): number[] => [
  ...[keyHeads, valueHeads, keyWidth, valueWidth, taps],
];

/** Width of a row before and after the convolution: query heads, key heads, value heads. */
export const deltaWidth = ({ keyHeads, valueHeads, keyWidth, valueWidth }: DeltaSizes): number =>
  2 * keyHeads * keyWidth + valueHeads * valueWidth;

/** Bytes of a state: f32 [keyWidth, valueWidth padded to 16] for each value head, and the last taps - 1 rows before the convolution. */
export function stateBytes(sizes: DeltaSizes): number {
  const { valueHeads, keyWidth, valueWidth, taps } = sizes;
  return 4 * (valueHeads * keyWidth * Math.ceil(valueWidth / 16) * 16 + (taps - 1) * deltaWidth(sizes));
}

/** The state before the first row: uint8 [stateBytes]. */
export function allocState(sizes: DeltaSizes): Tensor {
  return withInt32(deltaNumbers(sizes), (numbers) => run('SvStateAlloc', [numbers]));
}

/** A state of the same content, which later calls do not change. */
export function copyState(state: Tensor): Tensor {
  return run('SvStateCopy', [state]);
}

/** The numbers of a state, f32 [stateBytes / 4], to be stored. */
export function readState(state: Tensor): Float32Array {
  const { TF_FLOAT, TF_UINT8 } = start().backend.binding;
  const words = reshaped(state, [(state.shape[0] as number) / 4, 4]);
  try {
    const values = runTyped('Bitcast', { T: TF_UINT8, type: TF_FLOAT }, [words]);
    try {
      return floats(values).slice();
    } finally {
      values.dispose();
    }
  } finally {
    words.dispose();
  }
}

/** The state that `readState` has read. */
export function stateOf(numbers: Float32Array): Tensor {
  const { TF_FLOAT, TF_UINT8 } = start().backend.binding;
  const made: Tensor[] = [];
  const keep = (tensor: Tensor): Tensor => {
    made.push(tensor);
    return tensor;
  };
  try {
    const values = keep(float32(numbers, [numbers.length]));
    const bytes = keep(runTyped('Bitcast', { T: TF_FLOAT, type: TF_UINT8 }, [values]));
    // A copy, because the bits are those of the values, and a state is changed in place.
    return copyState(keep(reshaped(bytes, [4 * numbers.length])));
  } finally {
    for (const tensor of made) tensor.dispose();
  }
}

/** Bytes in another shape, without a copy. */
function reshaped(bytes: Tensor, shape: readonly number[]): Tensor {
  const { TF_INT32, TF_UINT8 } = start().backend.binding;
  return withInt32(shape, (sizes) => runTyped('Reshape', { T: TF_UINT8, Tshape: TF_INT32 }, [bytes, sizes]));
}

/**
 * S = e^g S + k β (v - e^g Sᵀ k)ᵀ, o = Sᵀ q for each row and value head, with q, k, v = silu(conv(x)), q and k of length 1, q divided by √keyWidth,
 * g = -e^aLog softplus(a + dtBias), β = sigmoid(b). Rows are processed one after another, so that no bit depends on how they are split into calls.
 * @param x f32 [t, deltaWidth]
 * @param gates f32 [t, 2 valueHeads]: b of each value head, then a
 * @param state changed in place
 * @param vectors record of conv [deltaWidth, taps], aLog [valueHeads] and dtBias [valueHeads]
 * @returns o, f32 [t, valueHeads · valueWidth]
 */
export function deltaRule(x: Tensor, gates: Tensor, state: Tensor, vectors: Tensor, sizes: DeltaSizes): Tensor {
  return withInt32(deltaNumbers(sizes), (numbers) => run('SvDeltaRule', [x, gates, state, vectors, numbers]));
}
