// The blocks of a tower as calls of the fused op, with the position data of a segment. `blocks.ts` has the same blocks as compositions of small ops.

import { type Position, ropeTable } from '../ops/rope';
import { floats, int32 } from '../ops/run';
import { VISION_VECTORS, type VisionBlockWeights, visionBlock } from '../ops/vision_block';
import type { PackedMatrix } from '../ops/weights';
import type { Tensor } from '../runtime/tensor';
import type { Patches } from './media';
import type { TowerConfig } from './tower';
import type { VectorSource, Weights } from './weights';

/** The position data of a segment for attention. */
export interface SegmentPlace {
  /** cos and sin of the patches' rows and columns, f32 [2, n, c / 2]; undefined without rotary positions. */
  readonly table: Tensor | undefined;
  /** The span (from, to) of the window of each row, used by some layers, int32 [n, 2]; undefined without windows. */
  readonly spans: Tensor | undefined;
}

export interface BlockWants {
  /** Whether to compute the block's output. */
  readonly features: boolean;
  readonly salience: boolean;
  readonly keys: boolean;
}

/** The requested outputs of a block. */
export interface BlockOutput {
  /** f32 [n, e]; the caller disposes of it. */
  readonly y: Tensor | undefined;
  /** The attention that each row receives, f32 [n]; sums to 1. */
  readonly salience?: Float32Array;
  /** Keys before rotary embedding, the heads concatenated, f32 [n, e]. */
  readonly keys?: Float32Array;
}

/** Runs a block over x, f32 [n, e], the rows of one segment; does not dispose of x. */
export type RunBlock = (x: Tensor, place: SegmentPlace, want: BlockWants) => BlockOutput;

export interface TowerBlock {
  readonly run: RunBlock;
  readonly weights: VisionBlockWeights;
}

/** Builds block `i` from canonically named weights. */
export function readBlock(config: TowerConfig, weights: Weights, i: number): TowerBlock {
  const block = blockWeights(config, weights, i);
  const isWindowed = config.windowed.includes(i);
  const run: RunBlock = (x, { table, spans }, want) => {
    const columns = want.salience && (config.salience === 'class' ? 'first' : true);
    if (!want.features && !columns && !want.keys) return { y: undefined };
    const within = isWindowed ? spans : undefined;
    const [y, salience, keys] = visionBlock(x, block, { ...want, columns, table, spans: within });
    const found = {
      ...(want.salience && { salience: floats(salience).slice() }),
      ...(want.keys && { keys: floats(keys).slice() }),
    };
    for (const tensor of [salience, keys]) tensor.dispose();
    if (want.features) return { y, ...found };
    y.dispose();
    return { y: undefined, ...found };
  };
  return { run, weights: block };
}

/** The position data of the patches begin … end - 1. The caller disposes of its tensors. */
export function placeOf(
  { ropeTheta: theta, hiddenSize, heads, patchSize }: TowerConfig,
  { corners, windows }: Patches,
  begin: number,
  end: number,
): SegmentPlace {
  const spans = windows && int32(windowSpans(windows, begin, end), [end - begin, 2]);
  if (theta === undefined) return { table: undefined, spans };
  // Half of the frequencies rotate with the row, and the same ones with the column. Source: transformers 5.24 `VisionRotaryEmbedding`.
  const half = hiddenSize / heads / 2;
  const frequencies = Float64Array.from({ length: half }, (_, j) => theta ** ((-2 * (j % (half / 2))) / half));
  const axes = Uint8Array.from({ length: half }, (_, j) => (j < half / 2 ? 1 : 2));
  const at = (patch: number, which: number): number => (corners[3 * patch + which] as number) / patchSize;
  const positions = Array.from({ length: end - begin }, (_, i): Position => [0, at(begin + i, 1), at(begin + i, 2)]);
  return { table: ropeTable(positions, frequencies, axes), spans };
}

/** The span of the window that contains each of the rows begin … end - 1, counted from `begin`. */
function windowSpans(windows: Int32Array, begin: number, end: number): Int32Array {
  const spans = new Int32Array(2 * (end - begin));
  for (let window = 0; window + 1 < windows.length; window++) {
    const [from, to] = [windows[window] as number, windows[window + 1] as number];
    for (let row = Math.max(from, begin); row < Math.min(to, end); row++)
      spans.set([from - begin, to - begin], 2 * (row - begin));
  }
  return spans;
}

function blockWeights(config: TowerConfig, weights: Weights, i: number): VisionBlockWeights {
  const { hiddenSize: e, intermediateSize: m, heads, activation, norm, normEps, fusedQkv, gated } = config;
  const { qkvBias, qkNorm, layerScale } = config;
  const name = (module: string): string => `encoder.layers.${i}.${module}`;
  const matrix = (modules: readonly string[], rows: readonly number[], k: number, isGated = false): PackedMatrix =>
    weights.matrix(
      modules.map((module) => name(`${module}.weight`)),
      rows,
      k,
      { gated: isGated },
    );
  const biases = (modules: readonly string[], length: number): VectorSource =>
    modules.map((module) => [name(`${module}.bias`), length] as const);
  const qkv = fusedQkv ? ['self_attn.qkv'] : ['q_proj', 'k_proj', 'v_proj'].map((proj) => `self_attn.${proj}`);
  const lifting = gated ? ['mlp.gate_proj', 'mlp.up_proj'] : ['mlp.fc1'];
  const down = gated ? 'mlp.down_proj' : 'mlp.fc2';
  const width = (3 * e) / qkv.length;
  const weight = (module: string): VectorSource => [[name(`${module}.weight`), e]];
  const bias = (module: string): VectorSource | undefined => (norm === 'layer' ? biases([module], e) : undefined);
  const vectors: Partial<Record<(typeof VISION_VECTORS)[number], VectorSource | undefined>> = {
    ...{ norm1: weight('layer_norm1'), norm1Bias: bias('layer_norm1') },
    ...(qkvBias && { qkvBias: biases(qkv, width) }),
    ...(qkNorm && { qNorm: weight('self_attn.q_norm'), kNorm: weight('self_attn.k_norm') }),
    ...(layerScale && { scale1: weight('layer_scale1'), scale2: weight('layer_scale2') }),
    ...{ outBias: biases(['self_attn.out_proj'], e), norm2: weight('layer_norm2'), norm2Bias: bias('layer_norm2') },
    ...{ fc1Bias: biases(lifting, m), fc2Bias: biases([down], e), eps: normEps },
  };
  return {
    vectors: weights.record(VISION_VECTORS.map((vector) => vectors[vector])),
    qkv: matrix(
      qkv,
      qkv.map(() => width),
      e,
    ),
    out: matrix(['self_attn.out_proj'], [e], e),
    fc1: matrix(
      lifting,
      lifting.map(() => m),
      e,
      gated,
    ),
    fc2: matrix([down], [e], m),
    heads,
    activation,
  };
}
