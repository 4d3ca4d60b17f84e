// VILA and NVILA: a SigLIP tower, VILA's projectors, a Llama or Qwen2 decoder. The parts are in separate folders (`llm/`, `vision_tower/`,
// `mm_projector/`), or all in one as in the NVILA `-hf` ports (`model_type` nvila and nvila_lite).
// Source: NVlabs/VILA b760c34 `llava/model/llava_arch.py`, `multimodal_projector/base_projector.py`, `encoders/`.

import { join } from 'node:path';
import { quantizationIn } from '../../checkpoint/quantized_config';
import { SparseVilaError } from '../../errors';
import type { Rgb } from '../../image/canvas';
import { type Normalization, type PreprocessorConfig, parsePreprocessorConfig } from '../../image/preprocessor_config';
import { type ConfigReader, configReader, readJson } from '../../json';
import type { Adapter } from '../adapter';
import type { CheckpointFiles } from '../checkpoint_files';
import { parseDecoderConfig } from '../config';
import type { MediumLayout, MediumSize } from '../media';
import { CLIP_NAMES, DECODER_NAMES } from '../names';
import { type PartName, type PartSource, type Plan, wholeFolder } from '../plan';
import type { ProjectorStep } from '../projector';
import { tileRange } from '../tile_choice';
import { hiddenStateDepth, siglipTower } from '../tower_config';
import { type Pool, padded, resized, type Scales, type Shape, scaled, tiled, videoLayout } from './vila_layouts';
import {
  checkVilaSettings,
  encoderTexts,
  type Pictures,
  picturesOf,
  poolsOf,
  samplingOf,
  scalesOf,
} from './vila_settings';

/** `model_type`s of the `-hf` ports. Each implies a projector and a way of cutting pictures, which the files do not state. */
export const HF_TYPES: Readonly<Record<string, { readonly projector: ProjectorType; readonly pictures: Pictures }>> = {
  nvila: { projector: 'mlp_downsample_2x2_fix', pictures: 'dynamic_s2' },
  nvila_lite: { projector: 'mlp_downsample_3x3_fix', pictures: 'dynamic' },
};

/** The folders of the parts. */
export const VILA_FOLDERS = { decoder: 'llm', tower: 'vision_tower', projector: 'mm_projector' } as const;

const PROJECTORS = [
  'linear',
  'mlp2x_gelu',
  'mlp_downsample',
  'mlp_downsample_2x2_fix',
  'mlp_downsample_3x3_fix',
] as const;
type ProjectorType = (typeof PROJECTORS)[number];

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
  const type = config.projector.oneOf('mm_projector_type', PROJECTORS, port?.projector);
  const pictures = picturesOf(root, port?.pictures);
  const scales = pictures === 'dynamic_s2' ? scalesOf(root, tower.imageSize, port === undefined ? 0 : -1) : undefined;
  // VILA resizes pictures to the tower's size itself, except in mode `pad` and if its config has no mode.
  const isResized = pictures !== undefined && pictures !== 'pad';
  const settings = configReader(readJson(preprocessorFile), preprocessorFile);
  // The processor alone would keep the aspect ratio then.
  if (pictures === undefined && typeof settings.json.size === 'object' && settings.object('size')?.has('shortest_edge'))
    throw settings.unsupported('size', 'height and width, or "image_aspect_ratio" in the root config');
  const pixels = parsePreprocessorConfig(settings.json, preprocessorFile, { isResized });
  checkSizes(pixels, tower.imageSize, preprocessorFile);
  const e = tower.hiddenSize * (scales?.sides.length ?? 1);
  const block = blockSide(type);
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
    pixels: normalization(pixels),
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
    layout: layoutOf(root, config.decoder, shape, { pictures, pixels, scales, pools }),
  };
}

function checkSizes({ doResize, size }: PreprocessorConfig, imageSize: number, file: string): void {
  if (!doResize) {
    const message = `expected do_resize true, because pictures have to be brought to the tower's size, received false.`;
    throw new SparseVilaError('ERR_PREPROCESSOR_CONFIG', `${file}: ${message}`);
  }
  if (size.height === imageSize && size.width === imageSize) return;
  throw new SparseVilaError(
    'ERR_CONFIG_INVALID',
    `${file}: expected the preprocessor's size to be the tower's image_size ${imageSize}, received ${size.height}x${size.width}.`,
  );
}

function normalization({ doRescale, rescaleFactor, doNormalize, mean, std }: PreprocessorConfig): Normalization {
  return {
    rescaleFactor: doRescale ? rescaleFactor : 1,
    mean: doNormalize ? mean : [0, 0, 0],
    std: doNormalize ? std : [1, 1, 1],
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

const blockSide = (type: ProjectorType): number =>
  type === 'mlp_downsample_3x3_fix' ? 3 : type.startsWith('mlp_downsample') ? 2 : 1;

/** The projector's steps after its blocks are formed; e: width of a patch's features, d: decoder width. */
export function projectorSteps(type: ProjectorType, e: number, d: number): readonly ProjectorStep[] {
  const width = e * blockSide(type) ** 2;
  const norm = (name: string, width: number): ProjectorStep => {
    return { kind: 'norm', name, width, bias: true, eps: PROJECTOR_NORM_EPS };
  };
  const linear = (name: string, rows: number, cols: number, activation: 'gelu' | 'none' = 'none'): ProjectorStep => {
    return { kind: 'linear', name, rows, cols, bias: true, activation };
  };
  if (type === 'linear') return [linear('layers', d, width)];
  if (type === 'mlp2x_gelu') return [linear('layers.0', d, width, 'gelu'), linear('layers.2', d, d)];
  if (type !== 'mlp_downsample_3x3_fix')
    return [norm('layers.1', width), linear('layers.2', d, width, 'gelu'), linear('layers.4', d, d)];
  return [
    norm('layers.1', width),
    linear('layers.2', 3 * e, width, 'gelu'),
    norm('layers.4', 3 * e),
    linear('layers.5', d, 3 * e, 'gelu'),
    linear('layers.7', d, d),
  ];
}

function layoutOf(
  root: ConfigReader,
  text: ConfigReader,
  base: Omit<Shape, 'before' | 'after'>,
  {
    pictures,
    pixels,
    scales,
    pools,
  }: {
    pictures: Pictures | undefined;
    pixels: PreprocessorConfig;
    scales: Scales | undefined;
    pools: readonly Pool[];
  },
): Plan['layout'] {
  const decoderType = text.string('model_type');
  const picture: Shape = { ...base, ...encoderTexts(root, 'image_encoder', decoderType) };
  const frame: Shape = { ...base, ...encoderTexts(root, 'video_encoder', decoderType) };
  const range = pictures === 'dynamic' ? tileRange(root, ['min_tiles', 'max_tiles']) : undefined;
  const [r, g, b] = pixels.mean.map((mean) => Math.trunc(mean * 255)) as [number, number, number];
  const color: Rgb = [r, g, b];
  // Where VILA resizes, the filter is bicubic, Pillow's default; where it leaves resizing to the processor, the processor's filter applies.
  const filter = pixels.resample;
  const one = (size: MediumSize): MediumLayout =>
    pictures === 'pad' ? padded(picture, size, filter, color) : resized(picture, size, filter);
  const frameSteps = (size: MediumSize) => one(size).canvases[0]?.steps ?? [];
  return (size, { media }) => {
    if (size.kind === 'video') return videoLayout(frame, size, frameSteps(size), pools);
    // Each of several pictures in one turn is shown as one square.
    if (media === 1 && range !== undefined) return tiled(picture, size, range);
    if (media === 1 && scales !== undefined) return scaled(picture, size, scales);
    return one(size);
  };
}
