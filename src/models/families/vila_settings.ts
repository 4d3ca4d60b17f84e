// Settings of VILA's root config that change the computation, each supported or refused by name, and the texts that its encoders put around
// each picture or frame. Knows no weights.
// Source: NVlabs/VILA `configuration_llava.py`, `llava_arch.py`, `model/encoders`, `multimodal_encoder/vision_encoder.py`.

import { type ConfigReader, configReader, type Json } from '../../json';
import type { FrameSampling } from '../frame_sampling';
import type { Pool } from '../pooled_frames';
import type { Scales } from '../scaled_tiles';
import { MOST_TILES } from '../tile_choice';

export const PICTURES = ['resize', 'pad', 'dynamic', 'dynamic_s2'] as const;
export type Pictures = (typeof PICTURES)[number];

/** Switches of VILA that are not supported: fixed scales, high-resolution towers, markers around pictures. */
const SWITCHES = ['s2', 'ps3', 'mm_use_im_start_end'];

/**
 * Refuses settings that are not supported. `folders`: the folders of the parts that have one.
 * @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` naming the key, `ERR_CONFIG_INVALID` for a value of a wrong type
 */
export function checkVilaSettings(root: ConfigReader, imageSize: number, folders: readonly string[]): void {
  for (const key of SWITCHES) if (root.boolean(key, false)) throw root.unsupported(key, 'false');
  // `patch` drops the first patch of any tower, as if each tower had a class token.
  if (root.string('mm_vision_select_feature', 'cls_patch') !== 'cls_patch')
    throw root.unsupported('mm_vision_select_feature', 'cls_patch');
  // The tower's positions are for its own image size; VILA would interpolate them for another resolution.
  const resolution = root.has('vision_resolution') ? root.number('vision_resolution') : -1;
  if (resolution !== -1 && resolution !== imageSize)
    throw root.unsupported('vision_resolution', `-1 or the tower's image_size ${imageSize}`);
  for (const part of folders) {
    // Either a config or a path; the part is read from its folder in both cases.
    const value = root.json[`${part}_cfg`];
    if (typeof value !== 'string') continue;
    const names = value.replace(/[\\/]+$/, '').split(/[\\/]/);
    if (names.at(-1) !== part) throw root.unsupported(`${part}_cfg`, `a path that ends in "${part}"`);
  }
}

/**
 * `image_aspect_ratio`: the way pictures are shown. If the config has none, the processor's own resizing applies.
 * @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED`
 */
export function picturesOf(root: ConfigReader, fallback: Pictures | undefined): Pictures | undefined {
  const given = root.has('image_aspect_ratio') ? root.string('image_aspect_ratio') : fallback;
  const mode = PICTURES.find((known) => known === given);
  if (given !== undefined && mode === undefined)
    throw root.unsupported('image_aspect_ratio', `one of ${PICTURES.join(', ')}`);
  if (root.boolean('dynamic_s2', mode === 'dynamic_s2') !== (mode === 'dynamic_s2'))
    throw root.unsupported('dynamic_s2', `${mode === 'dynamic_s2'}, as image_aspect_ratio has it`);
  return mode;
}

/**
 * `s2_scales`: pixels as "448,896,1344" or a list; `side`: pixels of a tile; `output`: the scale to whose size the others are brought, if the
 * config names none.
 * @throws SparseVilaError `ERR_CONFIG_INVALID`
 */
export function scalesOf(root: ConfigReader, side: number, output: number): Scales {
  const given = root.json.s2_scales ?? [side, 2 * side, 3 * side];
  const pixels: unknown = typeof given === 'string' ? given.split(',').map(Number) : given;
  // VILA divides each scale by the first one, which is one tile, to count its tiles.
  const isNext = (size: unknown, i: number, all: readonly unknown[]): boolean =>
    typeof size === 'number' && size % side === 0 && (i === 0 ? size === side : size > Number(all[i - 1]));
  if (!Array.isArray(pixels) || pixels.length === 0 || !pixels.every(isNext))
    throw root.wrong('s2_scales', `ascending multiples of the tower's image_size ${side}, which is the first,`);
  const sides = pixels.map((size: number) => size / side);
  const index = root.number('s2_resize_output_to_scale_idx', output);
  const chosen = index < 0 ? sides.length + index : index;
  if (sides[chosen] === undefined)
    throw root.wrong('s2_resize_output_to_scale_idx', `an index of ${sides.length} scales`);
  const least = (sides.at(-1) ?? 1) ** 2;
  const max = root.size('max_tiles', 12);
  if (max < least || max > MOST_TILES)
    throw root.wrong('max_tiles', `from ${least}, the last scale's tiles, to ${MOST_TILES}`);
  return { sides, max, output: chosen };
}

/** Upper bound, above that of any published model. */
const MOST_POOLS = 16;

/** Texts that an encoder puts around each picture, tile or frame. */
export interface EncoderTexts {
  readonly before: string | undefined;
  readonly after: string | undefined;
}

/**
 * The texts that an encoder puts around each picture or frame: `start_tokens`, by default none, and `end_tokens`, by default "\n". Checkpoints
 * from before encoders were configurable (VILA-1.5) have neither.
 * @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` for another encoder or argument, `ERR_CONFIG_INVALID` for wrong values
 */
export function encoderTexts(
  root: ConfigReader,
  key: 'image_encoder' | 'video_encoder',
  decoderType: string,
): EncoderTexts {
  const encoder = encoderOf(root, key);
  if (encoder === undefined) return { before: undefined, after: decoderType === 'qwen2' ? '\n' : undefined };
  const textOf = (name: string, fallback: string | undefined): string | undefined => {
    if (encoder.has(name)) return encoder.string(name);
    return Object.hasOwn(encoder.json, name) ? undefined : fallback;
  };
  return { before: textOf('start_tokens', undefined), after: textOf('end_tokens', '\n') };
}

/** `pool_sizes` of TSPVideoEncoder: [frames, rows, columns] of tokens. `side`: tokens per side. @throws as `encoderTexts` */
export function poolsOf(root: ConfigReader, side: number): readonly Pool[] {
  const encoder = encoderOf(root, 'video_encoder');
  const sizes: unknown = encoder?.json.pool_sizes;
  if (encoder === undefined || sizes === undefined || sizes === null) return [[1, 1, 1]];
  const isPool = (pool: unknown): pool is Pool =>
    Array.isArray(pool) && pool.length === 3 && pool.every((size) => Number.isInteger(size) && size > 0);
  const divides = ([, h, w]: Pool): boolean => side % h === 0 && side % w === 0;
  if (
    Array.isArray(sizes) &&
    sizes.length > 0 &&
    sizes.length <= MOST_POOLS &&
    sizes.every((pool) => isPool(pool) && divides(pool))
  )
    return sizes;
  throw encoder.wrong(
    'pool_sizes',
    `at most ${MOST_POOLS} lists of frames, rows and columns, the latter divisors of ${side}`,
  );
}

/** `num_video_frames`, a multiple of the frames of each pool. VILA ignores `fps`. */
export function samplingOf(root: ConfigReader, pools: readonly Pool[]): FrameSampling {
  const multiple = pools.reduce((all, [t]) => {
    let least = all;
    while (least % t !== 0) least += all;
    return least;
  }, 1);
  return { rule: 'vila', frames: root.size('num_video_frames', 8), multiple };
}

const ENCODERS = {
  image_encoder: [['BasicImageEncoder', ['start_tokens', 'end_tokens']]],
  video_encoder: [
    ['BasicVideoEncoder', ['start_tokens', 'end_tokens']],
    ['TSPVideoEncoder', ['start_tokens', 'end_tokens', 'pool_sizes', 'sep_tokens']],
  ],
} as const;

/** An encoder's config as an object; VILA writes it as JSON in a string. */
function encoderOf(root: ConfigReader, key: keyof typeof ENCODERS): ConfigReader | undefined {
  if (!root.has(key)) return undefined;
  const source = root.json[key];
  const json = typeof source === 'string' ? parsed(root, key, source) : source;
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw root.wrong(key, 'an object, or JSON of one');
  const encoder = configReader(json as Json, root.file, `${key}.`);
  const target = encoder.string('_target_').split('.').at(-1);
  const found = ENCODERS[key].find(([name]) => name === target);
  if (found === undefined)
    throw encoder.unsupported('_target_', ENCODERS[key].map(([name]) => `llava.model.encoders.${name}`).join(' or '));
  const known: readonly string[] = ['_target_', ...found[1]];
  const unknown = Object.keys(encoder.json).find((name) => !known.includes(name));
  if (unknown !== undefined) throw encoder.unsupported(unknown, `no argument besides ${known.slice(1).join(', ')}`);
  if (encoder.has('sep_tokens')) throw encoder.unsupported('sep_tokens', 'null');
  return encoder;
}

/** Parses JSON in a JSON string, which is how VILA writes its encoders. */
function parsed(config: ConfigReader, key: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw config.wrong(key, 'JSON');
  }
}
