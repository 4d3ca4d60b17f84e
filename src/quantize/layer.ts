// One float decoder layer of Llama or Qwen2 in pieces, so that the inputs of its linear layers can be seen: the composition of
// small ops that `decoderLayer` fuses. Knows no KV cache and no quantisation.

import type { DecoderConfig } from '../models/config';
import { attention } from '../ops/attention';
import { linear } from '../ops/linear';
import { rmsNorm } from '../ops/norm';
import { rope } from '../ops/rope';
import { float32 } from '../ops/run';
import { type PackedMatrix, packArrays } from '../ops/weights';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { Matrix } from './round';
import type { Tensors } from './tensors';

export const LINEARS = ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] as const;
export type Linear = (typeof LINEARS)[number];

/** Hugging Face names, below `model.layers.N.`. */
export const LINEAR_NAMES: Readonly<Record<Linear, string>> = {
  q: 'self_attn.q_proj',
  k: 'self_attn.k_proj',
  v: 'self_attn.v_proj',
  o: 'self_attn.o_proj',
  gate: 'mlp.gate_proj',
  up: 'mlp.up_proj',
  down: 'mlp.down_proj',
};

/** The four inputs that linear layers share. */
export const SITES = ['qkv', 'o', 'mlp', 'down'] as const;
export type Site = (typeof SITES)[number];
export const SITE_OF: Readonly<Record<Linear, Site>> = {
  ...{ q: 'qkv', k: 'qkv', v: 'qkv' },
  ...{ o: 'o', gate: 'mlp', up: 'mlp', down: 'down' },
};

/** A layer's weights in f32. */
export interface LayerWeights {
  readonly inputNorm: Float32Array;
  readonly postNorm: Float32Array;
  readonly linears: Readonly<Record<Linear, Matrix>>;
  readonly biases: Readonly<Partial<Record<Linear, Float32Array>>>;
}

/** Outputs and inputs of each linear layer. */
export function linearShapes(config: DecoderConfig): Readonly<Record<Linear, readonly [rows: number, cols: number]>> {
  const { hiddenSize: d, intermediateSize: m } = config;
  const [q, kv] = [config.heads * config.headDim, config.kvHeads * config.headDim];
  return { q: [q, d], k: [kv, d], v: [kv, d], o: [d, q], gate: [m, d], up: [m, d], down: [d, m] };
}

/** Reads layer `i`. */
export function readLayer(tensors: Tensors, config: DecoderConfig, i: number): LayerWeights {
  const at = `model.layers.${i}`;
  const shapes = linearShapes(config);
  const biased: readonly Linear[] = [
    ...(config.attentionBias.qkv ? (['q', 'k', 'v'] as const) : []),
    ...(config.attentionBias.o ? (['o'] as const) : []),
  ];
  const matrix = (name: Linear): Matrix => tensors.matrix(`${at}.${LINEAR_NAMES[name]}.weight`, ...shapes[name]);
  return {
    inputNorm: tensors.floats(`${at}.input_layernorm.weight`, [config.hiddenSize]),
    postNorm: tensors.floats(`${at}.post_attention_layernorm.weight`, [config.hiddenSize]),
    linears: Object.fromEntries(LINEARS.map((name) => [name, matrix(name)])) as Record<Linear, Matrix>,
    biases: Object.fromEntries(
      biased.map((name) => [name, tensors.floats(`${at}.${LINEAR_NAMES[name]}.bias`, [shapes[name][0]])]),
    ),
  };
}

/** Matrices stacked by rows. */
export function packMatrices(matrices: readonly Matrix[]): PackedMatrix {
  const [first] = matrices;
  if (first === undefined) throw new Error('expected a matrix to pack');
  return packArrays(
    matrices.map(({ values }) => values),
    first.cols,
  );
}

function vector(parts: readonly Float32Array[]): Tensor {
  const values = parts.flatMap((part) => [...part]);
  return float32(values, [values.length]);
}

/** Self-attention without its norms, packed. */
export interface PackedAttention {
  readonly qkv: PackedMatrix;
  readonly qkvBias: Tensor;
  readonly o: PackedMatrix;
  readonly oBias: Tensor;
  dispose(): void;
}

export function packAttention({ linears, biases }: Pick<LayerWeights, 'linears' | 'biases'>): PackedAttention {
  const { q, k, v, o } = linears;
  const qkvBias = [q, k, v].map(
    ({ rows }, i) => biases[(['q', 'k', 'v'] as const)[i] ?? 'q'] ?? new Float32Array(rows),
  );
  const parts = {
    qkv: packMatrices([q, k, v]),
    qkvBias: vector(qkvBias),
    o: packMatrices([o]),
    oBias: vector([biases.o ?? new Float32Array()]),
  };
  return {
    ...parts,
    dispose: () => {
      for (const tensor of [parts.qkv.tensor, parts.qkvBias, parts.o.tensor, parts.oBias]) tensor.dispose();
    },
  };
}

/** Heads side by side before o_proj, f32 [t, heads c], from normed rows n, f32 [t, d]; table as `ropeTable`. */
export function attend(n: Tensor, table: Tensor, packed: PackedAttention, config: DecoderConfig): Tensor {
  const { heads, kvHeads, headDim } = config;
  const { tf } = start();
  return tf.tidy(() => {
    const t = n.shape[0] as number;
    const [q, kv] = [heads * headDim, kvHeads * headDim];
    const qkv = linear(n, packed.qkv, packed.qkvBias);
    const part = (from: number, count: number): Tensor =>
      tf.reshape(tf.slice(qkv, [0, from], [t, count * headDim]), [t, count, headDim]);
    const { out } = attention(rope(part(0, heads), table), rope(part(q, kvHeads), table), part(q + kv, kvHeads), {
      causal: true,
    });
    return tf.reshape(out, [t, q]);
  });
}

/** A whole float layer, packed once and run over many sequences. */
export interface FloatLayer {
  /** The layer's output, f32 [t, d]; `see` receives each site's input, not to be disposed of. */
  run(x: Tensor, table: Tensor, see?: (site: Site, input: Tensor) => void): Tensor;
  dispose(): void;
}

export function floatLayer(weights: LayerWeights, config: DecoderConfig): FloatLayer {
  const { tf } = start();
  const { gate, up, down } = weights.linears;
  const packed = {
    attention: packAttention(weights),
    gate: packMatrices([gate]),
    up: packMatrices([up]),
    down: packMatrices([down]),
  };
  const constants = {
    inputNorm: vector([weights.inputNorm]),
    postNorm: vector([weights.postNorm]),
    eps: float32([config.rmsNormEps], [1]),
    none: float32([], [0]),
  };
  return {
    run: (x, table, see) =>
      tf.tidy(() => {
        const n = rmsNorm(x, constants.inputNorm, constants.eps);
        see?.('qkv', n);
        const mixed = attend(n, table, packed.attention, config);
        see?.('o', mixed);
        const h = tf.add(x, linear(mixed, packed.attention.o, packed.attention.oBias));
        const m = rmsNorm(h, constants.postNorm, constants.eps);
        see?.('mlp', m);
        const lifted = tf.mul(linear(m, packed.gate, constants.none, 'silu'), linear(m, packed.up, constants.none));
        see?.('down', lifted);
        return tf.add(h, linear(lifted, packed.down, constants.none));
      }),
    dispose: () => {
      packed.attention.dispose();
      for (const { tensor } of [packed.gate, packed.up, packed.down]) tensor.dispose();
      for (const tensor of Object.values(constants)) tensor.dispose();
    },
  };
}
