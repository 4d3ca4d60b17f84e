// The definition of `sample`, with sorting. `src/ops/sample.ts` says what is drawn.

import { type Draw, roundedDown, sampleWeight } from '../../../src/text/draw';

const f32 = Math.fround;

/** The id drawn from logits [v]; -1 if there is none. */
export function sampleReference(logits: Float32Array, { temperature, topK, topP, uniform }: Draw): number {
  const ids = [...logits.keys()];
  const at = (id: number): number => logits[id] as number;
  if (logits.some((x) => !(x < Number.POSITIVE_INFINITY))) return -1;
  const order = ids.sort((a, b) => at(b) - at(a) || a - b).filter((id) => at(id) > Number.NEGATIVE_INFINITY);
  const [best = -1] = order;
  if (best < 0 || f32(temperature) === 0) return best;
  const kth = topK > 0 ? at(order[Math.min(topK, order.length) - 1] as number) : Number.NEGATIVE_INFINITY;
  const weight = Float64Array.from(logits, (x) => (x < kth ? 0 : sampleWeight(x, at(best), f32(temperature))));
  const least = f32(topP) * weight.reduce((sum, w) => sum + w, 0);
  let mass = 0;
  const kept = order.filter((id) => {
    if (mass >= least) return false;
    mass += weight[id] as number;
    return true;
  });
  const target = roundedDown(uniform) * mass;
  let through = 0;
  const drawn = kept
    .sort((a, b) => a - b)
    .find((id) => {
      through += weight[id] as number;
      return target < through;
    });
  return drawn ?? -1;
}
