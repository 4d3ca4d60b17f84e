// What VILA's root config says besides its parts: the settings that change the computation, each computed here or refused by name, and
// the tokens that its image encoder puts around each picture. Knows no weights.
// Source: NVlabs/VILA `configuration_llava.py`, `llava_arch.py`, `model/encoders/image/basic.py`, `multimodal_encoder/vision_encoder.py`.

import { type ConfigReader, configReader, type Json } from '../json';
import type { Tokenizer } from '../text/tokenizer';
import { isHfType, VILA_PARTS } from './vila_layout';

/** Switches of VILA that nothing here computes: scales, high-resolution towers, markers around pictures. */
const SWITCHES = ['s2', 'dynamic_s2', 'ps3', 'mm_use_im_start_end'];

/**
 * Refuses what nothing here computes.
 * @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` naming the key, `ERR_CONFIG_INVALID` for a value of a wrong type
 */
export function checkVilaSettings(root: ConfigReader): void {
  for (const key of SWITCHES) if (root.boolean(key, false)) throw root.unsupported(key, 'false');
  // `patch` drops the first patch of any tower, as if each had a class token.
  if (root.string('mm_vision_select_feature', 'cls_patch') !== 'cls_patch')
    throw root.unsupported('mm_vision_select_feature', 'cls_patch');
  if (isHfType(root.json.model_type)) return;
  for (const part of VILA_PARTS) {
    // A config, or where the part lies; it is read from its folder in either case.
    const value = root.json[`${part}_cfg`];
    if (typeof value !== 'string') continue;
    const name = value
      .replace(/[\\/]+$/, '')
      .split(/[\\/]/)
      .at(-1);
    if (name !== part) throw root.unsupported(`${part}_cfg`, `a path that ends in "${part}"`);
  }
}

/**
 * `image_aspect_ratio`, and whether VILA itself resizes the picture (Pillow's default, bicubic) before the processor sees it. When
 * the config says nothing, the processor resizes.
 * @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` for tiles and other shapes
 */
export function imageMode(root: ConfigReader): { readonly mode: 'resize' | 'pad'; readonly isResized: boolean } {
  if (!root.has('image_aspect_ratio')) return { mode: 'resize', isResized: false };
  const mode = root.string('image_aspect_ratio');
  if (mode === 'resize' || mode === 'pad') return { mode, isResized: mode === 'resize' };
  throw root.unsupported('image_aspect_ratio', 'one of resize, pad');
}

/** The tower's positions are those of its image size; VILA stretches them to another resolution. */
export function checkResolution(root: ConfigReader, imageSize: number): void {
  const resolution = root.has('vision_resolution') ? root.number('vision_resolution') : -1;
  if (resolution !== -1 && resolution !== imageSize)
    throw root.unsupported('vision_resolution', `-1 or the tower's image_size ${imageSize}`);
}

/**
 * The ids that the image encoder embeds before and after each picture: `start_tokens`, by default none, and `end_tokens`, by default
 * "\n". As VILA calls its tokenizer, they begin with what that puts before every text. Checkpoints from before encoders were
 * configured (VILA-1.5) have neither.
 * @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` for another encoder or argument, `ERR_CONFIG_INVALID` for wrong values
 */
export function imageTokens(
  root: ConfigReader,
  tokenizer: Tokenizer,
  decoderType: string,
): { readonly start: readonly number[]; readonly end: readonly number[] } {
  const encode = (text: unknown): readonly number[] =>
    typeof text === 'string' ? [...tokenizer.prefixIds, ...tokenizer.encode(text)] : [];
  if (!root.has('image_encoder')) return { start: [], end: encode(decoderType === 'qwen2' ? '\n' : null) };
  const { start = null, end = '\n' } = encoderArguments(root);
  return { start: encode(start), end: encode(end) };
}

function encoderArguments(root: ConfigReader): { readonly start?: string | null; readonly end?: string | null } {
  const source = root.json.image_encoder;
  const json = typeof source === 'string' ? parsed(root, 'image_encoder', source) : source;
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw root.wrong('image_encoder', 'an object, or JSON of one');
  const encoder = configReader(json as Json, root.file, 'image_encoder.');
  const target = encoder.string('_target_');
  if (!/(^|\.)BasicImageEncoder$/.test(target))
    throw encoder.unsupported('_target_', 'llava.model.encoders.BasicImageEncoder');
  const known = ['_target_', 'start_tokens', 'end_tokens'];
  const unknown = Object.keys(encoder.json).find((key) => !known.includes(key));
  if (unknown !== undefined) throw encoder.unsupported(unknown, `no argument besides ${known.slice(1).join(' and ')}`);
  const textOf = (key: string): string | null | undefined =>
    encoder.has(key) ? encoder.string(key) : (encoder.json[key] as null | undefined);
  const [start, end] = [textOf('start_tokens'), textOf('end_tokens')];
  return { ...(start !== undefined && { start }), ...(end !== undefined && { end }) };
}

/** JSON inside a JSON string, as VILA writes its encoders. */
function parsed(config: ConfigReader, key: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw config.wrong(key, 'JSON');
  }
}
