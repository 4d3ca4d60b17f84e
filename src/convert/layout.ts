// The parts of a VILA checkpoint in either layout, separate folders or the one folder of the NVILA -hf ports, and the conversion to the
// other: names, configs and the places of files. Does not know the values of tensors.

import { join, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { openCheckpoint, type TensorEntries } from '../checkpoint/safetensors';
import { SparseVilaError } from '../errors';
import { isPresent } from '../files';
import { type Json, readJson } from '../json';
import { HF_TYPES, VILA_FOLDERS, vila } from '../models/families/vila';
import { withImpliedTemplate } from '../text/template_file';

export const LAYOUTS = ['folders', 'hf'] as const;
export type Layout = (typeof LAYOUTS)[number];

/** The parts' folders, which are also the prefixes, with a dot, of their tensors' names in the ports. */
export const VILA_PARTS = Object.values(VILA_FOLDERS);
type VilaPart = (typeof VILA_PARTS)[number];

/** One part of a checkpoint: a folder's weights, or those of one prefix. '.' is a folder of no known layout. */
export interface Part {
  readonly name: VilaPart | '.';
  readonly folder: string;
  /** Tensors, named without the prefix. */
  readonly entries: TensorEntries;
  /** Undefined if the part has none. */
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
type HfType = keyof typeof HF_ARCHITECTURES;
const isHfType = (type: unknown): type is HfType => Object.hasOwn(HF_TYPES, String(type));
const PREPROCESSOR = 'preprocessor_config.json';
/** The files in `llm/` besides weights and config. */
const TEXT_FILES =
  /^(tokenizer.*|vocab\..*|merges\.txt|special_tokens_map\.json|added_tokens\.json|generation_config\.json|chat_template\..*)$/;

const jsonAt = (file: string): Json | undefined => (isPresent(file) ? readJson(file) : undefined);
const hasWeights = (folder: string): boolean =>
  ['model.safetensors', 'model.safetensors.index.json'].some((name) => isPresent(join(folder, name)));

/** Opens every part. @throws SparseVilaError `ERR_MODEL_MISSING` if there are no weights */
export function openParts(model: string): Checkpoint {
  const given = jsonAt(join(model, 'config.json')) ?? {};
  const { model_type: type } = given;
  const textFolder = isHfType(type) ? model : join(model, 'llm');
  const isVila = vila.types.includes(String(type));
  const root = isVila ? withImpliedTemplate(given, textFolder, resolve(model)) : given;
  if (isHfType(type)) {
    const all = openCheckpoint(model);
    const projector = { architectures: ['MultimodalProjector'], mm_projector_type: HF_TYPES[type]?.projector };
    const implied = { ...projector, model_type: 'v2l_projector' };
    const parts = VILA_PARTS.map((name): Part => {
      const config = root[CONFIG_KEYS[name]] ?? (name === 'mm_projector' ? implied : undefined);
      return { name, folder: model, entries: withoutPrefix(all, `${name}.`), config: config as Json | undefined };
    });
    return { layout: 'hf', root, parts };
  }
  const named = [...VILA_PARTS, '.' as const].filter((name) => hasWeights(join(model, name)));
  const parts = named.map((name): Part => {
    const config = name === '.' ? root : jsonAt(join(model, name, 'config.json'));
    const folder = join(model, name);
    return { name, folder, entries: openCheckpoint(folder), config };
  });
  if (VILA_PARTS.every((name) => named.includes(name)))
    return { layout: 'folders', root, parts: parts.filter(({ name }) => name !== '.') };
  if (parts.length > 0) return { layout: undefined, root, parts };
  throw new SparseVilaError('ERR_MODEL_MISSING', `Expected a checkpoint with safetensors at ${model}, found none.`);
}

/** The tensors whose names begin with `prefix`, named without it. */
function withoutPrefix(all: TensorEntries, prefix: string): TensorEntries {
  const own = [...all.values()].filter(({ name }) => name.startsWith(prefix));
  return new Map(
    own.map((entry) => [entry.name.slice(prefix.length), { ...entry, name: entry.name.slice(prefix.length) }]),
  );
}

/** The folder in which part `name` is written, and the prefix of its tensors' names. */
export function placeOf(name: Part['name'], layout: Layout | undefined): { folder: string; prefix: string } {
  return layout === 'hf' && name !== '.' ? { folder: '.', prefix: `${name}.` } : { folder: name, prefix: '' };
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
 * @param configs the new configs of its parts
 * @throws SparseVilaError `ERR_MODEL_TYPE` for a projector that no `-hf` model type has, `ERR_WEIGHT_FORMAT` for parts that are
 *   quantized in different ways
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
  const given = projector.mm_projector_type;
  const type = Object.keys(HF_TYPES).find((known) => HF_TYPES[known]?.projector === given);
  if (!isHfType(type)) {
    const known = Object.values(HF_TYPES).map((port) => port.projector);
    throw new SparseVilaError(
      'ERR_MODEL_TYPE',
      `Expected the projector ${known.join(' or ')} for the hf layout, received ${String(given)}, for which there is no -hf port. ` +
        'Keep --layout folders.',
    );
  }
  const plain = ({ quantization_config: _, ...rest }: Json): Json => rest;
  const kept = Object.entries(root).filter(([key]) => !Object.hasOwn(FOLDER_KEYS, key));
  const quantization = wholeModel(configs);
  return {
    ...Object.fromEntries(kept),
    // An absent key means the first scale in VILA's folders, and the last one in the ports.
    ...(root.image_aspect_ratio === 'dynamic_s2' && { [OUTPUT_SCALE]: root[OUTPUT_SCALE] ?? 0 }),
    ...{ architectures: [HF_ARCHITECTURES[type]], model_type: type },
    ...{ text_config: plain(text), vision_config: plain(vision), projector_config: plain(projector) },
    ...(quantization !== undefined && { quantization_config: quantization }),
  };
}

/**
 * One quantization for the whole model from those of its parts, some of which may be in floating point; undefined if all are.
 * @throws SparseVilaError `ERR_WEIGHT_FORMAT` if they differ in more than the layers that they ignore
 */
function wholeModel(configs: ReadonlyMap<Part['name'], Json>): Json | undefined {
  const found = VILA_PARTS.flatMap((part) => {
    const quantization = configs.get(part)?.quantization_config as Json | null | undefined;
    const { modules_to_not_convert, ignore, ...settings } = quantization ?? {};
    const left = (modules_to_not_convert ?? ignore ?? []) as string[];
    return quantization == null ? [] : [{ part, quantization, settings, left }];
  });
  const [first] = found;
  if (first === undefined) return undefined;
  const eight = found.find(({ settings }) => settings.format === 'int-quantized');
  if (eight !== undefined) throw inItsOwnWay(`${eight.part} is of 8 bits`);
  const other = found.find(({ settings }) => !isDeepStrictEqual(settings, first.settings));
  if (other !== undefined) {
    const told = [first, other].map(({ part, settings }) => `${part} has ${JSON.stringify(settings)}`);
    throw inItsOwnWay(told.join(', '), ', give --format for one layout of both, or quantize both with one group size');
  }
  const float = VILA_PARTS.filter((part) => found.every((one) => one.part !== part));
  if (first.settings.quant_method === 'awq') {
    // Readers search for these anywhere in a name.
    return { ...first.quantization, modules_to_not_convert: [...found.flatMap(({ left }) => left), ...float] };
  }
  const own = found.flatMap(({ part, left }) => left.map((name) => `${part}.${name}`));
  return { ...first.quantization, ignore: [...own, ...float.map((part) => `re:${part}\\..*`)] };
}

function inItsOwnWay(why: string, instead = ''): SparseVilaError {
  return new SparseVilaError(
    'ERR_WEIGHT_FORMAT',
    `The hf layout has one quantization_config and cannot hold parts that are quantized each in its own way: ${why}. ` +
      `Keep --layout folders${instead}.`,
  );
}

function foldersConfig(root: Json): Json {
  const dropped: readonly string[] = [...Object.values(CONFIG_KEYS), 'quantization_config', 'compression_config'];
  const { model_type: type } = root;
  const pictures = isHfType(type) ? HF_TYPES[type]?.pictures : undefined;
  const all = { ...(pictures && { image_aspect_ratio: pictures }), ...root };
  const scale = (all.image_aspect_ratio ?? pictures) === 'dynamic_s2' && type === 'nvila';
  return {
    ...Object.fromEntries(Object.entries(all).filter(([key]) => !dropped.includes(key))),
    ...(scale && { [OUTPUT_SCALE]: root[OUTPUT_SCALE] ?? -1 }),
    ...{ architectures: ['LlavaLlamaModel'], model_type: 'llava_llama', ...FOLDER_KEYS },
  };
}
