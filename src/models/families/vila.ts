// VILA and NVILA: a SigLIP tower, VILA's projectors, a Llama or Qwen2 decoder. The parts are in separate folders (`llm/`, `vision_tower/`,
// `mm_projector/`), or all in one as in the NVILA `-hf` ports (`model_type` nvila and nvila_lite).
// Source: NVlabs/VILA b760c34 `llava/model/llava_arch.py`, `multimodal_projector/base_projector.py`, `encoders/`.

import { join } from 'node:path';
import { quantizationIn } from '../../checkpoint/quantized_config';
import { normalizationOf, parsePreprocessorConfig, requireTowerSize } from '../../image/preprocessor_config';
import { type ConfigReader, configReader, readJson } from '../../json';
import type { Adapter } from '../adapter';
import type { CheckpointFiles } from '../checkpoint_files';
import { parseDecoderConfig } from '../config';
import { CLIP_NAMES, DECODER_NAMES } from '../names';
import { type PartName, type PartSource, type Plan, wholeFolder } from '../plan';
import type { ProjectorStep } from '../projector';
import { hiddenStateDepth, siglipTower } from '../tower_config';
import { layoutOf } from './vila_layouts';
import { checkVilaSettings, type Pictures, picturesOf, poolsOf, samplingOf, scalesOf } from './vila_settings';

/** `model_type`s of the `-hf` ports. Each implies a projector and a way of cutting pictures, which the files do not state. */
export const HF_TYPES: Readonly<Record<string, { readonly projector: ProjectorType; readonly pictures: Pictures }>> = {
  nvila: { projector: 'mlp_downsample_2x2_fix', pictures: 'dynamic_s2' },
  nvila_lite: { projector: 'mlp_downsample_3x3_fix', pictures: 'dynamic' },
};

/** The folders of the parts. */
export const VILA_FOLDERS = { decoder: 'llm', tower: 'vision_tower', projector: 'mm_projector' } as const;

/** The name of a projector's layer, and the widths that it reads and gives: of a block, of three patches, or of the decoder. A norm has one width. */
type ProjectorLayer = readonly [name: string, from: Width, to?: Width];
type Width = 'block' | 'three' | 'decoder';

const DOWNSAMPLE = [
  ['layers.1', 'block'],
  ['layers.2', 'block', 'decoder'],
  ['layers.4', 'decoder', 'decoder'],
] as const;

/** The projectors: patches per side of the block that becomes a token, and the layers. GELU follows each linear layer but the last. */
const PROJECTORS = {
  linear: { block: 1, layers: [['layers', 'block', 'decoder']] },
  mlp2x_gelu: {
    block: 1,
    layers: [
      ['layers.0', 'block', 'decoder'],
      ['layers.2', 'decoder', 'decoder'],
    ],
  },
  mlp_downsample: { block: 2, layers: DOWNSAMPLE },
  mlp_downsample_2x2_fix: { block: 2, layers: DOWNSAMPLE },
  mlp_downsample_3x3_fix: {
    block: 3,
    layers: [
      ['layers.1', 'block'],
      ['layers.2', 'block', 'three'],
      ['layers.4', 'three'],
      ['layers.5', 'three', 'decoder'],
      ['layers.7', 'decoder', 'decoder'],
    ],
  },
} as const satisfies Readonly<Record<string, { readonly block: number; readonly layers: readonly ProjectorLayer[] }>>;
type ProjectorType = keyof typeof PROJECTORS;
const PROJECTOR_TYPES = Object.keys(PROJECTORS) as ProjectorType[];

/** VILA's code adds this token to a tokenizer that lacks it. */
const IMAGE_MARKER = '<image>';

/** torch's default epsilon, which VILA's projectors use. */
const PROJECTOR_NORM_EPS = 1e-5;

export const vila: Adapter = { types: ['llava_llama', 'vila', ...Object.keys(HF_TYPES)], plan };

/** The config of each part, and the folder of its tensors. */
interface Parts {
  readonly config: Readonly<Record<PartName, ConfigReader>>;
  readonly sources: Readonly<Record<PartName, PartSource>>;
  readonly textFolder: string;
  readonly preprocessorFile: string;
}

function plan(files: CheckpointFiles): Plan {
  const { root } = files;
  const family = root.string('model_type');
  const port = HF_TYPES[family];
  const { config, sources, textFolder, preprocessorFile } = port === undefined ? folders(files) : oneFolder(files);
  const tower = siglipTower(config.tower);
  checkVilaSettings(root, tower.imageSize, port === undefined ? Object.values(VILA_FOLDERS) : []);
  const decoder = parseDecoderConfig(config.decoder.json, config.decoder.file);
  const type = config.projector.oneOf('mm_projector_type', PROJECTOR_TYPES, port?.projector);
  const pictures = picturesOf(root, port?.pictures);
  const scales = pictures === 'dynamic_s2' ? scalesOf(root, tower.imageSize, port === undefined ? 0 : -1) : undefined;
  // VILA resizes pictures to the tower's size itself, except in mode `pad` and if its config has no mode.
  const isResized = pictures !== undefined && pictures !== 'pad';
  const settings = configReader(readJson(preprocessorFile), preprocessorFile);
  // The processor alone would keep the aspect ratio then.
  if (pictures === undefined && typeof settings.json.size === 'object' && settings.object('size')?.has('shortest_edge'))
    throw settings.unsupported('size', 'height and width, or "image_aspect_ratio" in the root config');
  const pixels = parsePreprocessorConfig(settings.json, preprocessorFile, { isResized });
  requireTowerSize(pixels, tower.imageSize, preprocessorFile);
  const e = tower.hiddenSize * (scales?.sides.length ?? 1);
  const { block } = PROJECTORS[type];
  const pools = poolsOf(root, Math.ceil(Math.floor(tower.imageSize / tower.patchSize) / block));
  const shape = { tower, block, copies: scales?.sides.length ?? 1 };
  return {
    folder: files.folder,
    family,
    decoder,
    tower: { ...tower, depth: hiddenStateDepth(root, 'mm_vision_select_layer', -2, tower.layers) },
    projector: projectorSteps(type, e, decoder.hiddenSize),
    sources,
    names: [[/^mm_projector\./, 'projector.'], ...DECODER_NAMES, ...CLIP_NAMES],
    pixels: normalizationOf(pixels),
    root,
    text: {
      folder: textFolder,
      config: config.decoder,
      added: root.has('image_token_id') ? [] : [IMAGE_MARKER],
      template: root.has('chat_template') ? { name: root.string('chat_template'), file: root.file } : undefined,
      strips: true,
    },
    marker: root.has('image_token_id') ? { id: root.number('image_token_id') } : { text: IMAGE_MARKER },
    videos: true,
    sampling: samplingOf(root, pools),
    layout: layoutOf(root, config.decoder.string('model_type'), shape, { pictures, pixels, scales, pools }),
  };
}

function folders({ folder, root }: CheckpointFiles): Parts {
  const own = VILA_FOLDERS;
  const config = (part: PartName): ConfigReader => {
    const file = join(folder, own[part], 'config.json');
    return configReader(readJson(file), file);
  };
  const source = (part: PartName): PartSource => ({ folder: join(folder, own[part]), prefix: `${own[part]}.` });
  return {
    config: { decoder: config('decoder'), tower: config('tower'), projector: config('projector') },
    sources: {
      // transformers reads the root's config first.
      decoder: { ...source('decoder'), quantization: quantizationIn(root) },
      tower: source('tower'),
      projector: source('projector'),
    },
    textFolder: join(folder, 'llm'),
    preprocessorFile: join(folder, 'vision_tower', 'preprocessor_config.json'),
  };
}

function oneFolder({ folder, root, part }: CheckpointFiles): Parts {
  for (const key of ['text_config', 'vision_config']) if (!root.has(key)) throw root.wrong(key, 'an object');
  // In the ports the root says for all parts whether the head is the embedding.
  const tied = root.has('tie_word_embeddings') ? { tie_word_embeddings: root.json.tie_word_embeddings } : {};
  return {
    config: { decoder: part('text_config', tied), tower: part('vision_config'), projector: part('projector_config') },
    sources: wholeFolder(folder),
    textFolder: folder,
    preprocessorFile: join(folder, 'preprocessor_config.json'),
  };
}

/** The projector's steps after its blocks are formed; e: width of a patch's features, d: decoder width. */
function projectorSteps(type: ProjectorType, e: number, d: number): readonly ProjectorStep[] {
  const { block, layers } = PROJECTORS[type];
  const widths = { block: e * block ** 2, three: 3 * e, decoder: d };
  return layers.map(([name, from, to], i) => {
    if (to === undefined) return { kind: 'norm', name, width: widths[from], bias: true, eps: PROJECTOR_NORM_EPS };
    const activation = i < layers.length - 1 ? 'gelu' : 'none';
    return { kind: 'linear', name, rows: widths[to], cols: widths[from], bias: true, activation };
  });
}
