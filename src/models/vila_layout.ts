// Where a VILA checkpoint keeps its parts: in folders of their own (`llm/`, `vision_tower/`, `mm_projector/`), or all in one, as the
// NVILA `-hf` ports do, with a prefix to each tensor's name. Config and names only; knows no weights.
// Source: NVlabs/VILA's folders; Efficient-Large-Model/NVILA-*-hf (`model_type` nvila and nvila_lite).

import { join } from 'node:path';
import { configReader, type Json, readJson } from '../json';
import { UNUSED_DECODER_WEIGHTS } from './decoder';
import type { PROJECTOR_TYPES } from './projector';
import { quantizationIn } from './quantized_config';
import { canonicalTowerName, UNUSED_TOWER_WEIGHTS } from './vit';
import type { OpenOptions } from './weights';

/** `model_type`s of the `-hf` layout: each stands for a projector and for how pictures are cut. */
export const HF_TYPES = {
  nvila: { projector: 'mlp_downsample_2x2_fix', images: 'dynamic_s2' },
  nvila_lite: { projector: 'mlp_downsample_3x3_fix', images: 'dynamic' },
} as const satisfies Record<string, { projector: (typeof PROJECTOR_TYPES)[number]; images: string }>;
export type HfType = keyof typeof HF_TYPES;

/** The parts of a checkpoint and what precedes the names of their tensors in the `-hf` layout. */
export const HF_PREFIXES = { llm: 'llm.', vision_tower: 'vision_tower.', mm_projector: 'mm_projector.' } as const;
export type VilaPart = keyof typeof HF_PREFIXES;
export const VILA_PARTS = Object.keys(HF_PREFIXES) as VilaPart[];

export const isHfType = (type: unknown): type is HfType => typeof type === 'string' && Object.hasOwn(HF_TYPES, type);

/** A part's config and the file that it is in. */
export interface PartConfig {
  readonly json: Json;
  readonly file: string;
}

export interface VilaLayout {
  /** The root config, with `image_aspect_ratio` where the layout implies it. */
  readonly root: Json;
  readonly configs: Readonly<Record<VilaPart, PartConfig>>;
  /** Of tokenizer, chat template and generation config. */
  readonly textFolder: string;
  readonly preprocessorFile: string;
  weights(part: VilaPart): { readonly folder: string; readonly options: OpenOptions };
}

const IGNORED: Readonly<Record<VilaPart, readonly RegExp[]>> = {
  llm: UNUSED_DECODER_WEIGHTS,
  vision_tower: UNUSED_TOWER_WEIGHTS,
  mm_projector: [],
};
const canonical = (part: VilaPart, name: string): string => (part === 'vision_tower' ? canonicalTowerName(name) : name);

/** @throws SparseVilaError `ERR_CONFIG_…` for a part's config that is missing or no object */
export function vilaLayout(folder: string, json: Json): VilaLayout {
  return isHfType(json.model_type) ? oneFolder(folder, json, json.model_type) : folders(folder, json);
}

function folders(folder: string, root: Json): VilaLayout {
  // transformers looks into the root's config first.
  const quantization = quantizationIn(configReader(root, join(folder, 'config.json')));
  const config = (part: VilaPart): PartConfig => {
    const file = join(folder, part, 'config.json');
    return { json: readJson(file), file };
  };
  return {
    root,
    configs: { llm: config('llm'), vision_tower: config('vision_tower'), mm_projector: config('mm_projector') },
    textFolder: join(folder, 'llm'),
    preprocessorFile: join(folder, 'vision_tower', 'preprocessor_config.json'),
    weights: (part) => ({
      folder: join(folder, part),
      options: {
        rename: (name) => canonical(part, name),
        ignore: IGNORED[part],
        ...(part === 'llm' && { quantization }),
      },
    }),
  };
}

function oneFolder(folder: string, root: Json, type: HfType): VilaLayout {
  const file = join(folder, 'config.json');
  const reader = configReader(root, file);
  const config = (key: string): PartConfig => {
    const part = reader.object(key);
    if (part === undefined) throw reader.wrong(key, 'an object');
    // The ports say once for all parts whether the head is the embedding.
    const tied = reader.has('tie_word_embeddings') ? { tie_word_embeddings: root.tie_word_embeddings } : {};
    return { json: { ...tied, ...part.json }, file };
  };
  const projector = reader.object('projector_config')?.json ?? { mm_projector_type: HF_TYPES[type].projector };
  return {
    // The ports cut every picture into tiles and say so nowhere.
    root: { image_aspect_ratio: HF_TYPES[type].images, ...root },
    configs: {
      llm: config('text_config'),
      vision_tower: config('vision_config'),
      mm_projector: { json: projector, file },
    },
    textFolder: folder,
    preprocessorFile: join(folder, 'preprocessor_config.json'),
    weights: (part) => {
      const prefix = HF_PREFIXES[part];
      const rename = (name: string): string =>
        name.startsWith(prefix) ? canonical(part, name.slice(prefix.length)) : `of another part: ${name}`;
      // A name of no part at all belongs to the decoder's folder, and is an error there.
      const known = VILA_PARTS.filter((other) => other !== part).map((other) => HF_PREFIXES[other]);
      const others = part === 'llm' ? known.map((other) => `of another part: ${other}`) : ['of another part: '];
      return {
        folder,
        options: { rename, ignore: [...IGNORED[part], ...others.map((start) => new RegExp(`^${start}`))] },
      };
    },
  };
}
