// A VILA checkpoint's parts in either of its layouts, folders or the one folder of the NVILA -hf ports, and how each becomes the
// other: names, configs and which file goes where. Knows nothing of what tensors hold.
// Source: vila_parts.ts.

import { join, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { writeJson } from '../checkpoint/export';
import { openTensors, type Tensors, withPrefix } from '../checkpoint/tensors';
import { SparseVilaError } from '../errors';
import { isPresent } from '../files';
import { type Json, readJson } from '../json';
import { impliedTemplate } from '../text/template_file';
import { HF_PREFIXES, HF_TYPES, isHfType, VILA_PARTS, type VilaPart } from './vila_parts';

export const LAYOUTS = ['folders', 'hf'] as const;
export type Layout = (typeof LAYOUTS)[number];

/** One part of a checkpoint: a folder's weights, or those of one prefix. '.' is a folder of no known layout. */
export interface Part {
  readonly name: VilaPart | '.';
  readonly tensors: Tensors;
  /** Undefined where the part has none. */
  readonly config: Json | undefined;
}

export interface Checkpoint {
  /** Undefined: a plain folder of weights. */
  readonly layout: Layout | undefined;
  readonly root: Json;
  readonly parts: readonly Part[];
}

const CONFIG_KEYS = { llm: 'text_config', vision_tower: 'vision_config', mm_projector: 'projector_config' } as const;
const FOLDER_KEYS = { llm_cfg: 'llm', vision_tower_cfg: 'vision_tower', mm_projector_cfg: 'mm_projector' } as const;
const HF_ARCHITECTURES = { nvila: 'NVILAForConditionalGeneration', nvila_lite: 'NVILALiteForConditionalGeneration' };
const VILA_TYPES = ['llava_llama', 'vila', ...Object.keys(HF_TYPES)];
const PREPROCESSOR = 'preprocessor_config.json';
/** What `llm/` holds besides weights and config. */
const TEXT_FILES =
  /^(tokenizer.*|vocab\..*|merges\.txt|special_tokens_map\.json|added_tokens\.json|generation_config\.json|chat_template\..*)$/;

const jsonAt = (file: string): Json | undefined => (isPresent(file) ? readJson(file) : undefined);
const hasWeights = (folder: string): boolean =>
  ['model.safetensors', 'model.safetensors.index.json'].some((name) => isPresent(join(folder, name)));

/**
 * The root config of a checkpoint. A chat template that only the checkpoint's path implies is named in it, because a copy has another path.
 */
function rootConfig(model: string): Json | undefined {
  const root = jsonAt(join(model, 'config.json'));
  const { model_type: type, chat_template: named } = root ?? {};
  if (!VILA_TYPES.includes(String(type)) || (named ?? undefined) !== undefined) return root;
  const name = impliedTemplate(isHfType(type) ? model : join(model, 'llm'), resolve(model));
  return name === undefined ? root : { ...root, chat_template: name };
}

/** Writes the root config of `model` into `folder`, a copy of it, where the copy needs more than the original says. */
export function keepTemplate(model: string, folder: string): void {
  const root = rootConfig(model);
  if (root !== undefined && !isDeepStrictEqual(root, jsonAt(join(model, 'config.json'))))
    writeJson(join(folder, 'config.json'), root);
}

/** Opens every part. @throws SparseVilaError `ERR_MODEL_MISSING` where there are no weights */
export function openParts(model: string): Checkpoint {
  const root = rootConfig(model) ?? {};
  if (isHfType(root.model_type)) {
    const all = openTensors(model);
    const parts = VILA_PARTS.map(
      (name): Part => ({
        name,
        tensors: withPrefix(all, HF_PREFIXES[name]),
        config: (root[CONFIG_KEYS[name]] ?? impliedConfig(name, root)) as Json | undefined,
      }),
    );
    return { layout: 'hf', root, parts };
  }
  const named = VILA_PARTS.filter((part) => hasWeights(join(model, part)));
  const folders: Part[] = named.map((name) => ({
    name,
    tensors: openTensors(join(model, name)),
    config: jsonAt(join(model, name, 'config.json')),
  }));
  if (named.length === VILA_PARTS.length) return { layout: 'folders', root, parts: folders };
  const own: Part[] = hasWeights(model) ? [{ name: '.', tensors: openTensors(model), config: root }] : [];
  const parts = [...folders, ...own];
  if (parts.length > 0) return { layout: undefined, root, parts };
  throw new SparseVilaError('ERR_MODEL_MISSING', `Expected a checkpoint with safetensors at ${model}, found none.`);
}

function impliedConfig(part: VilaPart, { model_type: type }: Json): Json | undefined {
  if (part !== 'mm_projector' || !isHfType(type)) return undefined;
  return {
    architectures: ['MultimodalProjector'],
    mm_projector_type: HF_TYPES[type].projector,
    model_type: 'v2l_projector',
  };
}

/** Where part `name` is written: a folder, and what precedes its tensors' names. */
export function placeOf(name: Part['name'], layout: Layout | undefined): { folder: string; prefix: string } {
  if (layout === 'hf' && name !== '.') return { folder: '.', prefix: HF_PREFIXES[name] };
  return { folder: name, prefix: '' };
}

/** The path in the new layout of another file, by its path in the old one. */
export function movedFile(path: string, from: Layout | undefined, to: Layout | undefined): string {
  if (from === to) return path;
  if (to === 'hf')
    return path.startsWith('llm/') || path === join('vision_tower', PREPROCESSOR) ? path.replace(/^\w+\//, '') : path;
  if (path === PREPROCESSOR) return join('vision_tower', path);
  return TEXT_FILES.test(path) ? join('llm', path) : path;
}

/**
 * The config files of a checkpoint in `layout`, by path.
 * @param configs of its parts, as they are to be
 * @throws SparseVilaError `ERR_MODEL_TYPE` for a projector that no `-hf` model type has, `ERR_WEIGHT_FORMAT` for parts that are
 *   quantised in different ways
 */
export function configFiles(
  { layout: from, root }: Checkpoint,
  configs: ReadonlyMap<Part['name'], Json>,
  layout: Layout | undefined,
): Map<string, Json> {
  const files = new Map<string, Json>();
  if (layout === 'hf') return files.set('config.json', hfConfig(root, configs));
  const foldered = from === 'hf' ? foldersConfig(root) : root;
  if (!configs.has('.') && Object.keys(foldered).length > 0) files.set('config.json', foldered);
  for (const [part, config] of configs) files.set(join(part, 'config.json'), config);
  return files;
}

const OUTPUT_SCALE = 's2_resize_output_to_scale_idx';

function hfConfig(root: Json, configs: ReadonlyMap<Part['name'], Json>): Json {
  const [text = {}, vision = {}, projector = {}] = VILA_PARTS.map((part) => configs.get(part));
  const type = Object.entries(HF_TYPES).find(([, known]) => known.projector === projector.mm_projector_type)?.[0];
  if (!isHfType(type)) {
    throw new SparseVilaError(
      'ERR_MODEL_TYPE',
      `Expected the projector ${Object.values(HF_TYPES)
        .map((known) => known.projector)
        .join(' or ')} for the hf layout, received ` +
        `${String(projector.mm_projector_type)}, for which there is no -hf port. Keep --layout folders.`,
    );
  }
  const plain = ({ quantization_config: _, ...rest }: Json): Json => rest;
  const kept = Object.entries(root).filter(([key]) => !Object.hasOwn(FOLDER_KEYS, key));
  const quantization = wholeModel(configs);
  return {
    ...Object.fromEntries(kept),
    // What is left out means the first scale in VILA's folders, and the last one in the ports.
    ...(root.image_aspect_ratio === 'dynamic_s2' && { [OUTPUT_SCALE]: root[OUTPUT_SCALE] ?? 0 }),
    ...{ architectures: [HF_ARCHITECTURES[type]], model_type: type },
    ...{ text_config: plain(text), vision_config: plain(vision), projector_config: plain(projector) },
    ...(quantization !== undefined && { quantization_config: quantization }),
  };
}

/**
 * One quantisation for the whole model from those of its parts, of which some are in floating point; undefined where all are.
 * @throws SparseVilaError `ERR_WEIGHT_FORMAT` where they differ in more than which layers they leave out
 */
function wholeModel(configs: ReadonlyMap<Part['name'], Json>): Json | undefined {
  const found = VILA_PARTS.flatMap((part) => {
    const quantization = configs.get(part)?.quantization_config as Json | null | undefined;
    return quantization == null ? [] : [{ part, quantization }];
  });
  const [first, ...others] = found;
  if (first === undefined) return undefined;
  const eight = found.find(({ quantization }) => quantization.format === 'int-quantized');
  if (eight !== undefined) throw inItsOwnWay(`${eight.part} is of 8 bits`);
  const settings = ({ modules_to_not_convert: _, ignore: __, ...rest }: Json): Json => rest;
  const other = others.find(
    ({ quantization }) => !isDeepStrictEqual(settings(quantization), settings(first.quantization)),
  );
  if (other !== undefined) {
    const told = [first, other].map(
      ({ part, quantization }) => `${part} has ${JSON.stringify(settings(quantization))}`,
    );
    throw inItsOwnWay(told.join(', '), ', give --format for one layout of both, or quantise both with one group size');
  }
  const list = ({ quantization }: (typeof found)[number], key: string): string[] =>
    Array.isArray(quantization[key]) ? (quantization[key] as string[]) : [];
  const float = VILA_PARTS.filter((part) => found.every((one) => one.part !== part)).map((part) =>
    HF_PREFIXES[part].slice(0, -1),
  );
  if (first.quantization.quant_method === 'awq') {
    // Readers look for these anywhere in a name.
    const own = found.flatMap((one) => list(one, 'modules_to_not_convert'));
    return { ...first.quantization, modules_to_not_convert: [...own, ...float] };
  }
  const own = found.flatMap((one) => list(one, 'ignore').map((name) => `${HF_PREFIXES[one.part]}${name}`));
  return { ...first.quantization, ignore: [...own, ...float.map((part) => `re:${part}\\..*`)] };
}

function inItsOwnWay(why: string, instead = ''): SparseVilaError {
  return new SparseVilaError(
    'ERR_WEIGHT_FORMAT',
    `The hf layout has one quantization_config and cannot hold parts that are quantised each in its own way: ${why}. ` +
      `Keep --layout folders${instead}.`,
  );
}

function foldersConfig(root: Json): Json {
  const dropped: readonly string[] = [...Object.values(CONFIG_KEYS), 'quantization_config', 'compression_config'];
  const kept = Object.entries(root).filter(([key]) => !dropped.includes(key));
  const type = root.model_type;
  return {
    ...(isHfType(type) && { image_aspect_ratio: HF_TYPES[type].images }),
    ...Object.fromEntries(kept),
    ...(type === 'nvila' &&
      (root.image_aspect_ratio ?? 'dynamic_s2') === 'dynamic_s2' && { [OUTPUT_SCALE]: root[OUTPUT_SCALE] ?? -1 }),
    ...{ architectures: ['LlavaLlamaModel'], model_type: 'llava_llama' },
    ...FOLDER_KEYS,
  };
}
