// The definition of `deltaRule`, in double precision.

import { type DeltaSizes, deltaWidth } from '../../../src/ops/delta';
import type { DeltaVectors } from '../cases/delta';
import { activationReference } from './linear';

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** All rows of a sequence, from its first on: x [t, width], gates [t, 2 valueHeads] -> [t, valueHeads * valueWidth]. */
export function deltaRuleReference(
  x: ArrayLike<number>,
  gates: ArrayLike<number>,
  { conv, aLog, dtBias }: DeltaVectors,
  sizes: DeltaSizes,
): Float64Array {
  const { keyHeads, valueHeads, keyWidth: dk, valueWidth: dv } = sizes;
  const width = deltaWidth(sizes);
  const t = x.length / width;
  const mixed = convolved(x, conv, sizes);
  const y = new Float64Array(t * valueHeads * dv);
  for (let head = 0; head < valueHeads; head++) {
    const keyHead = Math.floor((head * keyHeads) / valueHeads);
    const state = new Float64Array(dk * dv);
    for (let i = 0; i < t; i++) {
      const part = (from: number, n: number) => mixed.subarray(i * width + from, i * width + from + n);
      const q = unit(part(keyHead * dk, dk)).map((value) => value / Math.sqrt(dk));
      const k = unit(part((keyHeads + keyHead) * dk, dk));
      const v = part(2 * keyHeads * dk + head * dv, dv);
      const at = (n: number): number => gates[i * 2 * valueHeads + n] as number;
      const softplus = Math.log1p(Math.exp(at(valueHeads + head) + (dtBias[head] as number)));
      const decay = Math.exp(-Math.exp(aLog[head] as number) * softplus);
      const beta = sigmoid(at(head));
      for (let c = 0; c < dv; c++) {
        let memory = 0;
        for (let j = 0; j < dk; j++) memory += decay * (state[j * dv + c] as number) * (k[j] as number);
        const change = beta * ((v[c] as number) - memory);
        let read = 0;
        for (let j = 0; j < dk; j++) {
          const value = decay * (state[j * dv + c] as number) + (k[j] as number) * change;
          state[j * dv + c] = value;
          read += (q[j] as number) * value;
        }
        y[(i * valueHeads + head) * dv + c] = read;
      }
    }
  }
  return y;
}

/** silu of the causal convolution of each column with its own taps. */
function convolved(x: ArrayLike<number>, conv: ArrayLike<number>, sizes: DeltaSizes): Float64Array {
  const width = deltaWidth(sizes);
  const { taps } = sizes;
  return Float64Array.from({ length: x.length }, (_, at) => {
    const [row, column] = [Math.floor(at / width), at % width];
    let sum = 0;
    for (let j = 0; j < taps; j++) {
      const from = row - (taps - 1) + j;
      if (from >= 0) sum += (x[from * width + column] as number) * (conv[column * taps + j] as number);
    }
    return activationReference(sum, 'silu');
  });
}

function unit(x: Float64Array): Float64Array {
  const length = Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) + 1e-6);
  return x.map((value) => value / length);
}
