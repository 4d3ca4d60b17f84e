// The widths of a published model of each family, as fields that replace those of a fixture's config files.

/** Fields of a config file. */
export type Fields = Readonly<Record<string, unknown>>;

export interface Row {
  readonly model: string;
  readonly fixture: string;
  /** Fields of the tower's and the decoder's config at a published width. */
  readonly vision: Fields;
  readonly text: Fields;
  /** Fields of the processor's settings that must agree. */
  readonly pixels: Fields;
  /** Fields of the root config. */
  readonly root?: Fields;
}

const clip = { hidden_size: 1024, intermediate_size: 4096, num_attention_heads: 16, image_size: 336, patch_size: 14 };
const siglip = { hidden_size: 1152, intermediate_size: 4304, num_attention_heads: 16, image_size: 384, patch_size: 14 };
const intern = { ...clip, image_size: [448, 448], patch_size: [14, 14] };
const decoderOf = (hidden_size: number, intermediate_size: number, heads: number, kv: number, head_dim?: number) => ({
  ...{ hidden_size, intermediate_size, num_attention_heads: heads, num_key_value_heads: kv },
  head_dim: head_dim ?? hidden_size / heads,
});
const qwen = { ...decoderOf(1536, 8960, 12, 2), mrope_section: [16, 24, 24] };

const square = (side: number) => ({ size: { height: side, width: side } });
const crop = { size: { shortest_edge: 336 }, crop_size: { height: 336, width: 336 } };
const tilesOf = (side: number) => ({
  image_grid_pinpoints: [
    [side, 2 * side],
    [2 * side, side],
    [2 * side, 2 * side],
  ],
});
const pixelsOf = (patch_size: number) => ({
  ...{ size: { shortest_edge: 3136, longest_edge: 12845056 }, min_pixels: 3136, max_pixels: 12845056, patch_size },
});

/** The first is VILA's. */
export const MODELS: readonly Row[] = [
  {
    model: 'NVILA-Lite-2B',
    fixture: 'nvila/tiles',
    vision: { ...siglip, image_size: 448 },
    pixels: square(448),
    text: decoderOf(1536, 8960, 12, 2),
  },
  {
    model: 'LLaVA-1.5-7B',
    fixture: 'llava/llava-llama',
    vision: clip,
    pixels: crop,
    text: decoderOf(4096, 11008, 32, 32),
  },
  {
    model: 'LLaVA-NeXT-7B',
    fixture: 'llava_next/mistral',
    vision: clip,
    pixels: { ...crop, ...tilesOf(336) },
    root: tilesOf(336),
    text: decoderOf(4096, 14336, 32, 8),
  },
  {
    model: 'LLaVA-OneVision-0.5B',
    fixture: 'llava_onevision/tied',
    vision: siglip,
    pixels: { ...square(384), ...tilesOf(384) },
    root: tilesOf(384),
    text: decoderOf(896, 4864, 14, 2),
  },
  {
    model: 'InternVL3-2B',
    fixture: 'internvl/layer',
    vision: intern,
    pixels: square(448),
    root: { image_seq_length: 256 },
    text: decoderOf(1536, 8960, 12, 2),
  },
  {
    model: 'SmolVLM2-2.2B',
    fixture: 'smolvlm/smolvlm',
    vision: siglip,
    pixels: { size: { longest_edge: 1536 }, max_image_size: { longest_edge: 384 } },
    text: decoderOf(2048, 8192, 32, 32),
  },
  {
    ...{ model: 'Qwen2-VL-2B', fixture: 'qwen_vl/qwen2-vl' },
    ...{
      vision: { embed_dim: 1280, hidden_size: 1536, num_heads: 16, mlp_ratio: 4, patch_size: 14 },
      pixels: pixelsOf(14),
      text: qwen,
    },
  },
  {
    ...{ model: 'Qwen2.5-VL-3B', fixture: 'qwen_vl/qwen2.5-vl' },
    vision: {
      hidden_size: 1280,
      intermediate_size: 3420,
      num_heads: 16,
      out_hidden_size: 2048,
      patch_size: 14,
      spatial_patch_size: 14,
      window_size: 112,
    },
    pixels: pixelsOf(14),
    text: { ...decoderOf(2048, 11008, 16, 2), mrope_section: [16, 24, 24] },
  },
  {
    ...{ model: 'Qwen3-VL-2B', fixture: 'qwen_vl/qwen3-vl' },
    vision: {
      hidden_size: 1024,
      intermediate_size: 4096,
      num_heads: 16,
      out_hidden_size: 2048,
      patch_size: 16,
      num_position_embeddings: 2304,
    },
    pixels: pixelsOf(16),
    text: { ...decoderOf(2048, 6144, 16, 8, 128), mrope_section: [24, 20, 20] },
  },
  {
    ...{ model: 'Qwen3.5-2B', fixture: 'qwen_vl/qwen3.5' },
    vision: {
      hidden_size: 1024,
      intermediate_size: 4096,
      num_heads: 16,
      out_hidden_size: 2048,
      patch_size: 16,
      num_position_embeddings: 2304,
    },
    pixels: pixelsOf(16),
    text: {
      ...decoderOf(2048, 6144, 8, 2, 256),
      ...{ linear_num_key_heads: 16, linear_num_value_heads: 16, linear_key_head_dim: 128, linear_value_head_dim: 128 },
      ...{ mrope_section: [11, 11, 10], num_hidden_layers: 4 },
    },
  },
  {
    ...{ model: 'Gemma3-4B', fixture: 'gemma3/plain' },
    vision: { ...siglip, image_size: 896 },
    pixels: square(896),
    root: { mm_tokens_per_image: 256 },
    text: { ...decoderOf(2560, 10240, 8, 4, 256), query_pre_attn_scalar: 256, sliding_window: 1024 },
  },
  {
    ...{ model: 'PaliGemma2-3B', fixture: 'paligemma/two' },
    vision: { ...siglip, image_size: 448 },
    pixels: { ...square(448), image_seq_length: 1024 },
    root: { projection_dim: 2304, hidden_size: 2304 },
    text: {
      ...decoderOf(2304, 9216, 8, 4, 256),
      ...{ query_pre_attn_scalar: 256, sliding_window: 4096, attn_logit_softcapping: 50, final_logit_softcapping: 30 },
    },
  },
];
