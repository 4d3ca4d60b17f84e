// The names of the parts of a VILA checkpoint: its folders, and what precedes the names of its tensors in the NVILA `-hf` ports.
// Source: NVlabs/VILA's folders; Efficient-Large-Model/NVILA-*-hf (`model_type` nvila and nvila_lite).

/** `model_type`s of the `-hf` ports: each stands for a projector and for how pictures are cut. */
export const HF_TYPES = {
  nvila: { projector: 'mlp_downsample_2x2_fix', images: 'dynamic_s2' },
  nvila_lite: { projector: 'mlp_downsample_3x3_fix', images: 'dynamic' },
} as const;
export type HfType = keyof typeof HF_TYPES;

export const HF_PREFIXES = { llm: 'llm.', vision_tower: 'vision_tower.', mm_projector: 'mm_projector.' } as const;
export type VilaPart = keyof typeof HF_PREFIXES;
export const VILA_PARTS = Object.keys(HF_PREFIXES) as VilaPart[];

export const isHfType = (type: unknown): type is HfType => typeof type === 'string' && Object.hasOwn(HF_TYPES, type);
