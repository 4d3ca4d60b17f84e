// What replacing a group's matrices does to the output of its inspected module, on calibration rows: the number that searches make
// small. Holds on the device what stays the same between measurements.
// Source: AWQ (arXiv 2306.00978, section 3.2); AutoAWQ `awq/models/{llama,qwen2}.py` for the inspected modules.

import { type DecoderConfig, ropeInverseFrequencies } from '../models/config';
import { linear } from '../ops/linear';
import { ropeTable } from '../ops/rope';
import { float32, floats } from '../ops/run';
import type { PackedMatrix } from '../ops/weights';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { Sequence } from './calibration';
import { attend, type LayerWeights, type Linear, packAttention, packMatrices, type Site } from './layer';
import type { LayerStatistics, Rows } from './statistics';

export interface Loss {
  /** NMSE of the module's output when the group's stacks are replaced. */
  measure(replaced: readonly PackedMatrix[]): number;
  dispose(): void;
}

interface InspectedGroup {
  readonly site: Site;
  readonly stacks: readonly (readonly Linear[])[];
}

interface LossContext {
  readonly config: DecoderConfig;
  readonly sequences: readonly Sequence[];
}

/** The inspected module is attention for q, k and v, the MLP for gate and up, and the layer itself for o and down. */
export function groupLoss(
  { site, stacks }: InspectedGroup,
  weights: LayerWeights,
  statistics: LayerStatistics,
  context: LossContext,
): Loss {
  if (site === 'qkv') return attentionLoss(weights, statistics, context);
  const { linears } = weights;
  const x = statistics.rows[site];
  const kept = {
    input: float32(x.values, [x.rows, x.width]),
    none: float32([], [0]),
    down: site === 'mlp' ? packMatrices([linears.down]) : undefined,
  };
  const run = (packed: readonly PackedMatrix[]): Tensor => {
    const [first, second] = packed as [PackedMatrix, PackedMatrix | undefined];
    if (second === undefined || kept.down === undefined) return linear(kept.input, first, kept.none);
    const { tf } = start();
    const [gate, up] = [linear(kept.input, first, kept.none), linear(kept.input, second, kept.none)];
    const lifted = tf.tidy(() => tf.mul(tf.mul(gate, tf.sigmoid(gate)), up));
    const out = linear(lifted, kept.down, kept.none);
    for (const tensor of [gate, up, lifted]) tensor.dispose();
    return out;
  };
  const originals = stacks.map((names) => packMatrices(names.map((name) => linears[name])));
  const target = taken(run(originals));
  for (const { tensor } of originals) tensor.dispose();
  const size = weightedSquares(target, undefined, x);
  return {
    measure: (replaced) => weightedSquares(taken(run(replaced)), target, x) / size,
    dispose: () => {
      for (const tensor of [kept.input, kept.none, kept.down?.tensor]) tensor?.dispose();
    },
  };
}

function attentionLoss(weights: LayerWeights, { whole }: LayerStatistics, { config, sequences }: LossContext): Loss {
  const packed = packAttention(weights);
  const frequencies = ropeInverseFrequencies(config);
  const inputs = whole.map(({ sequence, rows }) => ({
    n: float32(rows.values, [rows.rows, rows.width]),
    table: ropeTable(sequences[sequence]?.positions ?? [], frequencies),
  }));
  const evaluate = (qkv: PackedMatrix): Float32Array[] =>
    inputs.map(({ n, table }) => {
      const mixed = attend(n, table, { ...packed, qkv }, config);
      const out = taken(linear(mixed, packed.o, packed.oBias));
      mixed.dispose();
      return out;
    });
  const total = (outputs: readonly Float32Array[], against: readonly Float32Array[] | undefined): number =>
    whole.reduce((sum, { rows }, i) => sum + weightedSquares(outputs[i] as Float32Array, against?.[i], rows), 0);
  const targets = evaluate(packed.qkv);
  const size = total(targets, undefined);
  return {
    measure: ([qkv]) => total(evaluate(qkv as PackedMatrix), targets) / size,
    dispose: () => {
      packed.dispose();
      for (const { n, table } of inputs) {
        n.dispose();
        table.dispose();
      }
    },
  };
}

function taken(tensor: Tensor): Float32Array {
  const values = floats(tensor).slice();
  tensor.dispose();
  return values;
}

/** Sum over rows of weight times squared difference (or square, without `against`). */
function weightedSquares(values: Float32Array, against: Float32Array | undefined, { rows, weights }: Rows): number {
  const width = values.length / rows;
  const origin = against ?? new Float32Array(values.length);
  let total = 0;
  for (let row = 0; row < rows; row++) {
    let sum = 0;
    for (let i = row * width; i < (row + 1) * width; i++) {
      const difference = (values[i] as number) - (origin[i] as number);
      sum += difference * difference;
    }
    total += sum * (weights[row] as number);
  }
  return total;
}
