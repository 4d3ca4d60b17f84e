// Reads generation_config.json: the checkpoint's defaults for sampling and stopping. An unsupported setting that matters only when sampling
// does not prevent greedy decoding; one that always matters is refused by name.
// Source: transformers 5.18 `generation/configuration_utils.py` (defaults), `generation/logits_process.py` (what each setting does).

import { SparseVilaError } from '../errors';
import { type ConfigReader, configReader, type Json } from '../json';
import { checkSampling, LEAST_TOP_P, type SamplingDefaults, type SamplingOptions } from './sampling';

/** The settings of generation_config.json. */
export interface GenerationConfig {
  readonly sampling: SamplingDefaults;
  readonly stopIds: number[];
  readonly maxNewTokens?: number;
}

const MOST_TOKENS = 2 ** 31 - 1;

/** Settings that change every answer, with the values that have no effect; null, false and empty values never have one. */
const ALWAYS: Readonly<Record<string, readonly unknown[]>> = {
  ...{ num_beams: [1], num_beam_groups: [1], penalty_alpha: [0], no_repeat_ngram_size: [0], min_length: [0] },
  ...{ encoder_repetition_penalty: [1], encoder_no_repeat_ngram_size: [0], min_new_tokens: [0], guidance_scale: [1] },
  ...{ bad_words_ids: [], force_words_ids: [], constraints: [], sequence_bias: [], suppress_tokens: [] },
  ...{ begin_suppress_tokens: [], forced_bos_token_id: [], forced_eos_token_id: [], forced_decoder_ids: [] },
  ...{ exponential_decay_length_penalty: [], stop_strings: [], watermarking_config: [], dola_layers: [] },
};
/** Settings that matter only when sampling, with the values that have no effect. */
const SAMPLED: Readonly<Record<string, readonly unknown[]>> = {
  ...{ min_p: [0], typical_p: [1], epsilon_cutoff: [0], eta_cutoff: [0], top_h: [] },
};

/**
 * Reads `do_sample`, `temperature`, `top_k`, `top_p`, `repetition_penalty`, `eos_token_id` and `max_new_tokens`. If `do_sample` is true,
 * missing fields take transformers' defaults (temperature 1, top-k 50, top-p 1); false means greedy. top_k 0 and -1 (vLLM) keep all tokens;
 * top_p 0 keeps one.
 * @throws SparseVilaError `ERR_CONFIG_INVALID` or `ERR_CONFIG_UNSUPPORTED` naming the file and key
 */
export function parseGenerationConfig(json: Json, file: string): GenerationConfig {
  const config = configReader(json, file);
  refuseOthers(config, ALWAYS);
  return {
    sampling: { ...penaltyOf(config), ...(config.boolean('do_sample', false) ? sampled(config) : {}) },
    stopIds: stopIdsOf(config),
    ...(config.has('max_new_tokens') && { maxNewTokens: maxTokens(config) }),
  };
}

/** `eos_token_id`: an id or a list of them; negative ones mean none. @throws SparseVilaError `ERR_CONFIG_INVALID` */
export function stopIdsOf(config: ConfigReader): number[] {
  const eos: unknown = config.json.eos_token_id ?? [];
  const ids: unknown[] = Array.isArray(eos) ? eos : [eos];
  if (!ids.every((id): id is number => Number.isSafeInteger(id)))
    throw config.wrong('eos_token_id', 'a token id or a list of them');
  return ids.filter((id) => id >= 0);
}

function penaltyOf(config: ConfigReader): SamplingOptions {
  if (!config.has('repetition_penalty')) return {};
  const repetitionPenalty = config.float('repetition_penalty');
  if (repetitionPenalty === 0) throw config.wrong('repetition_penalty', 'a number above 0');
  return { repetitionPenalty };
}

function sampled(config: ConfigReader): SamplingDefaults {
  try {
    refuseOthers(config, SAMPLED);
    const topK = config.number('top_k', 50);
    const topP = config.number('top_p', 1);
    const temperature = config.number('temperature', 1);
    return checkSampling({ temperature, topK: topK === -1 ? 0 : topK, topP: topP === 0 ? LEAST_TOP_P : topP });
  } catch (error) {
    if (!(error instanceof SparseVilaError)) throw error;
    const where = error.message.startsWith(config.file) ? '' : `${config.file}: `;
    const advice = 'Ask with a temperature of your own (0 decodes greedily), or correct the file.';
    return {
      unusable: new SparseVilaError('ERR_CONFIG_INVALID', `${where}${error.message.replace(/\.?$/, '.')} ${advice}`),
    };
  }
}

function refuseOthers(config: ConfigReader, settings: Readonly<Record<string, readonly unknown[]>>): void {
  for (const [key, neutral] of Object.entries(settings)) {
    const value: unknown = config.json[key] ?? null;
    const isEmpty = value === null || value === false || (typeof value === 'object' && Object.keys(value).length === 0);
    if (!isEmpty && !neutral.includes(value))
      throw config.unsupported(key, [...neutral.map(String), 'null'].join(' or '));
  }
}

function maxTokens(config: ConfigReader): number {
  const most = config.number('max_new_tokens');
  if (!Number.isInteger(most) || most < 1) throw config.wrong('max_new_tokens', 'an integer of at least 1');
  return Math.min(most, MOST_TOKENS);
}
