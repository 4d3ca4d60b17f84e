// Typed reading of Hugging Face config files, and the decoder config that all families share. Knows no weights and no tensors. A key that
// is absent or null takes the default of the transformers class, because published files leave out values that equal the default.
// Source: transformers 5.18 and 4.57, `configuration_{llama,mistral,qwen2,siglip}.py`, `modeling_rope_utils.py`.
import { SparseVilaError } from '../errors';
import { type ConfigReader, configReader, type Json } from '../json';
import type { DeltaSizes } from '../ops/delta';
import { DECODER_DEFAULTS, type DecoderDefaults, type DecoderType } from './decoder_defaults';
import { deltaSettings } from './delta_config';
import { gemmaSettings, rejectBidirectional, ropeOf } from './gemma_config';
import { parseRope, type RopeScaling } from './rope_config';

/** How a layer mixes rows, by Hugging Face's name. A `linear_attention` layer keeps a state in the place of keys and values. */
export type LayerType = 'full_attention' | 'sliding_attention' | 'linear_attention';

export interface DecoderConfig {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vocabSize: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
  /** Numbers of a head that are rotated, the first ones; absent: all. */
  readonly rotaryDim?: number;
  /** uint8 [rotaryDim / 2]: the axis of a position (time, row, column) that rotates each frequency. Absent: positions have one axis. */
  readonly ropeAxes?: Uint8Array;
  readonly rmsNormEps: number;
  readonly maxPositions: number;
  /** Which attention projections have a bias: q, k and v together, and o. */
  readonly attentionBias: { readonly qkv: boolean; readonly o: boolean };
  /** Whether each head's queries and keys have an RMSNorm before rotary embedding. Default false. */
  readonly qkNorm?: boolean;
  /** `tie_word_embeddings`. A checkpoint with `lm_head.weight` uses that tensor regardless; a checkpoint without it needs true. */
  readonly tieWordEmbeddings: boolean;
  readonly hiddenAct: 'silu' | 'gelu_pytorch_tanh';
  /** The type of each layer; absent: `full_attention` of all. */
  readonly layerTypes?: readonly LayerType[];
  /** Heads of `linear_attention` layers. */
  readonly delta?: DeltaSizes;
  /** Whether q_proj gives each head a query and a gate, by whose sigmoid what attention gives is multiplied. */
  readonly attentionGate?: boolean;
  /** Number of positions, up to its own, of the rows that a row of a `sliding_attention` layer attends. */
  readonly slidingWindow?: number;
  /** The rotary embedding of `sliding_attention` layers; absent: that of the others. */
  readonly localRope?: Pick<DecoderConfig, 'ropeTheta' | 'ropeScaling'>;
  /**
   * Which rows also attend rows behind them: those of a run of visual rows each other, inside the layer's window (`media`), or all of a turn's
   * prompt each other, whatever the window (`prompt`). Absent: none.
   */
  readonly bidirectional?: 'media' | 'prompt';
  /** The position of the first row, in rotary embedding; absent: 0. */
  readonly firstPosition?: number;
  /** Whether norms multiply by 1 + weight. */
  readonly normOffset?: boolean;
  /** Whether the outputs of attention and MLP have norms of their own, before they are added. */
  readonly postNorms?: boolean;
  /** Factor of the rows of the embedding table; it is rounded to the table's data type. */
  readonly embedScale?: number;
  /** Factor of scores; absent: headDim ** -0.5. */
  readonly attentionScale?: number;
  /** Scores s become softcap tanh(s / softcap); so do the logits with `finalSoftcap`. */
  readonly attentionSoftcap?: number;
  readonly finalSoftcap?: number;
}

/** The window of a layer, in positions; undefined: it attends everything. */
export function windowOf({ layerTypes, slidingWindow }: DecoderConfig, layer: number): number | undefined {
  return layerTypes?.[layer] === 'sliding_attention' ? slidingWindow : undefined;
}

/** Whether a layer keeps a state, and attends nothing. */
export const isStateLayer = ({ layerTypes }: Pick<DecoderConfig, 'layerTypes'>, layer: number): boolean =>
  layerTypes?.[layer] === 'linear_attention';

/** Whether some layers keep states. */
export const hasStates = ({ layerTypes = [] }: Pick<DecoderConfig, 'layerTypes'>): boolean =>
  layerTypes.includes('linear_attention');

/** Whether a layer attends all rows before its own: methods retrieve, drop and remove rows by these layers. */
export const attendsAll = ({ layerTypes }: Pick<DecoderConfig, 'layerTypes'>, layer: number): boolean =>
  (layerTypes?.[layer] ?? 'full_attention') === 'full_attention';

/** Whether any layer has a window. */
export const hasWindows = ({ layerTypes = [] }: Pick<DecoderConfig, 'layerTypes'>): boolean =>
  layerTypes.includes('sliding_attention');

/** The outputs of a product are counted in int32. */
const MAX_WIDTH = 2 ** 31 - 1;
/** Bounds far above any published model, so that a hostile config is refused before anything of its size is made. */
export const MOST_LAYERS = 1024;
export const MOST_FEATURES = 2 ** 20;

const DECODER_TYPES = Object.keys(DECODER_DEFAULTS) as DecoderType[];

/**
 * The decoder of a `llama`, `mistral`, `qwen2`, `qwen3`, `qwen2_vl`, `qwen2_5_vl`, `qwen3_vl_text`, `qwen3_5_text`, `gemma`, `gemma2` or `gemma3_text` config, in the
 * form of transformers 4 (`rope_theta`, `rope_scaling`) or 5 (`rope_parameters`). Only Gemma's have windows.
 * @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` for another `model_type` and for settings that are not supported,
 *   `ERR_CONFIG_INVALID` for wrong values.
 */
export function parseDecoderConfig(json: Json, file: string): DecoderConfig {
  const config = configReader(json, file);
  const type = decoderType(config);
  const defaults: DecoderDefaults = DECODER_DEFAULTS[type];
  const hiddenSize = config.size('hidden_size', defaults.hidden, MOST_FEATURES);
  const heads = config.size('num_attention_heads', defaults.heads);
  // null in the file means "as many as query heads"; only an absent key takes the class default.
  const kvHeads = config.size(
    'num_key_value_heads',
    (json.num_key_value_heads === null ? null : defaults.kvHeads) ?? heads,
  );
  if (heads % kvHeads !== 0) throw config.wrong('num_key_value_heads', `a divisor of num_attention_heads (${heads})`);
  if (!config.has('head_dim') && defaults.headDim === undefined && hiddenSize % heads !== 0) {
    throw config.wrong('num_attention_heads', `a divisor of hidden_size (${hiddenSize})`);
  }
  const headDim = config.size('head_dim', defaults.headDim ?? hiddenSize / heads);
  if (heads * headDim > MAX_WIDTH)
    throw config.wrong('num_attention_heads', `at most ${MAX_WIDTH} outputs of all heads`);
  if (headDim % 2 !== 0) throw config.wrong('head_dim', 'an even head width, as rotary embedding needs');
  const maxPositions = config.size('max_position_embeddings', defaults.maxPositions);
  const layers = config.size('num_hidden_layers', defaults.layers, MOST_LAYERS);
  rejectUnsupported(config, type, { headDim, layers, maxPositions });
  const { qkNorm = false, gemma, isHybrid = false } = defaults;
  const bias = (type === 'llama' || qkNorm || gemma !== undefined) && config.boolean('attention_bias', false);
  const rope = { ...defaults, headDim, maxPositions };
  return {
    hiddenSize,
    intermediateSize: config.size('intermediate_size', defaults.intermediate),
    layers,
    heads,
    kvHeads,
    headDim,
    vocabSize: config.size('vocab_size', defaults.vocab),
    ...parseRope(gemma === undefined ? config : ropeOf(config, gemma, 'full_attention'), rope),
    rmsNormEps: config.float('rms_norm_eps', defaults.eps),
    maxPositions,
    attentionBias: { qkv: defaults.qkvBias || bias, o: bias },
    ...(qkNorm && { qkNorm }),
    tieWordEmbeddings: config.boolean('tie_word_embeddings', defaults.tied ?? false),
    ...(gemma === undefined
      ? { hiddenAct: activation(config, { silu: 'silu', swish: 'silu' }, 'silu') }
      : gemmaSettings(config, gemma, { layers, headDim, hiddenSize })),
    ...(isHybrid && deltaSettings(config, layers)),
    ...(gemma?.localTheta !== undefined && { localRope: parseRope(ropeOf(config, gemma, 'sliding_attention'), rope) }),
  };
}

/**
 * Inverse rotary frequencies θ^(−2i/c), float64 [rotaryDim / 2], c = rotaryDim, i = 0 … c/2 − 1, after the config's scaling (RoFormer, arXiv 2104.09864, eq. 15).
 * linear: divided by `factor`. dynamic: unchanged up to `maxPositions` tokens; beyond, θ·((f·L/max) − (f − 1))^(c/(c−2)) for `length` L tokens.
 * llama3: wavelengths above original/lowFreqFactor divided by `factor`, below original/highFreqFactor kept, blended in between.
 */
export function ropeInverseFrequencies(config: DecoderConfig, length = 0): Float64Array {
  const { headDim, rotaryDim: width = headDim, ropeScaling: scaling, maxPositions } = config;
  let theta = config.ropeTheta;
  if (scaling.type === 'dynamic' && length > maxPositions) {
    const stretch = (scaling.factor * length) / maxPositions - (scaling.factor - 1);
    theta *= stretch ** (width / (width - 2));
  }
  return Float64Array.from({ length: width / 2 }, (_, i) => {
    const frequency = theta ** ((-2 * i) / width);
    if (scaling.type === 'linear') return frequency / scaling.factor;
    if (scaling.type !== 'llama3') return frequency;
    const { factor, lowFreqFactor: low, highFreqFactor: high, originalMaxPositions } = scaling;
    const turns = (originalMaxPositions * frequency) / (2 * Math.PI);
    const keep = Math.min(1, Math.max(0, (turns - low) / (high - low)));
    return keep * frequency + ((1 - keep) * frequency) / factor;
  });
}

function decoderType(config: ConfigReader): DecoderType {
  const type = config.string('model_type');
  const known = DECODER_TYPES.find((name) => name === type);
  if (known === undefined) throw unsupported(config, DECODER_TYPES);
  return known;
}

function unsupported(config: ConfigReader, supported: readonly string[]): SparseVilaError {
  const { message } = config.wrong('model_type', `one of ${supported.join(', ')}`);
  return new SparseVilaError('ERR_CONFIG_UNSUPPORTED', message);
}

/** `hidden_act` as one of the supported names. @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` */
export function activation<T extends string>(config: ConfigReader, known: Readonly<Record<string, T>>, fallback: T): T {
  const name = config.string('hidden_act', fallback);
  const found = Object.hasOwn(known, name) ? known[name] : undefined;
  if (found === undefined) throw config.unsupported('hidden_act', `one of ${Object.keys(known).join(', ')}`);
  return found;
}

interface DecoderFacts {
  readonly headDim: number;
  readonly layers: number;
  readonly maxPositions: number;
}

/** Switches that change the computation and are not supported; they are refused, because ignoring them would give wrong results. */
function rejectUnsupported(config: ConfigReader, type: DecoderType, facts: DecoderFacts): void {
  if (type === 'llama' && config.boolean('mlp_bias', false)) throw config.unsupported('mlp_bias', 'false');
  for (const key of ['use_mrope', 'use_qk_norm', 'qk_layernorm'])
    if (config.boolean(key, false)) throw config.unsupported(key, 'false');
  const { gemma, isHybrid = false }: DecoderDefaults = DECODER_DEFAULTS[type];
  if (gemma !== undefined) rejectBidirectional(config);
  for (const [key, neutral] of neutralValues(facts, gemma?.postNorms ?? false))
    if (config.has(key) && config.json[key] !== neutral)
      throw config.unsupported(key, neutral === null ? 'null' : `${neutral}`);
  if (!gemma?.postNorms && !isHybrid) rejectWindows(config, type, facts);
}

/** Of scores and logits, which Gemma has from its second version on. */
const SCORES = ['attn_logit_softcapping', 'final_logit_softcapping', 'query_pre_attn_scalar'];

/** Scales and caps of other architectures, each with the value that has no effect. */
const neutralValues = (
  { headDim }: DecoderFacts,
  isGemma2: boolean,
): readonly (readonly [key: string, value: number | null])[] => [
  ...(isGemma2 ? [] : SCORES.map((key) => [key, key === 'query_pre_attn_scalar' ? headDim : null] as const)),
  ['clip_qkv', null],
  ['embedding_multiplier', 1],
  ['residual_multiplier', 1],
  ['logits_scaling', 1],
];

/** Requires full attention: a sliding window is refused if it is shorter than the longest sequence. */
function rejectWindows(config: ConfigReader, type: DecoderType, { layers, maxPositions }: DecoderFacts): void {
  const kinds: unknown = config.json.layer_types ?? [];
  if (!Array.isArray(kinds) || kinds.some((kind) => kind !== 'full_attention'))
    throw config.unsupported('layer_types', 'full_attention of every layer');
  const isShort = (fallback: number | undefined): boolean =>
    (config.has('sliding_window') || fallback !== undefined) && config.size('sliding_window', fallback) < maxPositions;
  const { windowsFrom }: DecoderDefaults = DECODER_DEFAULTS[type];
  if (windowsFrom !== undefined && config.boolean('use_sliding_window', false)) {
    // Only layers from max_window_layers on have the window.
    const full = config.has('max_window_layers') ? config.number('max_window_layers') : windowsFrom;
    if (full < layers && isShort(4096)) throw config.unsupported('use_sliding_window', 'false');
  }
  if (type !== 'mistral' || config.json.sliding_window === null) return;
  if (isShort(4096)) {
    throw config.unsupported('sliding_window', 'null (full attention; an absent key means a window of 4096)');
  }
}
