// VILA and NVILA, in folders (llm/, vision_tower/, mm_projector/) or in one as their -hf ports: SigLIP tower, VILA projectors, a Llama
// or Qwen2 decoder. `resize` and `pad` image modes.
// Source: NVlabs/VILA `llava/model/llava_arch.py`, `llava/mm_utils.py`, `llava/model/encoders/image/basic.py`.

import { join } from 'node:path';
import { SparseVilaError } from '../../errors';
import { isPresent } from '../../files';
import { cellGeometry, type Size } from '../../image/cells';
import { type PreprocessorConfig, parsePreprocessorConfig, preprocess } from '../../image/preprocess';
import { type ConfigReader, configReader, type Json, readJson } from '../../json';
import type { Tensor } from '../../runtime/tensor';
import { checkEmbedded, checkPieces } from '../../text/embedded';
import { type GenerationConfig, parseGenerationConfig, stopIdsOf } from '../../text/generation_config';
import { turnPieces } from '../../text/template';
import { loadChatTemplate } from '../../text/template_file';
import { loadTokenizer, type Tokenizer } from '../../text/tokenizer';
import { breather } from '../breath';
import { type DecoderConfig, parseDecoderConfig, parseSiglipConfig } from '../config';
import { BEYOND_EMBEDDING, type Decoder, decoder, type EmbeddingTable, embeddingTable } from '../decoder';
import type { LoadOptions, RowModel, VisionLanguageModel } from '../model';
import { PROJECTOR_TYPES, type Projector, vilaProjector } from '../projector';
import { type PartConfig, type VilaLayout, type VilaPart, vilaLayout } from '../vila_layout';
import { checkResolution, checkVilaSettings, imageMode, imageTokens } from '../vila_settings';
import { siglipTower, type VisionTower } from '../vit';
import { openWeights, type Weights } from '../weights';

/** `model_type`s that this adapter reads. */
export const VILA_MODEL_TYPES = ['llava_llama', 'vila', 'nvila', 'nvila_lite'] as const;

const DEFAULT_NEW_TOKENS = 1024;
/** VILA adds it to the tokenizer of a checkpoint that lacks it. */
const IMAGE_MARKER = '<image>';

interface VilaConfig {
  readonly layout: VilaLayout;
  readonly root: ConfigReader;
  readonly mode: 'resize' | 'pad';
  readonly selectLayer: number;
  readonly pixels: PreprocessorConfig;
}

/** Loads the checkpoint in `folder`, whose root config is `json`. */
export const loadVila = (folder: string, json: Json, options: LoadOptions): Promise<VisionLanguageModel> =>
  loadParts<Decoder>(folder, json, options, decoder, []);

/** The same without the decoder's layers and head, of which nothing is read. */
export const loadVilaRows = (folder: string, json: Json, options: LoadOptions): Promise<RowModel> =>
  loadParts<EmbeddingTable>(folder, json, options, embeddingTable, BEYOND_EMBEDDING);

async function loadParts<D extends EmbeddingTable>(
  folder: string,
  json: Json,
  options: LoadOptions,
  build: (config: DecoderConfig, weights: Weights, loaded: () => Promise<void>) => Promise<D>,
  unread: readonly RegExp[],
): Promise<Omit<VisionLanguageModel, 'decoder'> & { readonly decoder: D }> {
  const layout = vilaLayout(folder, json);
  const config = parseConfig(folder, layout);
  const breathe = breather(options.signal);
  const opened: Weights[] = [];
  const open = (part: VilaPart, unread: readonly RegExp[] = []): Weights => {
    const { folder: source, options: more } = layout.weights(part);
    const ignore = [...(more.ignore ?? []), ...unread];
    const weights = openWeights(source, { type: options.weights, precision: options.precision, ...more, ignore });
    opened.push(weights);
    return weights;
  };
  const report = async (): Promise<void> => {
    const done = opened.reduce((sum, { progress }) => sum + progress.done, 0);
    const total = opened.reduce((sum, { progress }) => sum + progress.total, 0);
    options.onProgress?.({ step: 'load weights', done, total, unit: 'bytes' });
    await breathe();
  };
  try {
    const towerConfig = subConfig(layout, 'vision_tower', parseSiglipConfig);
    const decoderConfig = subConfig(layout, 'llm', parseDecoderConfig);
    checkSizes(config, towerConfig.imageSize, folder);
    checkResolution(config.root, towerConfig.imageSize);
    checkSelectLayer(config, towerConfig.layers);
    const text = textSide(config, folder, decoderConfig.vocabSize, options);
    const towerWeights = open('vision_tower');
    const projectorWeights = open('mm_projector');
    const decoderWeights = open('llm', unread);
    const tower = await siglipTower(towerConfig, towerWeights, config.selectLayer, report);
    const [e, d] = [towerConfig.hiddenSize, decoderConfig.hiddenSize];
    const projector = vilaProjector(projectorType(layout), e, d, projectorWeights);
    const llm = await build(decoderConfig, decoderWeights, report);
    for (const weights of opened) weights.close();
    await report();
    return {
      family: config.root.string('model_type'),
      path: folder,
      decoder: llm,
      ...text,
      ...imageSide(config, tower, projector, options),
      dispose: () => {
        for (const weights of opened) weights.dispose();
      },
    };
  } catch (error) {
    for (const weights of opened) weights.dispose();
    throw error;
  }
}

function parseConfig(folder: string, layout: VilaLayout): VilaConfig {
  const root = configReader(layout.root, join(folder, 'config.json'));
  checkVilaSettings(root);
  const { mode, isResized } = imageMode(root);
  const file = layout.preprocessorFile;
  const settings = configReader(readJson(file), file);
  // A processor alone keeps the aspect ratio then.
  if (
    !root.has('image_aspect_ratio') &&
    typeof settings.json.size === 'object' &&
    settings.object('size')?.has('shortest_edge')
  )
    throw settings.unsupported('size', 'height and width, or "image_aspect_ratio" in the root config');
  return {
    layout,
    root,
    mode,
    selectLayer: root.number('mm_vision_select_layer', -2),
    pixels: parsePreprocessorConfig(settings.json, file, { isResized }),
  };
}

function subConfig<T>({ configs }: VilaLayout, part: VilaPart, parse: (json: Json, file: string) => T): T {
  const { json, file } = configs[part];
  return parse(json, file);
}

function projectorType({ configs }: VilaLayout): (typeof PROJECTOR_TYPES)[number] {
  const { json, file } = configs.mm_projector;
  return configReader(json, file).oneOf('mm_projector_type', PROJECTOR_TYPES);
}

function checkSizes({ layout, pixels }: VilaConfig, imageSize: number, folder: string): void {
  if (!pixels.doResize) {
    const message = `expected do_resize true, because pictures have to be brought to the tower's size, received false.`;
    throw new SparseVilaError('ERR_PREPROCESSOR_CONFIG', `${layout.preprocessorFile}: ${message}`);
  }
  const { height, width } = pixels.size;
  if (height === imageSize && width === imageSize) return;
  throw new SparseVilaError(
    'ERR_CONFIG_INVALID',
    `${folder}: expected the preprocessor's size to be the tower's image_size ${imageSize}, received ${height}x${width}.`,
  );
}

function checkSelectLayer({ root, selectLayer }: VilaConfig, layers: number): void {
  if (Number.isInteger(selectLayer) && selectLayer >= -layers - 1 && selectLayer <= layers) return;
  throw root.wrong(
    'mm_vision_select_layer',
    `one of the tower's ${layers + 1} hidden states (${-layers - 1} to ${layers})`,
  );
}

function textSide({ root, layout }: VilaConfig, path: string, rows: number, { template: given }: LoadOptions) {
  const llm = layout.textFolder;
  const config = layout.configs.llm;
  const tokenizer = loadTokenizer(llm, { added: root.has('image_token_id') ? [] : [IMAGE_MARKER] });
  const named = root.has('chat_template') ? { name: root.string('chat_template'), file: root.file } : undefined;
  const template = loadChatTemplate(llm, { template: given, named, path, strips: true });
  const pieces = turnPieces(template);
  const marker = imageMarker(root, tokenizer);
  checkPieces(pieces, tokenizer, marker, { rows, file: template.file });
  const around = imageTokens(root, tokenizer, configReader(config.json, config.file).string('model_type'));
  checkEmbedded(
    [...around.start, ...around.end],
    tokenizer,
    rows,
    `the text around images of ${root.file}`,
    'ERR_CONFIG_INVALID',
  );
  const generationFile = join(llm, 'generation_config.json');
  const generation: GenerationConfig = isPresent(generationFile)
    ? parseGenerationConfig(readJson(generationFile), generationFile)
    : { sampling: {}, stopIds: [] };
  return {
    tokenizer,
    template,
    imageMarker: marker,
    startOfImage: around.start,
    endOfImage: around.end,
    stopIds: stopIds(tokenizer, pieces.endOfAnswer, generation, config, rows),
    sampling: generation.sampling,
    maxNewTokens: generation.maxNewTokens ?? DEFAULT_NEW_TOKENS,
  };
}

function imageMarker(root: ConfigReader, tokenizer: Tokenizer): { text: string; id: number } {
  const id = root.has('image_token_id') ? root.number('image_token_id') : tokenizer.idOf(IMAGE_MARKER);
  const text = id === undefined ? '' : tokenizer.decode([id], { skipSpecial: false });
  const found = text === '' ? [] : tokenizer.encode(`a${text}b`).filter((one) => one === id);
  if (id === undefined || found.length !== 1 || !tokenizer.isSpecial(id))
    throw root.wrong('image_token_id', 'the id of the image marker, a special token of the tokenizer');
  return { text, id };
}

/** eos of the generation config and the decoder's config, and the template's own end of turn. */
function stopIds(
  tokenizer: Tokenizer,
  endOfAnswer: string,
  generation: GenerationConfig,
  llm: PartConfig,
  rows: number,
): number[] {
  const config = configReader(llm.json, llm.file);
  const ids = new Set([...generation.stopIds, ...stopIdsOf(config)]);
  const [first] = tokenizer.encode(endOfAnswer);
  if (first !== undefined && tokenizer.isSpecial(first)) ids.add(first);
  if (ids.size > 0 && [...ids].every((id) => id >= rows))
    throw config.wrong('eos_token_id', `an id below ${rows}, so that answers can end (also in generation_config.json)`);
  return [...ids];
}

function imageSide(
  config: VilaConfig,
  tower: VisionTower,
  projector: Projector,
  { maxPixels, allowUrls }: LoadOptions,
) {
  const side = projector.merged(tower.grid);
  const input = { size: tower.config.imageSize, patch: tower.config.patchSize };
  const headWidth = tower.config.hiddenSize / tower.config.heads;
  return {
    prepareImage: (input: Parameters<VisionLanguageModel['prepareImage']>[0], signal?: AbortSignal) =>
      preprocess(input, config.pixels, config.mode, { maxPixels, allowUrls, signal }),
    encodeImage: (async (pixels, { breathe, ...taps }) => {
      const { features: patches, salience, keys } = await tower.run(pixels.pixels, taps, breathe);
      const features = projector.merge(patches, tower.grid);
      patches.dispose();
      return {
        grid: { rows: side, cols: side },
        tokens: side * side,
        features,
        salience: salience.map((values) => projector.mergeValues(values, tower.grid)),
        keys: keys.map((values) => ({ data: projector.mergeValues(values, tower.grid), width: headWidth })),
        dispose: () => features.dispose(),
      };
    }) satisfies VisionLanguageModel['encodeImage'],
    cellsOf: (picture: Size) => cellGeometry(picture, { ...input, mode: config.mode, block: projector.block }),
    project: (features: Tensor) => projector.project(features),
  };
}
