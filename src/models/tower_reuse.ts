// What a tower keeps of a frame of a film, and a block that computes some rows of a later frame and takes what it adds to the others from there.
// Source: STC-Cacher, arXiv 2512.00891; lern-to-write/STC@9b13ce0 `custom_siglip.py`.

import { SparseVilaError } from '../errors';
import { attention } from '../ops/attention';
import { linear } from '../ops/linear';
import { layerNorm } from '../ops/norm';
import { floats, int32 } from '../ops/run';
import { paddedLength, type VectorRecord } from '../ops/vectors';
import { VISION_VECTORS, type VisionBlockWeights } from '../ops/vision_block';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { TowerConfig } from './tower';
import type { BlockOutput, BlockWants, SegmentPlace, TowerBlock } from './tower_blocks';

/** The keys of a block in a frame and in its reference, the heads concatenated, f32 [rows, width]. */
export interface ReusedKeys {
  readonly layer: number;
  readonly layers: number;
  readonly rows: number;
  readonly width: number;
  readonly keys: Float32Array;
  readonly reference: Float32Array;
}

/** Which frames are computed whole, and which rows of the others. */
export interface ReuseRule {
  /** Every n-th frame, from the first, is computed whole and is the reference of those that follow. */
  readonly every: number;
  /** The rows that a block computes, ascending. */
  select(found: ReusedKeys): Int32Array;
}

/** What a block has computed of a reference: its keys, f32 [n, e], and what it has added to the rows, f32 [n, e]. */
interface Kept {
  readonly keys: Float32Array;
  readonly added: Tensor;
}

/** What a tower remembers while it reads the frames of one film. */
export interface FrameMemory {
  /** Begins the next frame. */
  next(): void;
  /** Runs block `layer` over the rows of this frame; does not dispose of x. */
  run(layer: number, block: TowerBlock, x: Tensor, place: SegmentPlace, want: BlockWants): BlockOutput;
  dispose(): void;
}

/**
 * An empty memory. The caller disposes of it.
 * @throws SparseVilaError `ERR_METHOD_UNSUPPORTED` for a tower whose blocks are not those of SigLIP
 */
export function frameMemory(family: string, config: TowerConfig, { every, select }: ReuseRule): FrameMemory {
  checkTower(family, config);
  const kept = new Map<number, Kept>();
  const vectors = new Map<number, BlockVectors>();
  let frame = -1;
  const vectorsOf = (layer: number, { vectors: record }: VisionBlockWeights): BlockVectors => {
    const known = vectors.get(layer) ?? sliced(record, config);
    vectors.set(layer, known);
    return known;
  };
  const runWhole: FrameMemory['run'] = (layer, { run }, x, place, want) => {
    const seen = run(x, place, { ...want, keys: want.features || want.keys });
    kept.get(layer)?.added.dispose();
    kept.delete(layer);
    if (seen.y !== undefined && seen.keys !== undefined)
      kept.set(layer, { keys: seen.keys, added: start().tf.sub(seen.y, x) });
    return seen;
  };
  return {
    next: () => void frame++,
    run(layer, block, x, place, want) {
      const [rows, width] = x.shape as [number, number];
      const reference = kept.get(layer);
      if (frame % every === 0 || reference?.added.shape[0] !== rows)
        return want.features && every > 1 ? runWhole(layer, block, x, place, want) : block.run(x, place, want);
      // Without output there is nothing to reuse.
      if (!want.features) return block.run(x, place, want);
      const own = vectorsOf(layer, block.weights);
      const qkv = start().tf.tidy(() => projected(x, block.weights, own));
      const k = columnsOf(qkv, 1, width);
      try {
        const keys = floats(k).slice();
        const chosen = select({ layer, layers: config.layers, rows, width, keys, reference: reference.keys });
        if (chosen.length === rows) return block.run(x, place, want);
        const y = start().tf.tidy(() => partial(x, { qkv, k }, chosen, { weights: block.weights, own, reference }));
        // The salience is that of all rows, as in a frame that is computed whole.
        const seen = want.salience ? block.run(x, place, { ...want, features: false }) : { y: undefined };
        return { ...seen, ...(want.keys && { keys }), y };
      } finally {
        qkv.dispose();
        k.dispose();
      }
    },
    dispose() {
      for (const { added } of kept.values()) added.dispose();
      for (const own of vectors.values()) for (const tensor of Object.values(own)) tensor.dispose();
      kept.clear();
      vectors.clear();
    },
  };
}

/** Why a tower cannot reuse what its blocks have computed; undefined if it can. */
export function whyNoReuse(config: TowerConfig): string | undefined {
  const { windowed, ropeTheta, classToken, norm, gated, qkvBias, qkNorm, layerScale } = config;
  const reasons: readonly (readonly [boolean, string])[] = [
    [windowed.length > 0, 'attends within windows'],
    [ropeTheta !== undefined, 'rotates its keys'],
    [classToken, 'has a class row'],
    [norm !== 'layer' || gated || !qkvBias || qkNorm || layerScale, 'has blocks of another kind'],
  ];
  return reasons.find(([is]) => is)?.[1];
}

function checkTower(family: string, config: TowerConfig): void {
  const reason = whyNoReuse(config);
  if (reason === undefined) return;
  throw new SparseVilaError(
    'ERR_METHOD_UNSUPPORTED',
    `Expected a SigLIP tower for a film, since the method reuses what blocks have computed of an earlier frame, received that of ${family}, which ${reason}.`,
  );
}

const USED = ['norm1', 'norm1Bias', 'qkvBias', 'outBias', 'norm2', 'norm2Bias', 'fc1Bias', 'fc2Bias', 'eps'] as const;

/** The vectors of a block, each a tensor of its own. */
type BlockVectors = Readonly<Record<(typeof USED)[number], Tensor>>;

function sliced({ tensor, present }: VectorRecord, { hiddenSize: e, intermediateSize: m }: TowerConfig): BlockVectors {
  const lengths: Readonly<Record<string, number>> = { qkvBias: 3 * e, fc1Bias: m, eps: 1 };
  let at = 0;
  const parts = VISION_VECTORS.flatMap((name, i) => {
    if ((present & (1 << i)) === 0) return [];
    const length = lengths[name] ?? e;
    const part = start().tf.slice(tensor, [at], [length]);
    at += paddedLength(length);
    return [[name, part] as const];
  });
  return Object.fromEntries(parts) as BlockVectors;
}

/** Queries, keys and values of all rows side by side, f32 [n, 3 e]. */
function projected(x: Tensor, { qkv }: VisionBlockWeights, own: BlockVectors): Tensor {
  return linear(layerNorm(x, own.norm1, own.norm1Bias, own.eps), qkv, own.qkvBias);
}

/** Columns i e .. (i + 1) e - 1. */
const columnsOf = (x: Tensor, i: number, e: number): Tensor =>
  start().tf.slice(x, [0, i * e], [x.shape[0] as number, e]);

interface PartialBlock {
  readonly weights: VisionBlockWeights;
  readonly own: BlockVectors;
  readonly reference: Kept;
}

/** The output of a block, f32 [n, e], which computes only the chosen rows. Call in a `tidy`. `k`: the keys within qkv. */
function partial(
  x: Tensor,
  { qkv, k }: { readonly qkv: Tensor; readonly k: Tensor },
  chosen: Int32Array,
  { weights, own, reference }: PartialBlock,
): Tensor {
  const { tf } = start();
  const [n, e] = x.shape as [number, number];
  const reused = tf.add(x, reference.added);
  if (chosen.length === 0) return reused;
  const rows = int32(chosen);
  const heads = (part: Tensor): Tensor => tf.reshape(part, [-1, weights.heads, e / weights.heads]);
  const q = columnsOf(tf.gather(qkv, rows), 0, e);
  const { out } = attention(heads(q), heads(k), heads(columnsOf(qkv, 2, e)));
  const context = tf.reshape(out, [chosen.length, e]);
  const h = tf.add(tf.gather(x, rows), linear(context, weights.out, own.outBias));
  const hidden = linear(layerNorm(h, own.norm2, own.norm2Bias, own.eps), weights.fc1, own.fc1Bias, weights.activation);
  const y = tf.add(h, linear(hidden, weights.fc2, own.fc2Bias));
  const from = Int32Array.from({ length: n }, (_, row) => row);
  for (const [i, row] of chosen.entries()) from[row] = n + i;
  return tf.gather(tf.concat([reused, y]), int32(from));
}
