// The loss that searches minimize: the error in the output of a module on calibration rows when its matrices are replaced.
// Source: AWQ (arXiv 2306.00978, section 3.2).

import type { Block, BlockOps, BlockSite } from '../models/blocks';
import { float32, floats } from '../ops/run';
import type { PackedMatrix } from '../ops/weights';
import { start } from '../runtime/start';
import { type BlockWeights, floatOps } from './block_weights';
import type { Rows } from './statistics';

export interface Loss {
  /** NMSE of the module's output if the site's matrices are replaced, in their order. */
  measure(replaced: readonly PackedMatrix[]): number;
  dispose(): void;
}

/** The loss of a site on the held rows. Matrices that do not change between measurements are kept packed. */
export function siteLoss(
  block: Block,
  weights: BlockWeights,
  site: BlockSite,
  held: readonly Rows[],
  attend: (sequence: number) => BlockOps['attend'],
): Loss {
  const { tf } = start();
  const ops = floatOps(block, weights);
  const inputs = held.map(({ values, rows, width }) => float32(values, [rows, width]));
  const outputs = (): Float32Array[] =>
    inputs.map((input, i) => {
      const own = { ...ops, attend: attend(held[i]?.sequence ?? 0) };
      const output = tf.tidy(() => block.finish(own, site.name, input));
      const values = floats(output).slice();
      output.dispose();
      return values;
    });
  const total = (found: readonly Float32Array[], against?: readonly Float32Array[]): number =>
    held.reduce((sum, rows, i) => sum + weightedSquares(found[i] as Float32Array, against?.[i], rows), 0);
  const targets = outputs();
  const size = total(targets);
  return {
    measure(replaced) {
      for (const [i, name] of site.linears.entries()) ops.replaced.set(name, replaced[i] as PackedMatrix);
      return size === 0 ? 0 : total(outputs(), targets) / size;
    },
    dispose() {
      for (const input of inputs) input.dispose();
      ops.dispose();
    },
  };
}

/** Sum over rows of weight times squared difference (or square, without `against`). */
function weightedSquares(values: Float32Array, against: Float32Array | undefined, { rows, weights }: Rows): number {
  const width = values.length / rows;
  let total = 0;
  for (let row = 0; row < rows; row++) {
    let sum = 0;
    for (let i = row * width; i < (row + 1) * width; i++) {
      const difference = (values[i] as number) - (against?.[i] ?? 0);
      sum += difference * difference;
    }
    total += sum * (weights[row] as number);
  }
  return total;
}

/** Sum of squared differences to `targets` over the sum of their squares, over all parts together. */
export function outputError(outputs: readonly Float32Array[], targets: readonly Float32Array[]): number {
  let [error, size] = [0, 0];
  for (const [part, target] of targets.entries()) {
    const output = outputs[part] ?? new Float32Array();
    for (let i = 0; i < target.length; i++) {
      const value = target[i] as number;
      error += (value - (output[i] as number)) ** 2;
      size += value ** 2;
    }
  }
  return size === 0 ? 0 : error / size;
}
