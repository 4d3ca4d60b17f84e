// The parts of the compositions that fused ops are compared with: linear layers by their names in the blocks of models/blocks.ts.

import type { BlockOps } from '../../src/models/blocks';
import { linear } from '../../src/ops/linear';
import { float32 } from '../../src/ops/run';
import { start } from '../../src/runtime/start';
import type { Tensor } from '../../src/runtime/tensor';
import type { Keeper } from '../../testing/ops/cases/case';
import { packer, type StoredType } from '../../testing/ops/cases/stored';

/** `body` in a tidy that keeps the outputs only. */
export function tidy(body: () => Tensor[]): Tensor[] {
  return start().tf.tidy(body);
}

/** The numbers of a linear layer. */
export interface Layer {
  readonly values: Float32Array;
  readonly k: number;
  readonly bias?: Float32Array;
}

/** The name of a projection of attention. */
export const attention = (name: string): string => `self_attn.${name}_proj`;

/** Splits a stacked layer into layers of `rows` outputs each. */
export function stacked(
  names: readonly string[],
  rows: readonly number[],
  { values, k, bias }: Layer,
): Record<string, Layer> {
  let at = 0;
  const parts = names.map((name, i) => {
    const [from, to] = [at, at + (rows[i] as number)];
    at = to;
    return [name, { values: values.subarray(from * k, to * k), k, bias: bias?.subarray(from, to) }];
  });
  return Object.fromEntries(parts);
}

/** Linear layers packed one by one. */
export function opsOf(
  keep: Keeper,
  layers: Readonly<Record<string, Layer>>,
  type: StoredType,
  roundActivations = false,
): Pick<BlockOps, 'linear'> {
  const packed = Object.entries(layers).map(([name, { values, k, bias = new Float32Array() }]) => {
    const w = keep.matrix(packer([values], k, type, { roundActivations })());
    return [name, { w, bias: keep.tensor(float32(bias, [bias.length])) }] as const;
  });
  const known = new Map(packed);
  return {
    linear: (name, x, activation) => {
      const { w, bias } = known.get(name) as NonNullable<ReturnType<typeof known.get>>;
      return linear(x, w, bias, activation);
    },
  };
}
