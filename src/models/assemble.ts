// Builds a model from a plan and the weights that it names: the one loader of all families.

import { join } from 'node:path';
import { isPresent } from '../files';
import { type ConfigReader, readJson } from '../json';
import type { Tensor } from '../runtime/tensor';
import { checkEmbedded } from '../text/embedded';
import { type GenerationConfig, parseGenerationConfig, stopIdsOf } from '../text/generation_config';
import { loadChatTemplate } from '../text/template_file';
import { loadTokenizer, type Tokenizer } from '../text/tokenizer';
import type { DecoderConfig } from './config';
import { BEYOND_EMBEDDING, type Decoder, decoder, type EmbeddingTable, embeddingTable } from './decoder';
import { besideProjector } from './deepstack';
import { keepTokens } from './kept_tokens';
import { type MediaInput, type MediumLayout, type PreparedMedium, tokensOf } from './media';
import type { EncodedMedium, EncodeOptions, LoadOptions, RowModel, VisionLanguageModel } from './model';
import { canonicalName } from './names';
import { pacer } from './pacer';
import { patchValues, pixelTables, tokenPixels } from './patches';
import type { PartName, Plan } from './plan';
import { prepareMedia } from './prepare_media';
import { buildProjector, type Projector } from './projector';
import { mapRows, mapValues, placesIn, spread, spreadValues } from './row_maps';
import { asResized, smallerPlan } from './smaller';
import { buildTower, type Tower } from './tower';
import { endOfAnswer, type Renderer, type Turn, transcript } from './transcript';
import { type MatrixCache, openWeightCache } from './weight_cache';
import { openWeights, type Weights } from './weights';

const DEFAULT_NEW_TOKENS = 1024;

/** Builds a model from a plan. @throws SparseVilaError `ERR_WEIGHT_…`, `ERR_TOKENIZER_…`, `ERR_TEMPLATE_…`; `signal.reason` once aborted */
export const assemble = (plan: Plan, options: LoadOptions): Promise<VisionLanguageModel> =>
  assembleWith<Decoder>(plan, options, decoder, []);

/** Builds a model as `loadPlan` does, but reads neither the decoder's layers nor its head. */
export const assembleRows = (plan: Plan, options: LoadOptions): Promise<RowModel> =>
  assembleWith<EmbeddingTable>(plan, options, embeddingTable, BEYOND_EMBEDDING);

type BuildDecoder<D> = (config: DecoderConfig, weights: Weights, loaded: () => Promise<void>) => Promise<D>;

/** Builds tower, projector and decoder, which fixes the order in which their tensors are requested. Awaits `loaded` after each layer. */
export async function buildParts<D>(
  plan: Plan,
  weights: Readonly<Record<PartName, Weights>>,
  build: BuildDecoder<D>,
  loaded: () => Promise<void>,
): Promise<{
  readonly tower: Tower;
  readonly projector: Projector;
  readonly newline: Tensor | undefined;
  readonly decoder: D;
}> {
  const tower = await buildTower(plan.tower, weights.tower, loaded);
  const projectors = [plan.projector, ...(plan.deepstack ?? [])].map((steps) =>
    buildProjector(steps, weights.projector),
  );
  const projector = besideProjector(projectors, plan.tower.hiddenSize);
  const newline = plan.newline && weights.projector.tensor(plan.newline, [plan.decoder.hiddenSize]);
  return {
    tower,
    projector,
    newline: newline || undefined,
    decoder: await build(plan.decoder, weights.decoder, loaded),
  };
}

async function assembleWith<D extends EmbeddingTable>(
  plan: Plan,
  options: LoadOptions,
  build: BuildDecoder<D>,
  unread: readonly RegExp[],
): Promise<Omit<VisionLanguageModel, 'decoder'> & { readonly decoder: D }> {
  const pause = pacer(options.signal);
  const opened: Weights[] = [];
  const cache = unread.length === 0 ? cacheOf(plan, options) : undefined;
  const open = (part: PartName, ignore: readonly RegExp[] = []): Weights => {
    const weights = openPart(plan, part, options, ignore, cache);
    opened.push(weights);
    return weights;
  };
  const report = async (): Promise<void> => {
    const done = opened.reduce((sum, { progress }) => sum + progress.done, 0);
    const total = opened.reduce((sum, { progress }) => sum + progress.total, 0);
    options.onProgress?.({ step: 'load weights', done, total, unit: 'bytes' });
    await pause();
  };
  try {
    const text = textSide(plan, options);
    const parts = { tower: open('tower'), projector: open('projector'), decoder: open('decoder', unread) };
    const { tower, projector, newline, decoder: llm } = await buildParts(plan, parts, build, report);
    for (const weights of opened) weights.close();
    await report();
    cache?.finish();
    return {
      ...{ family: plan.family, path: plan.folder, plan, decoder: llm, newline },
      ...text,
      ...mediaSide(plan, tower, projector, options),
      dispose: () => {
        for (const weights of opened) weights.dispose();
      },
    };
  } catch (error) {
    for (const weights of opened) weights.dispose();
    cache?.close();
    throw error;
  }
}

/** Packed matrices on disk for a whole model. */
const cacheOf = (plan: Plan, { weights: type, precision, weightCache: wanted }: LoadOptions): MatrixCache | undefined =>
  openWeightCache({
    ...{ model: plan.folder, folders: Object.values(plan.sources).map(({ folder }) => folder) },
    ...{ type, precision, wanted },
  });

/** The weights of one part, under canonical names without the part's prefix. A name that belongs to no part counts as an extra tensor of the decoder. */
export function openPart(
  plan: Plan,
  part: PartName,
  { weights: type, precision }: Pick<LoadOptions, 'weights' | 'precision'>,
  ignore: readonly RegExp[] = [],
  cache?: MatrixCache,
): Weights {
  const options = indexOptions(plan, part);
  return openWeights(plan.sources[part].folder, {
    ...{ ...options, type, precision, cache },
    ignore: [...options.ignore, ...ignore],
  });
}

/** How the files of a part are read: its quantization config, its names, and the names of other parts. */
export const indexOptions = (plan: Plan, part: PartName) => ({
  family: plan.family,
  quantization: plan.sources[part].quantization,
  rename: partName(plan, part),
  ignore: [/^of another part: /],
});

/** A function from names in a part's files to canonical names without the part's prefix; names of other parts become `of another part: …`. */
export function partName(plan: Plan, part: PartName): (name: string) => string {
  const { prefix } = plan.sources[part];
  const own = `${part}.`;
  return (name) => {
    const canonical =
      canonicalName(prefix + name, plan.names) ?? (part === 'decoder' ? own + name : `of another part: ${name}`);
    return canonical.startsWith(own) ? canonical.slice(own.length) : `of another part: ${canonical}`;
  };
}

type TextSide = Pick<
  VisionLanguageModel,
  'template' | 'marker' | 'tokenizer' | 'videoPlaceholder' | 'stopIds' | 'sampling' | 'maxNewTokens'
>;

/** Loads tokenizer, template and everything else that turns text into ids. @throws SparseVilaError `ERR_TOKENIZER_…`, `ERR_TEMPLATE_…`, `ERR_CONFIG_…` */
export function textSide(plan: Plan, { template: given }: Pick<LoadOptions, 'template'>): TextSide {
  const { text, decoder: config, folder: path } = plan;
  const rows = config.vocabSize;
  const loaded = loadTokenizer(text.folder, { added: text.added ?? [] });
  const tokenizer = text.startsTexts === false ? { ...loaded, prefixIds: [] } : loaded;
  const { template: named, strips = false } = text;
  const template = loadChatTemplate(text.folder, { template: given, named, path, strips });
  const marker = markerOf(plan, tokenizer);
  const { imagePlaceholder, videoPlaceholder } = plan;
  const renderer = { template, marker, tokenizer, imagePlaceholder, videoPlaceholder };
  checkTemplate(renderer, tokenizer, rows);
  checkAround(plan, tokenizer, rows);
  const file = join(text.folder, 'generation_config.json');
  const generation: GenerationConfig = isPresent(file)
    ? parseGenerationConfig(readJson(file), file)
    : { sampling: {}, stopIds: [] };
  return {
    ...renderer,
    stopIds: stopIds(tokenizer, endOfAnswer(renderer), generation, text.config, rows),
    sampling: generation.sampling,
    maxNewTokens: generation.maxNewTokens ?? DEFAULT_NEW_TOKENS,
  };
}

function markerOf({ marker, root }: Plan, tokenizer: Tokenizer): { text: string; id: number } {
  const id = 'id' in marker ? marker.id : tokenizer.idOf(marker.text);
  const text = id === undefined ? '' : tokenizer.decode([id], { skipSpecial: false });
  const found = text === '' ? [] : tokenizer.encode(`a${text}b`).filter((one) => one === id);
  if (id !== undefined && found.length === 1 && tokenizer.isSpecial(id)) return { text, id };
  // LLaVA's name for the same setting.
  const key = ['image_token_id', 'image_token_index'].find((name) => root.has(name)) ?? 'image_token_id';
  throw root.wrong(key, 'the id of the image marker, a special token of the tokenizer');
}

/** Checks that the text which the template itself prints consists of tokens that the model embeds, without image markers. */
function checkTemplate(renderer: Renderer, tokenizer: Tokenizer, rows: number): void {
  const turns = PROBE.map(([role, words]): Turn => ({ role, parts: [words] }));
  const { text } = transcript(renderer, turns, () => '');
  const ids = [...tokenizer.prefixIds, ...tokenizer.encode(text)];
  checkEmbedded(ids, tokenizer, rows, `the chat template ${renderer.template.file}`, 'ERR_TEMPLATE_INVALID');
}

const PROBE = [
  ['user', 'a'],
  ['assistant', 'b'],
  ['user', 'c'],
] as const;

/** Checks that the model embeds the tokens of the texts around runs. These texts are the same for every picture. */
function checkAround({ layout, root }: Plan, tokenizer: Tokenizer, rows: number): void {
  const { runs } = layout({ kind: 'image', width: 64, height: 64, frames: 1 }, { media: 1 });
  const texts = runs.flatMap(({ before = '', after = '' }) => [before, after]);
  const ids = texts.flatMap((text) => tokenizer.encode(text));
  checkEmbedded(ids, tokenizer, rows, `the text around images of ${root.file}`, 'ERR_CONFIG_INVALID');
}

/** Stop tokens: eos of the generation config and of the decoder's config, and the template's end of turn. */
function stopIds(
  tokenizer: Tokenizer,
  endOfAnswer: string,
  generation: GenerationConfig,
  config: ConfigReader,
  rows: number,
): number[] {
  const ids = new Set([...generation.stopIds, ...stopIdsOf(config)]);
  const [first] = tokenizer.encode(endOfAnswer);
  if (first !== undefined && tokenizer.isSpecial(first)) ids.add(first);
  if (ids.size > 0 && [...ids].every((id) => id >= rows))
    throw config.wrong('eos_token_id', `an id below ${rows}, so that answers can end (also in generation_config.json)`);
  return [...ids];
}

function mediaSide(plan: Plan, tower: Tower, projector: Projector, { maxPixels, allowUrls }: LoadOptions) {
  const tables = pixelTables(plan.pixels);
  const { hiddenSize, heads } = plan.tower;
  return {
    async prepare(media: readonly MediaInput[], signal?: AbortSignal, share = 1) {
      const options = { maxPixels, allowUrls, signal };
      if (share === 1) return prepareMedia(plan, media, options);
      const prepared = await prepareMedia(smallerPlan(plan, share), media, options);
      return prepared.map((medium) => asResized(plan, medium, share));
    },
    pixels: (medium: PreparedMedium, from: number, to: number) => tokenPixels(plan, tables, medium, { from, to }),
    async encode(
      { layout, canvases }: PreparedMedium,
      { pace, tokens, memory, ...taps }: EncodeOptions,
    ): Promise<EncodedMedium> {
      const { patches, merge } =
        tokens === undefined ? layout : keepTokens(layout, tokens, Number(plan.tower.classToken));
      const values = (begin: number, end: number) => patchValues(canvases, patches, { begin, end }, plan.tower, tables);
      const seen = await tower.run(patches, values, taps, pace, memory);
      const count = tokensOf(layout);
      const merged = mapRows(seen.features, merge);
      seen.features.dispose();
      const places = tokens && placesIn(tokens, count);
      const features = places ? spread(merged, places) : pooled(merged, layout, projector);
      const perToken = (numbers: Float32Array, width: number): Float32Array => {
        const own = mapValues(numbers, merge, width);
        if (places !== undefined) return spreadValues(own, places, width);
        return layout.pool === undefined ? own : mapValues(own, layout.pool, width);
      };
      return {
        layout,
        ...{ tokens: count, seen: tokens },
        features,
        salience: seen.salience.map((numbers) => perToken(numbers, 1)),
        keys: seen.keys.map((numbers) => ({ data: perToken(numbers, hiddenSize), width: hiddenSize / heads })),
        dispose: () => features.dispose(),
      };
    },
    project: (features: Tensor, { pool }: MediumLayout): Tensor =>
      pool === undefined ? projector(features) : features.clone(),
  };
}

/** For a model that pools after its projector: projects all rows and pools them, and disposes of `merged`. Otherwise `merged` itself. */
function pooled(merged: Tensor, { pool }: MediumLayout, projector: Projector): Tensor {
  if (pool === undefined) return merged;
  const rows = projector(merged);
  merged.dispose();
  const features = mapRows(rows, pool);
  rows.dispose();
  return features;
}
