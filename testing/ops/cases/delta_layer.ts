// Cases of `decoderLayer` with the gated delta rule in the place of attention, and its parts for specs that compose it.

import {
  DECODER_VECTORS,
  type DecoderLayerWeights,
  decoderLayer,
  decoderLayerOptions,
} from '../../../src/ops/decoder_layer';
import { allocState, copyState, type DeltaSizes, deltaWidth } from '../../../src/ops/delta';
import { float32, int32, noInt32 } from '../../../src/ops/run';
import { recordValues } from '../../../src/ops/vectors';
import type { Tensor } from '../../../src/runtime/tensor';
import { deltaLayerReference } from '../references/delta_layer';
import { compare, keeper, type OpCase, once, type PreparedCase, take } from './case';
import { aroundOne, noise } from './data';
import { weightTensors } from './decoder_layer';
import { type DeltaVectors, deltaVectors, namedSizes, ODD_DELTA } from './delta';
import { packer, type StoredType, storedBytes, storedValues, toleranceOf } from './stored';

export interface DeltaLayerSizes extends DeltaSizes {
  readonly t: number;
  /** Rows that the state has seen. */
  readonly before: number;
  readonly d: number;
  readonly ffn: number;
  readonly type: StoredType;
}

/** All inputs of a delta layer, as numbers; x has the rows that the state has seen before the others. */
export interface DeltaLayerData extends DeltaVectors {
  readonly x: Float32Array;
  readonly inputNorm: Float32Array;
  readonly postNorm: Float32Array;
  readonly deltaNorm: Float32Array;
  /** Rows as wide as `deltaWidth` gives, then those of z; b and a of the heads. */
  readonly qkv: Float32Array;
  readonly ba: Float32Array;
  readonly o: Float32Array;
  readonly gate: Float32Array;
  readonly up: Float32Array;
  readonly down: Float32Array;
}

export function deltaLayerData(s: DeltaLayerSizes): DeltaLayerData {
  const seed = `delta layer ${s.t} ${s.d} ${s.type} `;
  const values = s.valueHeads * s.valueWidth;
  const matrix = (name: string, n: number, k: number) => storedValues(seed + name, n, k, s.type);
  return {
    ...deltaVectors(seed, s),
    x: noise(`${seed}x`, (s.before + s.t) * s.d),
    inputNorm: aroundOne(`${seed}n1`, s.d),
    postNorm: aroundOne(`${seed}n2`, s.d),
    deltaNorm: aroundOne(`${seed}n3`, s.valueWidth),
    qkv: matrix('qkv', deltaWidth(s) + values, s.d),
    // Published 4-bit checkpoints leave these in float.
    ba: storedValues(`${seed}ba`, 2 * s.valueHeads, s.d, 'f32'),
    o: matrix('o', s.d, values),
    gate: matrix('gate', s.ffn, s.d),
    up: matrix('up', s.ffn, s.d),
    down: matrix('down', s.d, s.ffn),
  };
}

/** Packed weights of the layer `index`; the caller disposes of their tensors, which `weightTensors` lists. */
export function deltaLayerWeights(data: DeltaLayerData, s: DeltaLayerSizes, index = 0): DecoderLayerWeights {
  const matrix = (values: Float32Array, k: number) => packer([values], k, s.type)();
  const given: Partial<Record<(typeof DECODER_VECTORS)[number], ArrayLike<number>>> = { ...data, eps: [1e-6] };
  const { values, present } = recordValues(DECODER_VECTORS.map((name) => given[name]));
  return {
    vectors: float32(values, [values.length]),
    options: int32(decoderLayerOptions(present, index, { delta: s })),
    qkv: matrix(data.qkv, s.d),
    ba: packer([data.ba], s.d, 'f32')(),
    o: matrix(data.o, s.valueHeads * s.valueWidth),
    gateUp: packer([data.gate, data.up], s.d, s.type, { gated: true })(),
    down: matrix(data.down, s.ffn),
  };
}

function deltaLayerCase(s: DeltaLayerSizes): OpCase {
  return {
    op: 'decoderLayer',
    name: `delta ${s.t}x${s.d} ${namedSizes(s)} ffn ${s.ffn} after ${s.before}`,
    dtype: s.type,
    tolerance: toleranceOf(s.type),
    big: false,
    prepare: () => prepare(s),
  };
}

function prepare(s: DeltaLayerSizes): PreparedCase {
  const keep = keeper();
  const data = deltaLayerData(s);
  const weights = deltaLayerWeights(data, s);
  for (const tensor of weightTensors(weights)) keep.tensor(tensor);
  const tableOf = (t: number) => keep.tensor(float32(new Float32Array(2 * t), [2, t, 1]));
  const range = keep.tensor(int32([0, s.before, 0]));
  const call = (from: number, to: number, state: Tensor): Tensor => {
    const x = keep.tensor(float32(data.x.slice(from * s.d, to * s.d), [to - from, s.d]));
    const [y, columns] = decoderLayer(x, state, tableOf(to - from), noInt32(), range, weights);
    columns.dispose();
    return y;
  };
  const first = keep.tensor(allocState(s));
  if (s.before > 0) call(0, s.before, first).dispose();
  const run = (): Tensor[] => {
    const state = copyState(first);
    const y = call(s.before, s.before + s.t, state);
    state.dispose();
    return [y];
  };
  const reference = once(() => deltaLayerReference(data, s));
  return {
    run,
    check() {
      const [y = new Float32Array()] = take(run());
      return [compare('y', y, reference().subarray(s.before * s.d))];
    },
    bytes: storedBytes(s.type, 3 * s.ffn, s.d),
    flops: 2 * s.t * 3 * s.ffn * s.d,
    dispose: keep.dispose,
  };
}

export const SMALL_DELTA: DeltaLayerSizes = { ...ODD_DELTA, t: 9, before: 5, d: 131, ffn: 203, type: 'f32' };

export const DELTA_LAYER_CASES: readonly OpCase[] = [
  deltaLayerCase(SMALL_DELTA),
  deltaLayerCase({ ...SMALL_DELTA, t: 1 }),
  deltaLayerCase({ ...SMALL_DELTA, t: 40, before: 0, type: 'bf16' }),
  deltaLayerCase({ ...SMALL_DELTA, t: 2, type: 'int4' }),
];
