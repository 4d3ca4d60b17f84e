// The blocks of a tower: the fused op for plain pre-norm blocks, and compositions of small ops (`blocks.ts`) for all others: RMSNorm, rotary
// positions by row and column, windows, gated MLPs. Both return salience and keys of their attention.

import { attention } from '../ops/attention';
import { linear } from '../ops/linear';
import { layerNorm, rmsNorm } from '../ops/norm';
import { type Position, rope, ropeTable } from '../ops/rope';
import { floats, int32 } from '../ops/run';
import { type VisionBlockWeights, visionBlock } from '../ops/vision_block';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { type BlockOps, towerBlock } from './blocks';
import type { Patches } from './media';
import type { TowerConfig } from './tower';
import type { Weights } from './weights';

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

/** Builds block `i` from canonically named weights. */
export function readBlock(config: TowerConfig, weights: Weights, i: number): RunBlock {
  const { norm, gated, fusedQkv, ropeTheta, windowed } = config;
  const isPlain = norm === 'layer' && !gated && !fusedQkv && ropeTheta === undefined && windowed.length === 0;
  return isPlain ? fusedBlock(config, weights, i) : composedBlock(config, weights, i);
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

function fusedBlock({ classToken, heads, ...config }: TowerConfig, weights: Weights, i: number): RunBlock {
  const block = fusedWeights({ classToken, heads, ...config }, weights, i);
  return (x, _, want) => {
    const found = lookInto(x, block, { keys: want.keys, classRow: want.salience && classToken, heads });
    const columns = want.salience && !classToken;
    if (!want.features && !columns) return { y: undefined, ...found };
    const [y, mean] = visionBlock(x, block, { features: want.features, columns });
    const salience = columns ? { salience: floats(mean).slice() } : {};
    mean.dispose();
    if (want.features) return { y, ...found, ...salience };
    y.dispose();
    return { y: undefined, ...found, ...salience };
  };
}

function fusedWeights(config: TowerConfig, weights: Weights, i: number): VisionBlockWeights {
  const { hiddenSize: e, intermediateSize: m, heads, activation, normEps } = config;
  const name = (module: string): string => `encoder.layers.${i}.${module}`;
  const matrix = (module: string, rows: number, k: number) => weights.matrix([name(`${module}.weight`)], [rows], k);
  const vector = (tensor: string, length: number): Tensor => weights.tensor(name(tensor), [length]);
  const qkv = ['q_proj', 'k_proj', 'v_proj'].map((projection) => `self_attn.${projection}`);
  return {
    norm1: vector('layer_norm1.weight', e),
    norm1Bias: vector('layer_norm1.bias', e),
    qkv: weights.matrix(
      qkv.map((module) => name(`${module}.weight`)),
      [e, e, e],
      e,
    ),
    qkvBias: weights.vectors(
      qkv.map((module) => name(`${module}.bias`)),
      [e, e, e],
    ),
    out: matrix('self_attn.out_proj', e, e),
    outBias: vector('self_attn.out_proj.bias', e),
    norm2: vector('layer_norm2.weight', e),
    norm2Bias: vector('layer_norm2.bias', e),
    fc1: matrix('mlp.fc1', m, e),
    fc1Bias: vector('mlp.fc1.bias', m),
    fc2: matrix('mlp.fc2', e, m),
    fc2Bias: vector('mlp.fc2.bias', e),
    eps: weights.constant([normEps]),
    heads,
    activation,
  };
}

/**
 * Outputs that the fused block does not have: the keys of the block that x, f32 [n, e], enters, f32 [n, e]; and the attention of its first
 * row, mean over heads, f32 [n]. They are computed as the block computes them.
 */
function lookInto(
  x: Tensor,
  { norm1, norm1Bias, qkv, qkvBias, eps }: VisionBlockWeights,
  want: { readonly keys: boolean; readonly classRow: boolean; readonly heads: number },
): { readonly keys?: Float32Array; readonly salience?: Float32Array } {
  if (!want.keys && !want.classRow) return {};
  const { tf } = start();
  const [n, e] = x.shape as [number, number];
  const found: { keys?: Float32Array; salience?: Float32Array } = {};
  tf.tidy(() => {
    const all = linear(layerNorm(x, norm1, norm1Bias, eps), qkv, qkvBias);
    const part = (i: number, rows: number): Tensor => tf.slice(all, [0, i * e], [rows, e]);
    if (want.keys) found.keys = floats(part(1, n)).slice();
    if (!want.classRow) return;
    const headsOf = (rows: Tensor): Tensor => tf.reshape(rows, [-1, want.heads, e / want.heads]);
    const [q, k, v] = [headsOf(part(0, 1)), headsOf(part(1, n)), headsOf(part(2, n))];
    found.salience = floats(attention(q, k, v, { columns: true }).columns).slice();
  });
  return found;
}

function composedBlock(config: TowerConfig, weights: Weights, i: number): RunBlock {
  const block = towerBlock(config);
  const ops = loadedOps(config, block, weights, `encoder.layers.${i}`);
  const isWindowed = config.windowed.includes(i);
  return (x, { table, spans }, want) => {
    const { tf } = start();
    const found: { salience?: Float32Array; keys?: Float32Array } = {};
    const y = tf.tidy(() => {
      const attend: BlockOps['attend'] = (q, k, v) => {
        if (want.keys) found.keys = floats(k).slice();
        const turned = (rows: Tensor): Tensor => (table === undefined ? rows : rope(rows, table));
        const options = { columns: want.salience, spans: isWindowed ? spans : undefined };
        const { out, columns } = attention(turned(q), turned(k), v, options);
        if (want.salience) found.salience = floats(columns).slice();
        return out;
      };
      return block.run({ ...ops, attend }, x);
    });
    if (want.features) return { y, ...found };
    y.dispose();
    return { y: undefined, ...found };
  };
}

/** The norms and linear layers of a block over its loaded weights. */
function loadedOps(
  { normEps }: TowerConfig,
  { linears, norms }: ReturnType<typeof towerBlock>,
  weights: Weights,
  at: string,
): Pick<BlockOps, 'norm' | 'linear'> {
  const none = weights.constant([]);
  const eps = weights.constant([normEps]);
  const layers = linears.map(({ name, rows, cols, bias }) => {
    const w = weights.matrix([`${at}.${name}.weight`], [rows], cols);
    return [name, { w, b: bias ? weights.tensor(`${at}.${name}.bias`, [rows]) : none }] as const;
  });
  const own = norms.map(({ name, width, bias }) => {
    const w = weights.tensor(`${at}.${name}.weight`, [width]);
    return [name, { w, b: bias ? weights.tensor(`${at}.${name}.bias`, [width]) : undefined }] as const;
  });
  const [byLayer, byNorm] = [new Map(layers), new Map(own)];
  const known = <T>(map: ReadonlyMap<string, T>, name: string): T => map.get(name) as T;
  return {
    norm(name, x) {
      const { w, b } = known(byNorm, name);
      return b === undefined ? rmsNorm(x, w, eps) : layerNorm(x, w, b, eps);
    },
    linear(name, x, activation) {
      const { w, b } = known(byLayer, name);
      return linear(x, w, b, activation);
    },
  };
}
