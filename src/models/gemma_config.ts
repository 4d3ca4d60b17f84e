// What the text configs of Gemma, Gemma 2 and Gemma 3 have beside Llama's: norms that multiply by 1 + weight, scaled embeddings, a GELU gate;
// from Gemma 2 on norms of what is added, another scale of scores, caps and sliding windows; in Gemma 3 a second rotary embedding.
// Source: transformers 5.24 `configuration_{gemma,gemma2,gemma3}.py`, `masking_utils.py`.

import { type ConfigReader, configReader } from '../json';
import type { DecoderConfig, LayerType } from './config';

/** How a class differs from the others. */
export interface GemmaDefaults {
  /** The key of the activation of the gate. */
  readonly activation: 'hidden_act' | 'hidden_activation';
  /** Whether attention and the MLP have norms before and after them; with them come sliding windows and a scale of scores. */
  readonly postNorms: boolean;
  /** Every n-th layer attends everything. */
  readonly pattern: number;
  /** Defaults of `attn_logit_softcapping` and `final_logit_softcapping`; null: none. */
  readonly softcaps: readonly [attention: number | null, final: number | null];
  /** Default of `rope_local_base_freq`, for a class whose sliding layers have a rotary embedding of their own. */
  readonly localTheta?: number;
}

const GEMMA: GemmaDefaults = { activation: 'hidden_act', postNorms: false, pattern: 1, softcaps: [null, null] };

export const GEMMA_DEFAULTS = {
  gemma: GEMMA,
  gemma2: { activation: 'hidden_activation', postNorms: true, pattern: 2, softcaps: [50, 30] },
  gemma3_text: {
    ...{ activation: 'hidden_activation', postNorms: true, pattern: 6, softcaps: [null, null], localTheta: 1e4 },
  },
} as const satisfies Readonly<Record<string, GemmaDefaults>>;

/** Names of the tanh approximation of GELU; the first files of Gemma said `gelu` and meant it. */
const ACTIVATIONS = ['gelu_pytorch_tanh', 'gelu_new', 'gelu_fast'];
const MASK = 'use_bidirectional_attention';

/** The config of the rotary embedding of layers of a type, whose settings transformers 5 keeps apart. */
export function ropeOf(config: ConfigReader, { localTheta }: GemmaDefaults, type: LayerType): ConfigReader {
  if (localTheta === undefined) return config;
  const own = config.object('rope_parameters')?.object(type)?.json;
  const { json } = config;
  const older =
    type === 'full_attention'
      ? { rope_parameters: null }
      : { rope_parameters: null, rope_scaling: null, rope_theta: config.float('rope_local_base_freq', localTheta) };
  return configReader(
    {
      ...json,
      ...(own === undefined
        ? older
        : { rope_parameters: own, ...(type !== 'full_attention' && { rope_scaling: null }) }),
    },
    config.file,
  );
}

/** @throws SparseVilaError `ERR_CONFIG_INVALID`, `ERR_CONFIG_UNSUPPORTED` */
export function gemmaSettings(
  config: ConfigReader,
  defaults: GemmaDefaults,
  { layers, headDim, hiddenSize }: Pick<DecoderConfig, 'layers' | 'headDim' | 'hiddenSize'>,
): Omit<Partial<DecoderConfig>, 'hiddenAct'> & Pick<DecoderConfig, 'hiddenAct'> {
  const { activation, postNorms } = defaults;
  const known = defaults === GEMMA ? [...ACTIVATIONS, 'gelu'] : ACTIVATIONS;
  if (!known.includes(config.string(activation, 'gelu_pytorch_tanh')))
    throw config.unsupported(activation, `one of ${known.join(', ')}`);
  const common = { hiddenAct: 'gelu_pytorch_tanh', normOffset: true, embedScale: Math.sqrt(hiddenSize) } as const;
  if (!postNorms) return common;
  const scalar = config.float('query_pre_attn_scalar', 256);
  if (scalar === 0) throw config.wrong('query_pre_attn_scalar', 'a number above 0');
  const cap = (key: string, fallback: number | null): number | undefined => {
    const value = config.json[key] === undefined ? fallback : config.json[key];
    if (value === null) return undefined;
    const given = config.float(key, fallback ?? undefined);
    if (given === 0) throw config.wrong(key, 'null or a number above 0');
    return given;
  };
  const [attentionSoftcap, finalSoftcap] = [
    cap('attn_logit_softcapping', defaults.softcaps[0]),
    cap('final_logit_softcapping', defaults.softcaps[1]),
  ];
  return {
    ...common,
    postNorms,
    ...(scalar !== headDim && { attentionScale: scalar ** -0.5 }),
    ...(attentionSoftcap !== undefined && { attentionSoftcap }),
    ...(finalSoftcap !== undefined && { finalSoftcap }),
    layerTypes: layerTypes(config, layers, defaults.pattern),
    slidingWindow: config.size('sliding_window', 4096),
  };
}

/** Refuses a decoder that is not causal by itself. @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` */
export function rejectBidirectional(config: ConfigReader): void {
  if (config.boolean(MASK, false)) throw config.unsupported(MASK, 'false');
}

const TYPES: readonly LayerType[] = ['full_attention', 'sliding_attention'];

/** `layer_types`, or sliding windows but in every n-th layer. */
function layerTypes(config: ConfigReader, layers: number, pattern: number): LayerType[] {
  const every = pattern === 2 ? pattern : config.size('sliding_window_pattern', pattern);
  const given: unknown = config.json.layer_types ?? undefined;
  if (given === undefined)
    return Array.from({ length: layers }, (_, i) => TYPES[Number((i + 1) % every !== 0)] as LayerType);
  const isType = (type: unknown): type is LayerType => TYPES.includes(type as LayerType);
  if (!Array.isArray(given) || given.length !== layers || !given.every(isType))
    throw config.unsupported('layer_types', `full_attention or sliding_attention for each of ${layers} layers`);
  return given;
}
