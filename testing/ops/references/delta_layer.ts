// The definition of a decoder layer with the gated delta rule, in double precision.

import { deltaWidth } from '../../../src/ops/delta';
import type { DeltaLayerData, DeltaLayerSizes } from '../cases/delta_layer';
import { deltaRuleReference } from './delta';
import { activationReference, gatedLinearReference, linearReference } from './linear';
import { rmsNormReference } from './norm';

const EPS = Math.fround(1e-6);

/** All rows of x, from the sequence's first on: [before + t, d]. */
export function deltaLayerReference(data: DeltaLayerData, s: DeltaLayerSizes): Float64Array {
  const { d, valueHeads, valueWidth, ffn } = s;
  const [width, values] = [deltaWidth(s), valueHeads * valueWidth];
  const normed = rmsNormReference(data.x, data.inputNorm, EPS);
  const mixed = linearReference(normed, data.qkv.subarray(0, width * d), d);
  const z = linearReference(normed, data.qkv.subarray(width * d), d);
  const read = deltaRuleReference(mixed, linearReference(normed, data.ba, d), data, s);
  const gated = rmsNormReference(read, data.deltaNorm, EPS).map(
    (value, i) => value * activationReference(z[i] as number, 'silu'),
  );
  const h = linearReference(gated, data.o, values).map((value, i) => value + (data.x[i] as number));
  const lifted = rmsNormReference(h, data.postNorm, EPS);
  const hidden = gatedLinearReference(lifted, { gate: data.gate, up: data.up }, d, 'silu');
  return linearReference(hidden, data.down, ffn).map((value, i) => value + (h[i] as number));
}
