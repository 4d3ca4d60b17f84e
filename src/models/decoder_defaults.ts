// What the text configs of transformers' classes hold where a file leaves a key out.
// Source: transformers 5.24, `configuration_{llama,mistral,qwen2,qwen3,gemma,gemma2,gemma3}.py`.

import { GEMMA_DEFAULTS, type GemmaDefaults } from './gemma_config';
import type { RopeSections } from './rope_config';

/** The defaults of a transformers class. */
export interface DecoderDefaults {
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
  /** Default of `tie_word_embeddings`; absent: false. */
  readonly tied?: boolean;
  readonly gemma?: GemmaDefaults;
  /** Whether some layers keep states. */
  readonly isHybrid?: boolean;
  /** Default of `partial_rotary_factor`; absent: 1, and no other value is known. */
  readonly rotaryShare?: number;
  /** Default of `mrope_section` of interleaved axes. */
  readonly sectionCounts?: readonly number[];
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
const QWEN3_5: DecoderDefaults = {
  ...{ hidden: 4096, intermediate: 12288, layers: 32, heads: 16, kvHeads: 4, headDim: 256, vocab: 248320 },
  ...{ maxPositions: 32768, theta: 1e4, eps: 1e-6, qkvBias: false, qkNorm: true, isHybrid: true },
  ...{ rotaryShare: 0.25, sections: 'interleaved', sectionCounts: [11, 11, 10] },
};
const QWEN3_VL: DecoderDefaults = { ...QWEN3, maxPositions: 128000, theta: 5e5, sections: 'interleaved' };

const GEMMA: DecoderDefaults = {
  ...{ hidden: 3072, intermediate: 24576, layers: 28, heads: 16, kvHeads: 16, headDim: 256, vocab: 256000 },
  ...{ maxPositions: 8192, theta: 1e4, eps: 1e-6, qkvBias: false, sections: false, tied: true },
  gemma: GEMMA_DEFAULTS.gemma,
};
const GEMMA2: DecoderDefaults = {
  ...{ ...GEMMA, hidden: 2304, intermediate: 9216, layers: 26, heads: 8, kvHeads: 4, gemma: GEMMA_DEFAULTS.gemma2 },
};
const GEMMA3: DecoderDefaults = {
  ...{ ...GEMMA2, vocab: 262208, maxPositions: 131072, theta: 1e6, qkNorm: true, gemma: GEMMA_DEFAULTS.gemma3_text },
};

/** Class defaults per `model_type`. Published Qwen files have the decoder's fields at the root, under the whole model's type. */
export const DECODER_DEFAULTS = {
  llama: LLAMA,
  mistral: { ...LLAMA, intermediate: 14336, kvHeads: 8, maxPositions: 131072 },
  qwen2: QWEN2,
  ...{ qwen2_vl: QWEN2_VL, qwen2_vl_text: QWEN2_VL, qwen2_5_vl: QWEN2_VL, qwen2_5_vl_text: QWEN2_VL },
  ...{ qwen3: QWEN3, qwen3_vl_text: QWEN3_VL, qwen3_5_text: QWEN3_5 },
  ...{ gemma: GEMMA, gemma2: GEMMA2, gemma3_text: GEMMA3 },
} as const satisfies Readonly<Record<string, DecoderDefaults>>;

export type DecoderType = keyof typeof DECODER_DEFAULTS;
