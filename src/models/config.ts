// Typed reading of Hugging Face config files, and the decoder config that all families share. Knows no weights and no tensors. A key that
// is absent or null takes the default of the transformers class, because published files leave out values that equal the default.
// Source: transformers 5.18 and 4.57, `configuration_{llama,mistral,qwen2,siglip}.py`, `modeling_rope_utils.py`.
import { SparseVilaError } from '../errors';
import { type ConfigReader, configReader, type Json } from '../json';
import { parseRope, type RopeScaling, type RopeSections } from './rope_config';

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
  /** uint8 [headDim / 2]: the axis of a position (time, row, column) that rotates each frequency. Absent: positions have one axis. */
  readonly ropeAxes?: Uint8Array;
  readonly rmsNormEps: number;
  readonly maxPositions: number;
  /** Which attention projections have a bias: q, k and v together, and o. */
  readonly attentionBias: { readonly qkv: boolean; readonly o: boolean };
  /** Whether each head's queries and keys have an RMSNorm before rotary embedding. Default false. */
  readonly qkNorm?: boolean;
  /** `tie_word_embeddings`. A checkpoint with `lm_head.weight` uses that tensor regardless; a checkpoint without it needs true. */
  readonly tieWordEmbeddings: boolean;
  readonly hiddenAct: 'silu';
}

interface DecoderDefaults {
  readonly hidden: number;
  readonly intermediate: number;
  readonly layers: number;
  readonly heads: number;
  /** null: as many as query heads. */
  readonly kvHeads: number | null;
  readonly vocab: number;
  readonly maxPositions: number;
  readonly theta: number;
  readonly eps: number;
  /** Width of a head; absent: hidden / heads. */
  readonly headDim?: number;
  /** Whether q, k and v always have a bias. */
  readonly qkvBias: boolean;
  /** Whether queries and keys have a norm. */
  readonly qkNorm?: boolean;
  /** First layer that may have a window, for classes with `use_sliding_window`. */
  readonly windowsFrom?: number;
  /** Whether positions have three axes, whose shares of the frequencies `mrope_section` gives. */
  readonly sections: RopeSections;
}

const LLAMA: DecoderDefaults = {
  ...{ hidden: 4096, intermediate: 11008, layers: 32, heads: 32, kvHeads: null, vocab: 32000, maxPositions: 2048 },
  ...{ theta: 1e4, eps: 1e-6, qkvBias: false, sections: false },
};
const QWEN2: DecoderDefaults = {
  ...LLAMA,
  ...{ intermediate: 22016, kvHeads: 32, vocab: 151936, maxPositions: 32768, qkvBias: true, windowsFrom: 28 },
};
const QWEN2_VL: DecoderDefaults = {
  ...{ hidden: 8192, intermediate: 29568, layers: 80, heads: 64, kvHeads: 8, vocab: 152064, maxPositions: 32768 },
  ...{ theta: 1e6, eps: 1e-5, qkvBias: true, windowsFrom: 80, sections: 'in order' },
};

const QWEN3: DecoderDefaults = { ...QWEN2, qkvBias: false, headDim: 128, qkNorm: true };
const QWEN3_VL: DecoderDefaults = { ...QWEN3, maxPositions: 128000, theta: 5e5, sections: 'interleaved' };

/** Class defaults per `model_type`. Published Qwen files have the decoder's fields at the root, under the whole model's type. */
const DECODER_DEFAULTS = {
  llama: LLAMA,
  mistral: { ...LLAMA, intermediate: 14336, kvHeads: 8, maxPositions: 131072 },
  qwen2: QWEN2,
  ...{ qwen2_vl: QWEN2_VL, qwen2_vl_text: QWEN2_VL, qwen2_5_vl: QWEN2_VL, qwen2_5_vl_text: QWEN2_VL },
  ...{ qwen3: QWEN3, qwen3_vl_text: QWEN3_VL },
} as const satisfies Readonly<Record<string, DecoderDefaults>>;

/** The outputs of a product are counted in int32. */
const MAX_WIDTH = 2 ** 31 - 1;
/** Bounds far above any published model, so that a hostile config is refused before anything of its size is made. */
export const MOST_LAYERS = 1024;
export const MOST_FEATURES = 2 ** 20;

type DecoderType = keyof typeof DECODER_DEFAULTS;
const DECODER_TYPES = Object.keys(DECODER_DEFAULTS) as DecoderType[];

/**
 * The decoder of a `llama`, `mistral`, `qwen2`, `qwen3`, `qwen2_vl`, `qwen2_5_vl` or `qwen3_vl_text` config (full attention only), in the form of
 * transformers 4 (`rope_theta`, `rope_scaling`) or 5 (`rope_parameters`).
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
  const { qkNorm = false } = defaults;
  const bias = (type === 'llama' || qkNorm) && config.boolean('attention_bias', false);
  return {
    hiddenSize,
    intermediateSize: config.size('intermediate_size', defaults.intermediate),
    layers,
    heads,
    kvHeads,
    headDim,
    vocabSize: config.size('vocab_size', defaults.vocab),
    ...parseRope(config, { ...defaults, headDim, maxPositions }),
    rmsNormEps: config.float('rms_norm_eps', defaults.eps),
    maxPositions,
    attentionBias: { qkv: defaults.qkvBias || bias, o: bias },
    ...(qkNorm && { qkNorm }),
    tieWordEmbeddings: config.boolean('tie_word_embeddings', false),
    hiddenAct: activation(config, { silu: 'silu', swish: 'silu' }, 'silu'),
  };
}

/**
 * Inverse rotary frequencies θ^(−2i/c), float64 [headDim / 2], i = 0 … c/2 − 1, after the config's scaling (RoFormer, arXiv 2104.09864, eq. 15).
 * linear: divided by `factor`. dynamic: unchanged up to `maxPositions` tokens; beyond, θ·((f·L/max) − (f − 1))^(c/(c−2)) for `length` L tokens.
 * llama3: wavelengths above original/lowFreqFactor divided by `factor`, below original/highFreqFactor kept, blended in between.
 */
export function ropeInverseFrequencies(config: DecoderConfig, length = 0): Float64Array {
  const { headDim, ropeScaling: scaling, maxPositions } = config;
  let theta = config.ropeTheta;
  if (scaling.type === 'dynamic' && length > maxPositions) {
    const stretch = (scaling.factor * length) / maxPositions - (scaling.factor - 1);
    theta *= stretch ** (headDim / (headDim - 2));
  }
  return Float64Array.from({ length: headDim / 2 }, (_, i) => {
    const frequency = theta ** ((-2 * i) / headDim);
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
  for (const [key, neutral] of neutralValues(facts))
    if (config.has(key) && config.json[key] !== neutral)
      throw config.unsupported(key, neutral === null ? 'null' : `${neutral}`);
  rejectWindows(config, type, facts);
}

/** Scales and caps of other architectures, each with the value that has no effect. */
const neutralValues = ({ headDim }: DecoderFacts): readonly (readonly [key: string, value: number | null])[] => [
  ['attn_logit_softcapping', null],
  ['final_logit_softcapping', null],
  ['clip_qkv', null],
  ['query_pre_attn_scalar', headDim],
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
