// What the layers of a plan cost: weights and operations, from sizes alone.

import { isStateLayer } from '../../src/models/config';
import type { Plan } from '../../src/models/plan';

/** Weights of a decoder layer. */
export function layerSize(config: Plan['decoder'], layer: number): number {
  const { hiddenSize: d, intermediateSize: m, heads, kvHeads, headDim: c, delta, attentionGate } = config;
  const mlp = 3 * d * m;
  if (delta === undefined || !isStateLayer(config, layer))
    return d * c * (2 * heads + 2 * kvHeads + (attentionGate === true ? heads : 0)) + mlp;
  const { keyHeads, keyWidth, valueHeads, valueWidth } = delta;
  return d * (2 * keyHeads * keyWidth + 3 * valueHeads * valueWidth + 2 * valueHeads) + mlp;
}

/** Multiplications and additions of a tower, attention within each layer's windows or segments included. */
export function towerOperations(
  { tower: t }: Plan,
  { segments, windows }: { segments: Int32Array; windows?: Int32Array },
  n: number,
): number {
  const pairs = (borders: Int32Array): number =>
    borders.reduce((sum, border, i) => sum + (i === 0 ? 0 : (border - (borders[i - 1] ?? 0)) ** 2), 0);
  const e = t.hiddenSize;
  const products = n * (4 * e * e + (t.gated ? 3 : 2) * e * t.intermediateSize);
  const layers = Array.from({ length: t.depth }, (_, i) =>
    pairs(t.windowed.includes(i) && windows ? windows : segments),
  );
  const embedding = n * e * 3 * t.patchFrames * t.patchSize ** 2;
  return 2 * (embedding + layers.reduce((sum, of) => sum + products + 2 * of * e, 0));
}
