// The float weights of one block, read by their names, and the block's small ops with these weights. Knows no architecture.

import type { Block, BlockLinear, BlockOps } from '../models/blocks';
import { linear } from '../ops/linear';
import { layerNorm, rmsNorm } from '../ops/norm';
import type { Matrix } from '../ops/quantize';
import { float32 } from '../ops/run';
import { type PackedMatrix, packArrays } from '../ops/weights';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';

/** An RMSNorm has no bias. */
export interface Norm {
  /** The weight in the file is smaller by this number; absent: 0. */
  readonly plus?: number | undefined;
  readonly weight: Float32Array;
  readonly bias?: Float32Array | undefined;
}

/** A block's weights in f32, by their names in the block. */
export interface BlockWeights {
  readonly linears: Readonly<Record<string, Matrix>>;
  readonly biases: Readonly<Record<string, Float32Array>>;
  readonly norms: Readonly<Record<string, Norm>>;
  /** Linear layers that stay as they are, and other tensors. */
  readonly floats?: Readonly<Record<string, Matrix>>;
  readonly vectors?: Readonly<Record<string, Float32Array>>;
}

/** Reads a block; `floats` gives the tensor of a name in the block, which must have the shape. */
export function readBlock(
  { linears, norms, floats: others = [], vectors = [] }: Pick<Block, 'linears' | 'norms' | 'floats' | 'vectors'>,
  floats: (name: string, shape: readonly number[]) => Float32Array,
): BlockWeights {
  const matrix = ({ name, rows, cols }: BlockLinear) =>
    [name, { rows, cols, values: floats(`${name}.weight`, [rows, cols]) }] as const;
  const biased = linears.filter(({ bias }) => bias);
  return {
    linears: Object.fromEntries(linears.map(matrix)),
    floats: Object.fromEntries(others.map(matrix)),
    vectors: Object.fromEntries(vectors.map(({ name, shape }) => [name, floats(name, shape)])),
    biases: Object.fromEntries(biased.map(({ name, rows }) => [name, floats(`${name}.bias`, [rows])])),
    norms: Object.fromEntries(
      norms.map(({ name, width, bias, plus }) => {
        const stored = floats(`${name}.weight`, [width]);
        const weight = plus === undefined ? stored : stored.map((value) => value + plus);
        return [name, { weight, plus, bias: bias ? floats(`${name}.bias`, [width]) : undefined }];
      }),
    ),
  };
}

export interface FloatOps extends Pick<BlockOps, 'norm' | 'linear' | 'values'> {
  /** Matrices that replace the block's own, by the names of their layers. */
  readonly replaced: Map<string, PackedMatrix>;
  dispose(): void;
}

/** The ops of a float block, whose matrices are packed when they are first needed. */
export function floatOps({ norms }: Pick<Block, 'norms'>, weights: BlockWeights): FloatOps {
  const { tf } = start();
  const made = new Map<string, Tensor>();
  const kept = (name: string, make: () => Tensor): Tensor => {
    const tensor = made.get(name) ?? tf.keep(make());
    made.set(name, tensor);
    return tensor;
  };
  const vector = (name: string, values: ArrayLike<number> = []): Tensor =>
    kept(name, () => float32(Float32Array.from(values), [values.length]));
  const packed = new Map<string, PackedMatrix>();
  const replaced = new Map<string, PackedMatrix>();
  const matrix = (name: string): PackedMatrix => {
    const { values, cols } = { ...weights.linears, ...weights.floats }[name] as Matrix;
    const own = packed.get(name) ?? packArrays([values], cols);
    packed.set(name, own);
    kept(`${name}.weight`, () => own.tensor);
    return own;
  };
  const epsilons = new Map(norms.map(({ name, eps }) => [name, eps]));
  const scales = new Set(norms.flatMap(({ name, isScale }) => (isScale ? [name] : [])));
  return {
    replaced,
    norm(name, x) {
      const { weight, bias } = weights.norms[name] as Norm;
      const [w, eps] = [vector(`${name}.weight`, weight), vector(`${name}.eps`, [epsilons.get(name) ?? 0])];
      if (scales.has(name)) return tf.mul(x, w);
      return bias === undefined ? rmsNorm(x, w, eps) : layerNorm(x, w, vector(`${name}.bias`, bias), eps);
    },
    linear: (name, x, activation) =>
      linear(x, replaced.get(name) ?? matrix(name), vector(`${name}.bias`, weights.biases[name]), activation),
    values: (name) => weights.vectors?.[name] ?? new Float32Array(),
    dispose: () => {
      for (const tensor of made.values()) tensor.dispose();
    },
  };
}
