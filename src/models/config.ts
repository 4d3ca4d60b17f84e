// Typed reading of Hugging Face config files, and the decoder's, which every family shares.
// Knows no weights and no tensors. A key that is absent or null takes the default of the transformers class, because published
// files leave out whatever equals it.
// Source: transformers 5.18 and 4.57, `configuration_{llama,mistral,qwen2,siglip}.py`, `modeling_rope_utils.py`.
import { SparseVilaError } from '../errors';
import { type ConfigReader, configReader, type Json } from '../json';

export type RopeScaling =
  | { readonly type: 'default' }
  | { readonly type: 'linear'; readonly factor: number }
  | { readonly type: 'dynamic'; readonly factor: number }
  | {
      readonly type: 'llama3';
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPositions: number;
    };

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
  readonly rmsNormEps: number;
  readonly maxPositions: number;
  /** Which attention projections have a bias: q, k and v together, and o. */
  readonly attentionBias: { readonly qkv: boolean; readonly o: boolean };
  /** What the file says. A checkpoint that holds `lm_head.weight` uses it all the same; one that does not has to say true. */
  readonly tieWordEmbeddings: boolean;
  readonly hiddenAct: 'silu';
}

/** Class defaults per `model_type`; `kvHeads` null means as many as query heads. */
const DECODER_DEFAULTS = {
  llama: { intermediate: 11008, kvHeads: null, vocab: 32000, maxPositions: 2048 },
  mistral: { intermediate: 14336, kvHeads: 8, vocab: 32000, maxPositions: 131072 },
  qwen2: { intermediate: 22016, kvHeads: 32, vocab: 151936, maxPositions: 32768 },
} as const;

/** Outputs of a product are counted in int32. */
const MAX_WIDTH = 2 ** 31 - 1;

type DecoderType = keyof typeof DECODER_DEFAULTS;
const DECODER_TYPES = Object.keys(DECODER_DEFAULTS) as DecoderType[];

/**
 * The decoder of a `llama`, `mistral` (full attention only) or `qwen2` config: the T4 form (`rope_theta`, `rope_scaling`) and the
 * T5 form (`rope_parameters`).
 * @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` for another `model_type` and for settings that nothing here computes,
 *   `ERR_CONFIG_INVALID` for wrong values.
 */
export function parseDecoderConfig(json: Json, file: string): DecoderConfig {
  const config = configReader(json, file);
  const type = decoderType(config);
  const defaults = DECODER_DEFAULTS[type];
  const hiddenSize = config.size('hidden_size', 4096);
  const heads = config.size('num_attention_heads', 32);
  // null in the file means "as many as query heads"; only an absent key takes the class default.
  const kvHeads = config.size(
    'num_key_value_heads',
    (json.num_key_value_heads === null ? null : defaults.kvHeads) ?? heads,
  );
  if (heads % kvHeads !== 0) throw config.wrong('num_key_value_heads', `a divisor of num_attention_heads (${heads})`);
  if (!config.has('head_dim') && hiddenSize % heads !== 0) {
    throw config.wrong('num_attention_heads', `a divisor of hidden_size (${hiddenSize})`);
  }
  const headDim = config.size('head_dim', hiddenSize / heads);
  if (heads * headDim > MAX_WIDTH)
    throw config.wrong('num_attention_heads', `at most ${MAX_WIDTH} outputs of all heads`);
  if (headDim % 2 !== 0) throw config.wrong('head_dim', 'an even head width, as rotary embedding needs');
  const maxPositions = config.size('max_position_embeddings', defaults.maxPositions);
  const layers = config.size('num_hidden_layers', 32);
  rejectUnsupported(config, type, { headDim, layers, maxPositions });
  const bias = type === 'llama' && config.boolean('attention_bias', false);
  return {
    hiddenSize,
    intermediateSize: config.size('intermediate_size', defaults.intermediate),
    layers,
    heads,
    kvHeads,
    headDim,
    vocabSize: config.size('vocab_size', defaults.vocab),
    ...parseRope(config, headDim, maxPositions),
    rmsNormEps: config.float('rms_norm_eps', 1e-6),
    maxPositions,
    attentionBias: { qkv: type === 'qwen2' || bias, o: bias },
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

/** `hidden_act` as one of the names that are computed. @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` */
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

/** Switches that change the computation and that nothing here computes: better refused than silently ignored. */
function rejectUnsupported(config: ConfigReader, type: DecoderType, facts: DecoderFacts): void {
  if (type === 'llama' && config.boolean('mlp_bias', false)) throw config.unsupported('mlp_bias', 'false');
  for (const key of ['use_mrope', 'use_qk_norm', 'qk_layernorm'])
    if (config.boolean(key, false)) throw config.unsupported(key, 'false');
  for (const [key, neutral] of neutralValues(facts))
    if (config.has(key) && config.json[key] !== neutral)
      throw config.unsupported(key, neutral === null ? 'null' : `${neutral}`);
  rejectWindows(config, type, facts);
}

/** Scales and caps of other architectures, each with the value that changes nothing. */
const neutralValues = ({ headDim }: DecoderFacts): readonly (readonly [key: string, value: number | null])[] => [
  ['attn_logit_softcapping', null],
  ['final_logit_softcapping', null],
  ['clip_qkv', null],
  ['query_pre_attn_scalar', headDim],
  ['embedding_multiplier', 1],
  ['residual_multiplier', 1],
  ['logits_scaling', 1],
];

/** Attention is full: a window counts only where it is shorter than the longest sequence. */
function rejectWindows(config: ConfigReader, type: DecoderType, { layers, maxPositions }: DecoderFacts): void {
  const kinds: unknown = config.json.layer_types ?? [];
  if (!Array.isArray(kinds) || kinds.some((kind) => kind !== 'full_attention'))
    throw config.unsupported('layer_types', 'full_attention of every layer');
  const isShort = (fallback: number | undefined): boolean =>
    (config.has('sliding_window') || fallback !== undefined) && config.size('sliding_window', fallback) < maxPositions;
  if (type === 'qwen2' && config.boolean('use_sliding_window', false)) {
    // Layers from max_window_layers on have the window.
    const full = config.has('max_window_layers') ? config.number('max_window_layers') : 28;
    if (full < layers && isShort(4096)) throw config.unsupported('use_sliding_window', 'false');
  }
  if (type !== 'mistral' || config.json.sliding_window === null) return;
  if (isShort(4096)) {
    throw config.unsupported('sliding_window', 'null (full attention; an absent key means a window of 4096)');
  }
}

function parseRope(config: ConfigReader, headDim: number, maxPositions: number) {
  const [current, older] = [config.object('rope_parameters'), config.object('rope_scaling')];
  const rope = current ?? older;
  const ropeTheta = rope?.has('rope_theta') ? rope.float('rope_theta') : config.float('rope_theta', 10000);
  const fastest = Math.fround(ropeTheta ** (2 / headDim - 1));
  if (ropeTheta === 0 || !Number.isFinite(fastest)) throw config.wrong('rope_theta', 'a number above 0 that f32 holds');
  for (const part of [config, rope]) {
    if (part && part.number('partial_rotary_factor', 1) !== 1) throw part.unsupported('partial_rotary_factor', '1');
  }
  const ropeScaling = rope === undefined ? ({ type: 'default' } as const) : parseScaling(rope, maxPositions);
  const isOlder = (key: string): boolean => older?.has(key) === true;
  if (current !== undefined && (isOlder('type') || isOlder('rope_type') || isOlder('factor'))) {
    const other = parseScaling(older as ConfigReader, maxPositions);
    if (JSON.stringify(other) !== JSON.stringify(ropeScaling))
      throw config.wrong('rope_scaling', 'what "rope_parameters" says');
  }
  return { ropeTheta, ropeScaling };
}

function parseScaling(rope: ConfigReader, maxPositions: number): RopeScaling {
  for (const key of ['full_attention', 'sliding_attention', 'mrope_section'])
    if (rope.has(key)) throw rope.unsupported(key, 'nothing');
  const key = rope.has('rope_type') ? 'rope_type' : 'type';
  if (!rope.has(key) && rope.has('factor')) throw rope.wrong('rope_type', 'a type beside "factor"');
  if (key === 'rope_type' && rope.has('type') && rope.json.type !== rope.json.rope_type)
    throw rope.wrong('type', `what "rope_type" says (${rope.string('rope_type')})`);
  const type = rope.string(key, 'default');
  if (type === 'default') return { type };
  if (type !== 'linear' && type !== 'dynamic' && type !== 'llama3')
    throw rope.unsupported(key, 'one of default, linear, dynamic, llama3');
  const factor = rope.float('factor');
  if (factor < 1) throw rope.wrong('factor', 'a number of at least 1');
  if (type !== 'llama3') return { type, factor };
  const lowFreqFactor = rope.float('low_freq_factor');
  const highFreqFactor = rope.float('high_freq_factor');
  if (lowFreqFactor === 0) throw rope.wrong('low_freq_factor', 'a number above 0');
  if (highFreqFactor <= lowFreqFactor)
    throw rope.wrong('high_freq_factor', `more than low_freq_factor (${lowFreqFactor})`);
  const originalMaxPositions = rope.size('original_max_position_embeddings', maxPositions);
  return { type, factor, lowFreqFactor, highFreqFactor, originalMaxPositions };
}
