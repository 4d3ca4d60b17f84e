// Decoder layers, tower blocks and projectors as compositions of small ops. The fused ops (`decoderLayer`, `visionBlock`) are a fast path of
// these; spec/ops/composition*.spec.ts holds them equal. Quantization runs the compositions, because every input of a linear layer can be seen.
// Source: transformers 5.24 `modeling_llama.py`, `modeling_qwen2.py`, `modeling_gemma3.py`, `modeling_siglip.py`, `modeling_clip.py`, `modeling_qwen2_5_vl.py`.

import type { Activation } from '../ops/linear';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { inPieces, type ProjectorStep } from './projector';
import type { TowerConfig } from './tower';

/** A linear layer [rows, cols] (outputs, inputs) by its canonical name in the block. */
export interface BlockLinear {
  readonly name: string;
  readonly rows: number;
  readonly cols: number;
  readonly bias: boolean;
}

/** An RMSNorm, a LayerNorm if it has a bias, or only a factor for each channel. */
export interface BlockNorm {
  readonly name: string;
  readonly width: number;
  readonly bias: boolean;
  readonly eps: number;
  readonly isScale?: boolean;
  /** What is added to the weight in the file. */
  readonly plus?: number | undefined;
}

/** An input that one or more linear layers share. */
export interface BlockSite {
  readonly name: string;
  readonly linears: readonly string[];
  /** Number of channels. */
  readonly width: number;
  /** Whether the site's module mixes rows, as attention does. */
  readonly mixesRows: boolean;
  /**
   * The layer in front of this input, if its weights can absorb a division of the input per channel. `rowOf[c]` is the row of that linear
   * layer that makes channel c; absent: row c.
   */
  readonly absorbedBy?: { readonly norm: string } | { readonly linear: string; readonly rowOf?: Int32Array };
}

/** The operations that a block uses: norms and linear layers with its own weights, and an attention. */
export interface BlockOps {
  /** f32 [t, width] -> f32 [t, width] */
  norm(name: string, x: Tensor): Tensor;
  /** f32 [t, cols] -> f32 [t, rows] */
  linear(name: string, x: Tensor, activation?: Activation): Tensor;
  /** A vector or other tensor of the block, in the order of its file. */
  values?(name: string): Float32Array;
  /** q f32 [t, heads, c], k and v f32 [t, kvHeads, c] before rotary embedding -> f32 [t, heads, c] */
  attend(q: Tensor, k: Tensor, v: Tensor): Tensor;
}

export interface Block {
  readonly linears: readonly BlockLinear[];
  /** Linear layers that quantization leaves in floating point. */
  readonly floats?: readonly BlockLinear[];
  /** What `BlockOps.values` gives. */
  readonly vectors?: readonly { readonly name: string; readonly shape: readonly number[] }[];
  readonly norms: readonly BlockNorm[];
  /** In the order in which a run reaches them. */
  readonly sites: readonly BlockSite[];
  /** Computes the block's output; `see` receives the input of each site and must not dispose of it. Call in a `tidy`, which frees the tensors. */
  run(ops: BlockOps, x: Tensor, see?: (site: string, input: Tensor) => void): Tensor;
  /** Computes the output of a site's module from its input: attention or MLP without the residual, or the projector. */
  finish(ops: BlockOps, site: string, input: Tensor): Tensor;
}

/** The parts of a pre-norm block besides its linear layers. */
interface PreNorm {
  readonly norms: readonly [BlockNorm, BlockNorm];
  /** Norms of queries and keys: of each head, or of all heads side by side. */
  readonly headNorms?: readonly [BlockNorm, BlockNorm] | undefined;
  /** Factors for the outputs of attention and MLP, or their norms. */
  readonly scales?: readonly [BlockNorm, BlockNorm] | undefined;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly sites: readonly [BlockSite, BlockSite, BlockSite, BlockSite];
  /** The hidden layer of the MLP. */
  readonly lift: (ops: BlockOps, x: Tensor) => Tensor;
  /** Whether each query is followed by a gate, by whose sigmoid what attention gives is multiplied. */
  readonly gated?: boolean | undefined;
  /** What takes the place of attention, and what it needs. */
  readonly mixer?: Mixer;
}

interface Mixer extends Pick<Block, 'floats' | 'vectors'> {
  readonly norms: readonly BlockNorm[];
  mix(ops: BlockOps, x: Tensor): Tensor;
}

/** h = x + scale1 attention(norm1 x); y = h + scale2 mlp(norm2 h). The four sites are the inputs of q, k and v; of o; of the MLP; of its last layer. */
export function preNormBlock(
  linears: readonly BlockLinear[],
  { norms, headNorms, scales, heads, kvHeads, headDim, sites, lift, gated = false, mixer }: PreNorm,
): Block {
  const [toQkv, toOut, toMlp, toDown] = sites;
  /** What the layer of a site adds to the rows. */
  const added = (ops: BlockOps, site: BlockSite, x: Tensor): Tensor => {
    const y = ops.linear(site.linears[0] as string, x);
    const scale = scales?.[site === toOut ? 0 : 1];
    return scale === undefined ? y : ops.norm(scale.name, y);
  };
  const attention = (ops: BlockOps, x: Tensor): Tensor => {
    const { tf } = start();
    const t = x.shape[0] as number;
    // One product for all three, or one for each.
    const [first, ...rest] = toQkv.linears.map((name) => ops.linear(name, x)) as [Tensor, ...Tensor[]];
    const part = (begin: number, count: number): Tensor => tf.slice(first, [0, begin * headDim], [t, count * headDim]);
    const parts =
      rest.length > 0 ? [first, ...rest] : [part(0, heads), part(heads, kvHeads), part(heads + kvHeads, kvHeads)];
    const both = gated ? tf.reshape(parts[0] as Tensor, [t, heads, 2 * headDim]) : undefined;
    const half = (from: number): Tensor => tf.slice(both as Tensor, [0, 0, from], [t, heads, headDim]);
    if (gated) parts[0] = half(0);
    const [q, k, v] = parts.map((rows, i) => {
      const norm = headNorms?.[i];
      const own = norm === undefined ? rows : ops.norm(norm.name, tf.reshape(rows, [-1, norm.width]));
      return tf.reshape(own, [t, -1, headDim]);
    }) as [Tensor, Tensor, Tensor];
    const out = ops.attend(q, k, v);
    return tf.reshape(gated ? tf.mul(out, tf.sigmoid(half(headDim))) : out, [t, heads * headDim]);
  };
  const { mix = attention, floats, vectors } = mixer ?? {};
  const finish: Readonly<Record<string, (ops: BlockOps, input: Tensor) => Tensor>> = {
    [toQkv.name]: (ops, input) => added(ops, toOut, mix(ops, input)),
    [toOut.name]: (ops, input) => added(ops, toOut, input),
    [toMlp.name]: (ops, input) => added(ops, toDown, lift(ops, input)),
    [toDown.name]: (ops, input) => added(ops, toDown, input),
  };
  return {
    linears,
    ...(floats && { floats }),
    ...(vectors && { vectors }),
    norms: [...norms, ...(headNorms ?? []), ...(scales ?? []), ...(mixer?.norms ?? [])],
    sites,
    run(ops, x, see = () => undefined) {
      const { tf } = start();
      const seen = ({ name }: BlockSite, input: Tensor): Tensor => {
        see(name, input);
        return input;
      };
      const normed = seen(toQkv, ops.norm(norms[0].name, x));
      const h = tf.add(x, added(ops, toOut, seen(toOut, mix(ops, normed))));
      const hidden = lift(ops, seen(toMlp, ops.norm(norms[1].name, h)));
      return tf.add(h, added(ops, toDown, seen(toDown, hidden)));
    },
    finish: (ops, site, input) => (finish[site] as (ops: BlockOps, input: Tensor) => Tensor)(ops, input),
  };
}

/** A block of a tower. Only a linear layer can absorb a division, so the output of an activation is not scaled. */
export function towerBlock(config: TowerConfig): Block {
  const { hiddenSize: e, intermediateSize: m, heads, norm: kind, normEps, activation, fusedQkv, gated } = config;
  const layer = (name: string, rows: number, cols: number, bias = true): BlockLinear => ({ name, rows, cols, bias });
  const norm = (name: string): BlockNorm => ({ name, width: e, bias: kind === 'layer', eps: normEps });
  const plain = (name: string, isScale: boolean): BlockNorm => ({ name, width: e, bias: false, eps: normEps, isScale });
  const qkv = fusedQkv
    ? [layer('self_attn.qkv', 3 * e, e, config.qkvBias)]
    : ['q', 'k', 'v'].map((name) => layer(`self_attn.${name}_proj`, e, e, config.qkvBias));
  const values = fusedQkv
    ? { linear: 'self_attn.qkv', rowOf: Int32Array.from({ length: e }, (_, i) => 2 * e + i) }
    : { linear: 'self_attn.v_proj' };
  const [out, gate] = ['self_attn.out_proj', 'mlp.gate_proj'] as const;
  const [fc1, fc2] = gated ? (['mlp.up_proj', 'mlp.down_proj'] as const) : (['mlp.fc1', 'mlp.fc2'] as const);
  const lifting = gated ? [gate, fc1] : [fc1];
  const linears = [...qkv, layer(out, e, e), ...lifting.map((name) => layer(name, m, e)), layer(fc2, e, m)];
  const fc2Site = { name: 'fc2', linears: [fc2], width: m, mixesRows: false };
  return preNormBlock(linears, {
    norms: [norm('layer_norm1'), norm('layer_norm2')],
    headNorms: config.qkNorm ? [plain('self_attn.q_norm', false), plain('self_attn.k_norm', false)] : undefined,
    scales: config.layerScale ? [plain('layer_scale1', true), plain('layer_scale2', true)] : undefined,
    ...{ heads, kvHeads: heads, headDim: e / heads },
    sites: [
      {
        ...{ name: 'qkv', linears: qkv.map(({ name }) => name), width: e, mixesRows: true },
        absorbedBy: { norm: 'layer_norm1' },
      },
      { name: 'out', linears: [out], width: e, mixesRows: false, absorbedBy: values },
      { name: 'fc1', linears: lifting, width: e, mixesRows: false, absorbedBy: { norm: 'layer_norm2' } },
      gated ? { ...fc2Site, absorbedBy: { linear: fc1 } } : fc2Site,
    ],
    lift: (ops, x) =>
      gated ? start().tf.mul(ops.linear(gate, x, activation), ops.linear(fc1, x)) : ops.linear(fc1, x, activation),
  });
}

/** A whole projector as one block; each site is named after its linear layer. */
export function projectorBlock(steps: readonly ProjectorStep[]): Block {
  const apply = (ops: BlockOps, step: ProjectorStep, x: Tensor): Tensor =>
    step.kind === 'norm'
      ? inPieces(x, step.width, (pieces) => ops.norm(step.name, pieces))
      : ops.linear(step.name, x, step.activation);
  return {
    // A transposed matrix is no linear layer of the checkpoint, so that no format of quantized weights has a name for it.
    linears: steps.flatMap((step) => (step.kind === 'linear' && !step.transposed ? [step] : [])),
    norms: steps.flatMap((step) => (step.kind === 'norm' ? [step] : [])),
    sites: steps.flatMap((step, i): BlockSite[] => {
      const before = steps[i - 1];
      if (step.kind === 'norm' || step.transposed) return [];
      const site = { name: step.name, linears: [step.name], width: step.cols, mixesRows: false };
      // A norm of pieces divides the channels of all pieces equally.
      const isWhole = before?.kind === 'norm' && before.width === step.cols;
      return [isWhole ? { ...site, absorbedBy: { norm: before.name } } : site];
    }),
    run: (ops, x, see = () => undefined) =>
      steps.reduce((input, step) => {
        if (step.kind === 'linear') see(step.name, input);
        return apply(ops, step, input);
      }, x),
    finish: (ops, site, input) =>
      steps.slice(steps.findIndex(({ name }) => name === site)).reduce((x, step) => apply(ops, step, x), input),
  };
}
