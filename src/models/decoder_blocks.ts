// Decoder layers as blocks (blocks.ts): the fused op `decoderLayer` is a fast path of these. Source: transformers 5.24 `modeling_llama.py`,
// `modeling_qwen2.py`, `modeling_qwen3_5.py`, `modeling_gemma3.py`.

import { allocState, type DeltaSizes, deltaRule, deltaWidth } from '../ops/delta';
import { float32 } from '../ops/run';
import { recordValues } from '../ops/vectors';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { type Block, type BlockLinear, type BlockNorm, type BlockOps, preNormBlock } from './blocks';
import { type DecoderConfig, isStateLayer } from './config';

/** A decoder layer of Llama, Mistral, Qwen or Gemma; the caller supplies the attention. */
export function decoderBlock(config: DecoderConfig, index = 0): Block {
  if (isStateLayer(config, index)) return stateBlock(config);
  const { hiddenSize: d, intermediateSize: m, heads, kvHeads, headDim, attentionBias, rmsNormEps } = config;
  const [queries, values] = [heads * headDim, kvHeads * headDim];
  const layer = (name: string, rows: number, cols: number, bias = false): BlockLinear => ({ name, rows, cols, bias });
  const plus = config.normOffset ? 1 : undefined;
  const norm = (name: string): BlockNorm => ({ name, width: d, bias: false, eps: rmsNormEps, plus });
  const beforeMlp = config.postNorms ? 'pre_feedforward_layernorm' : 'post_attention_layernorm';
  const attention = (name: string): string => `self_attn.${name}_proj`;
  const [gate, up, down] = ['mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj'] as const;
  const headNorm = (name: string): BlockNorm => ({ ...norm(`self_attn.${name}_norm`), width: headDim });
  // Query heads that share a value head read the same rows of v.
  const share = heads / kvHeads;
  const rowOf = Int32Array.from(
    { length: queries },
    (_, i) => Math.floor(i / headDim / share) * headDim + (i % headDim),
  );
  return preNormBlock(
    [
      layer(attention('q'), config.attentionGate ? 2 * queries : queries, d, attentionBias.qkv),
      ...['k', 'v'].map((name) => layer(attention(name), values, d, attentionBias.qkv)),
      layer(attention('o'), d, queries, attentionBias.o),
      ...[layer(gate, m, d), layer(up, m, d), layer(down, d, m)],
    ],
    {
      norms: [norm('input_layernorm'), norm(beforeMlp)],
      scales: config.postNorms ? [norm('post_attention_layernorm'), norm('post_feedforward_layernorm')] : undefined,
      headNorms: config.qkNorm ? [headNorm('q'), headNorm('k')] : undefined,
      ...{ heads, kvHeads, headDim, gated: config.attentionGate },
      sites: [
        {
          ...{ name: 'qkv', linears: ['q', 'k', 'v'].map(attention), width: d, mixesRows: true },
          absorbedBy: { norm: 'input_layernorm' },
        },
        {
          ...{ name: 'o', linears: [attention('o')], width: queries, mixesRows: false },
          absorbedBy: { linear: attention('v'), rowOf },
        },
        {
          ...{ name: 'mlp', linears: [gate, up], width: d, mixesRows: false },
          absorbedBy: { norm: beforeMlp },
        },
        { name: 'down', linears: [down], width: m, mixesRows: false, absorbedBy: { linear: up } },
      ],
      lift: (ops, x) => start().tf.mul(ops.linear(gate, x, config.hiddenAct), ops.linear(up, x)),
    },
  );
}

/** A decoder layer with the gated delta rule. The layers of b and a stay in floating point, so that the norm before them absorbs no scales. */
function stateBlock(config: DecoderConfig): Block {
  const { hiddenSize: d, intermediateSize: m, rmsNormEps: eps } = config;
  const delta = config.delta as DeltaSizes;
  const { valueHeads, valueWidth, taps } = delta;
  const [width, values] = [deltaWidth(delta), valueHeads * valueWidth];
  const own = (name: string): string => `linear_attn.${name}`;
  const layer = (name: string, rows: number, cols: number): BlockLinear => ({ name, rows, cols, bias: false });
  const norm = (name: string): BlockNorm => ({
    name,
    width: d,
    bias: false,
    eps,
    plus: config.normOffset ? 1 : undefined,
  });
  const [qkv, z, b, a, out] = ['in_proj_qkv', 'in_proj_z', 'in_proj_b', 'in_proj_a', 'out_proj'].map(own) as [
    ...[string, string, string, string, string],
  ];
  const [gate, up, down] = ['mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj'] as const;
  const vectors = [
    { name: own('conv1d.weight'), shape: [width, 1, taps] },
    ...['A_log', 'dt_bias'].map((name) => ({ name: own(name), shape: [valueHeads] })),
  ];
  const mix = (ops: BlockOps, x: Tensor): Tensor => {
    const { tf } = start();
    const t = x.shape[0] as number;
    const record = recordValues(vectors.map(({ name }) => ops.values?.(name))).values;
    const gates = tf.concat([ops.linear(b, x), ops.linear(a, x)], 1);
    const read = deltaRule(ops.linear(qkv, x), gates, allocState(delta), float32(record, [record.length]), delta);
    const heads = ops.norm(own('norm'), tf.reshape(read, [t * valueHeads, valueWidth]));
    return tf.mul(tf.reshape(heads, [t, values]), ops.linear(z, x, 'silu'));
  };
  return preNormBlock(
    [
      ...[layer(qkv, width, d), layer(z, values, d), layer(out, d, values)],
      ...[layer(gate, m, d), layer(up, m, d), layer(down, d, m)],
    ],
    {
      norms: [norm('input_layernorm'), norm('post_attention_layernorm')],
      ...{ heads: valueHeads, kvHeads: valueHeads, headDim: valueWidth },
      mixer: {
        ...{ mix, vectors, floats: [layer(b, valueHeads, d), layer(a, valueHeads, d)] },
        norms: [{ name: own('norm'), width: valueWidth, bias: false, eps }],
      },
      sites: [
        { name: 'qkv', linears: [qkv, z], width: d, mixesRows: true },
        { name: 'o', linears: [out], width: values, mixesRows: false },
        {
          ...{ name: 'mlp', linears: [gate, up], width: d, mixesRows: false },
          absorbedBy: { norm: 'post_attention_layernorm' },
        },
        { name: 'down', linears: [down], width: m, mixesRows: false, absorbedBy: { linear: up } },
      ],
      lift: (ops, x) => start().tf.mul(ops.linear(gate, x, config.hiddenAct), ops.linear(up, x)),
    },
  );
}
