// The weights of a decoder layer of each kind, and how the layers of a model differ. Source: transformers 5.24 `modeling_llama.py`,
// `modeling_qwen2.py`, `modeling_qwen3.py`, `modeling_qwen3_5.py`, `modeling_gemma3.py`.

import {
  DECODER_VECTORS,
  type DecoderLayerSettings,
  type DecoderLayerWeights,
  decoderLayerOptions,
} from '../ops/decoder_layer';
import { type DeltaSizes, deltaWidth } from '../ops/delta';
import { type DecoderConfig, isStateLayer, windowOf } from './config';
import type { VectorSource, Weights } from './weights';

/** The weights of layer i, by canonical names. */
export function layerWeights(config: DecoderConfig, weights: Weights, i: number): DecoderLayerWeights {
  const { hiddenSize: d, intermediateSize: m, rmsNormEps } = config;
  const at = `model.layers.${i}`;
  const plus = Number(config.normOffset ?? false);
  const norm = (name: string): VectorSource => [[`${at}.${name}_layernorm.weight`, d, plus]];
  const mixer = isStateLayer(config, i) ? stateMixer(config, weights, at) : attentionMixer(config, weights, at);
  const vectors: LayerVectors = {
    inputNorm: norm('input'),
    ...(config.postNorms
      ? {
          attentionNorm: norm('post_attention'),
          postNorm: norm('pre_feedforward'),
          mlpNorm: norm('post_feedforward'),
        }
      : { postNorm: norm('post_attention') }),
    eps: rmsNormEps,
    ...mixer.vectors,
  };
  const record = weights.record(DECODER_VECTORS.map((vector) => vectors[vector]));
  return {
    vectors: record.tensor,
    options: weights.integers(decoderLayerOptions(record.present, i, layerSettings(config, i))),
    ...mixer.matrices,
    gateUp: weights.matrix([`${at}.mlp.gate_proj.weight`, `${at}.mlp.up_proj.weight`], [m, m], d, { gated: true }),
    down: weights.matrix([`${at}.mlp.down_proj.weight`], [d], m),
  };
}

type LayerVectors = Partial<Record<(typeof DECODER_VECTORS)[number], VectorSource>>;

/** The vectors and matrices of what mixes a layer's rows. */
interface Mixer {
  readonly vectors: LayerVectors;
  readonly matrices: Pick<DecoderLayerWeights, 'qkv' | 'ba' | 'o'>;
}

function attentionMixer(config: DecoderConfig, weights: Weights, layer: string): Mixer {
  const { hiddenSize: d, heads, kvHeads, headDim, attentionBias, qkNorm, attentionGate = false } = config;
  const at = `${layer}.self_attn`;
  const [q, kv] = [heads * headDim, kvHeads * headDim];
  const qkv = ['q', 'k', 'v'].map((name) => `${at}.${name}_proj`);
  const widths = [attentionGate ? 2 * q : q, kv, kv] as const;
  const plus = Number(config.normOffset ?? false);
  const headNorm = (name: string): VectorSource => [[`${at}.${name}_norm.weight`, headDim, plus]];
  return {
    vectors: {
      ...(attentionBias.qkv && { qkvBias: qkv.map((name, part) => [`${name}.bias`, widths[part] as number] as const) }),
      ...(attentionBias.o && { oBias: [[`${at}.o_proj.bias`, d]] }),
      ...(qkNorm && { qNorm: headNorm('q'), kNorm: headNorm('k') }),
    },
    matrices: {
      qkv: weights.matrix(
        qkv.map((name) => `${name}.weight`),
        widths,
        d,
      ),
      o: weights.matrix([`${at}.o_proj.weight`], [d], q),
    },
  };
}

/** The gated delta rule's. Its norm has a plain weight, whatever the others have. */
function stateMixer({ hiddenSize: d, delta }: DecoderConfig, weights: Weights, layer: string): Mixer {
  const at = `${layer}.linear_attn`;
  const { valueHeads, valueWidth, taps } = delta as DeltaSizes;
  const [width, values] = [deltaWidth(delta as DeltaSizes), valueHeads * valueWidth];
  const proj = (...names: string[]): string[] => names.map((name) => `${at}.in_proj_${name}.weight`);
  return {
    vectors: {
      conv: [[`${at}.conv1d.weight`, [width, 1, taps]]],
      aLog: [[`${at}.A_log`, valueHeads]],
      dtBias: [[`${at}.dt_bias`, valueHeads]],
      deltaNorm: [[`${at}.norm.weight`, valueWidth]],
    },
    matrices: {
      qkv: weights.matrix(proj('qkv', 'z'), [width, values], d),
      ba: weights.matrix(proj('b', 'a'), [valueHeads, valueHeads], d),
      o: weights.matrix([`${at}.out_proj.weight`], [d], values),
    },
  };
}

/** What differs between the layers of a model, and from those of other models. */
function layerSettings(config: DecoderConfig, layer: number): DecoderLayerSettings {
  const { hiddenAct: activation, attentionScale: scale = 0, attentionSoftcap: softcap = 0, localRope } = config;
  if (isStateLayer(config, layer)) return { activation, delta: config.delta };
  const isLocal = localRope !== undefined && windowOf(config, layer) !== undefined;
  const { attentionGate: gated = false, rotaryDim, headDim } = config;
  return {
    activation,
    scale,
    softcap,
    table: Number(isLocal),
    gated,
    headWidth: rotaryDim === undefined ? 0 : headDim,
  };
}
