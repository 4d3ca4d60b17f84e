// The interface between sessions and any vision-language model.

import type { AllowUrls } from '../image/decode';
import type { Tensor } from '../runtime/tensor';
import type { SamplingDefaults } from '../text/sampling';
import type { ChatTemplate } from '../text/template';
import type { Tokenizer } from '../text/tokenizer';
import type { Decoder, EmbeddingTable } from './decoder';
import type { Lifetime } from './lifetime';
import type { MediaInput, MediumLayout, PreparedMedium } from './media';
import type { Plan } from './plan';
import type { TowerTaps } from './tower';
import type { FrameMemory } from './tower_reuse';

/** A medium after the tower, at the granularity of the tokens that the decoder sees. */
export interface EncodedMedium {
  readonly layout: MediumLayout;
  readonly tokens: number;
  /** The tokens that were computed, ascending; absent: all. Features, salience and keys of the others are zeros. */
  readonly seen?: Int32Array | undefined;
  /** f32 [tokens, width], the input of `project`: of each token, the hidden states of its patches side by side. */
  readonly features: Tensor;
  /** For each requested layer, the attention that each token receives, f32 [tokens]; for a token of several patches, their mean. */
  readonly salience: readonly Float32Array[];
  /** For each requested layer, the keys of the tokens, f32 [tokens, heads, width]; for a token of several patches, their mean. */
  readonly keys: readonly { readonly data: Float32Array; readonly width: number }[];
  dispose(): void;
}

export interface EncodeOptions extends TowerTaps {
  /** The tokens to compute, ascending; absent: all. */
  readonly tokens?: Int32Array | undefined;
  /** What earlier frames of the same film have left in the tower; absent: every frame is computed whole. */
  readonly memory?: FrameMemory | undefined;
  readonly pace: () => Promise<void>;
}

export interface VisionLanguageModel {
  /** `model_type` of the checkpoint. */
  readonly family: string;
  readonly path: string;
  readonly plan: Plan;
  readonly decoder: Decoder;
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate;
  /** The marker of one run of visual rows in a prompt: its text and its id. */
  readonly marker: { readonly text: string; readonly id: number };
  /** What the chat template prints for an image; absent: the marker's text. */
  readonly imagePlaceholder?: string | undefined;
  /** What the chat template prints for a video; absent: videos are shown to it as images. */
  readonly videoPlaceholder?: string | undefined;
  /** The learned row that runs with `newlines` are followed by, f32 [d]. */
  readonly newline?: Tensor | undefined;
  readonly stopIds: readonly number[];
  /** Defaults from generation_config.json. */
  readonly sampling: SamplingDefaults;
  readonly maxNewTokens: number;
  /**
   * Decodes the media of one turn, lays them out and draws their canvases.
   * @param share the share of its tokens to which each is resized first, where a smaller one has fewer; default none
   * @throws SparseVilaError `ERR_IMAGE_…`, `ERR_VIDEO`
   */
  prepare(media: readonly MediaInput[], signal?: AbortSignal, share?: number): Promise<PreparedMedium[]>;
  /**
   * The normalized pixels of the patches that tokens from .. to - 1 of a medium are made of, one after another, f32 [to - from, width].
   * @throws SparseVilaError `ERR_METHOD_UNSUPPORTED` if its tokens are not made of patches alone
   */
  pixels(medium: PreparedMedium, from: number, to: number): { readonly data: Float32Array; readonly width: number };
  encode(medium: PreparedMedium, options: EncodeOptions): Promise<EncodedMedium>;
  /**
   * Projects features of some tokens of a medium, f32 [m, width] -> rows for the decoder, f32 [m, d]; a new tensor. With k hidden states of
   * deepstack f32 [m, (1 + k) d]: beside each row those that are added to it after the first k layers.
   */
  project(features: Tensor, layout: Pick<MediumLayout, 'pool'>): Tensor;
  /** The lifetime of the model; absent: it is never disposed of. */
  readonly lifetime?: Lifetime;
  /** Frees the weights; a second call does nothing. @throws SparseVilaError `ERR_BUSY` while an answer of a session runs */
  dispose(): void;
}

/** A model without the decoder's layers and head: it turns pictures and text into rows. */
export interface RowModel extends Omit<VisionLanguageModel, 'decoder'> {
  readonly decoder: EmbeddingTable;
}

export interface LoadOptions {
  /** A branch, tag or commit of a model given by its Hub name; default `main`, or the revision in the name (`owner/name@revision`). */
  readonly revision?: string;
  /** Data type of weight matrices; default as in the checkpoint. */
  readonly weights?: 'f32' | 'f16' | 'bf16';
  /**
   * How products with 4-bit matrices hold their 8-bit activations: in two planes, as accurate as f32 (exact, the default), or in one
   * (fast, NMSE 1e-4).
   */
  readonly precision?: 'exact' | 'fast';
  /**
   * Bytes of encoded pictures to cache, so that sessions about the same picture share them; the least recently used are evicted first.
   * Default 0: none.
   */
  readonly imageCache?: number;
  /**
   * Whether packed weights are kept in the package's cache folder, so that the next load maps them: true for every model, false for none;
   * default: for those of 256 MB or more. `SPARSEVILA_WEIGHT_CACHE` limits the space, or turns it off.
   */
  readonly weightCache?: boolean;
  /** Maximum number of pixels of a picture; larger ones are refused after reading their header. Default 64 million. */
  readonly maxPixels?: number;
  /** Whether pictures may be fetched from http(s) URLs: all, or those that the function accepts, redirects included. Default false. */
  readonly allowUrls?: AllowUrls;
  /**
   * Chat template to use instead of the checkpoint's: a file, Jinja source, or the name of one of VILA's conversation modes (vicuna_v1,
   * llama_3, hermes-2, plain, qwen2, mistral) or of InternVL's (internvl2_5).
   */
  readonly template?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { step: string; done: number; total: number; unit?: string }) => void;
}
