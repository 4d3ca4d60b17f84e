// Reads preprocessor_config.json: how a picture is resized, and how its pixels are normalized. Draws nothing.
// Source: Hugging Face SiglipImageProcessor and CLIPImageProcessor.

import { SparseVilaError } from '../errors';
import type { Rgb } from './canvas';
import type { ResampleFilter } from './resample';

/** Normalization of pixel values: `(x·rescaleFactor - mean)/std`, mean and std per channel. */
export interface Normalization {
  rescaleFactor: number;
  mean: Rgb;
  std: Rgb;
}

/** The settings of a checkpoint's preprocessor_config.json; sizes in pixels. */
export interface PreprocessorConfig extends Normalization {
  size: { height: number; width: number };
  resample: ResampleFilter;
  doResize: boolean;
  doRescale: boolean;
  doNormalize: boolean;
}

/** PIL.Image.Resampling numbers. */
export const PIL_FILTERS: ReadonlyMap<unknown, ResampleFilter> = new Map([
  [1, 'lanczos'],
  [2, 'bilinear'],
  [3, 'bicubic'],
]);

/** Defaults of transformers' SigLIP processors for fields that the file omits. */
const SIGLIP_DEFAULTS = { size: 224, resample: 3, image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5] } as const;

/**
 * Checks a preprocessor_config.json. `size` may be a number, {height, width} or {shortest_edge} (a square in either mode); do_* default to
 * true and rescale_factor to 1/255, as in Hugging Face's classes; size, resample, image_mean and image_std have a default only if
 * `image_processor_type` is SigLIP's. Steps that are switched off, and their settings, are not read.
 * @param file the name of the file in errors
 * @param options isResized: the caller resizes pictures to `size` with the bicubic filter before the processor, so that do_resize and
 *   resample have no effect
 * @throws SparseVilaError ERR_PREPROCESSOR_CONFIG: a field is missing, has a wrong type, or requires an unsupported step
 */
export function parsePreprocessorConfig(
  json: unknown,
  file: string,
  { isResized = false }: { readonly isResized?: boolean } = {},
): PreprocessorConfig {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw wrong(file, 'an object', 'the file', json);
  const own: Record<string, unknown> = { ...json };
  const isSiglip = /^Siglip(ImageProcessor|FeatureExtractor)/.test(String(own.image_processor_type));
  const given = Object.fromEntries(Object.entries(own).filter(([, value]) => value !== null));
  const fields: Record<string, unknown> = isSiglip ? { ...SIGLIP_DEFAULTS, ...given } : given;
  const size = parseSize(fields.size, file);
  const doRescale = parseFlag(fields, 'do_rescale', file);
  const doNormalize = parseFlag(fields, 'do_normalize', file);
  refuseUnsupported(fields, size, file);
  const config = {
    size,
    resample: isResized ? 'bicubic' : parseFilter(fields, file),
    rescaleFactor: doRescale ? parseRescale(fields, file) : 1 / 255,
    mean: doNormalize || fields.image_mean !== undefined ? parseRgb(fields.image_mean, 'image_mean', file) : BLACK,
    std: doNormalize ? parseRgb(fields.image_std, 'image_std', file) : WHITE,
    doResize: isResized || parseFlag(fields, 'do_resize', file),
    doRescale,
    doNormalize,
  };
  requireFinite(config, file);
  return config;
}

/** The normalization that the switched-on steps amount to. */
export function normalizationOf({
  doRescale,
  rescaleFactor,
  doNormalize,
  mean,
  std,
}: PreprocessorConfig): Normalization {
  return {
    rescaleFactor: doRescale ? rescaleFactor : 1,
    mean: doNormalize ? mean : BLACK,
    std: doNormalize ? std : WHITE,
  };
}

/** The bytes of the mean color, with which pictures are padded. */
export function meanColor({ mean: [r, g, b] }: Pick<Normalization, 'mean'>): Rgb {
  return [Math.trunc(r * 255), Math.trunc(g * 255), Math.trunc(b * 255)];
}

/**
 * Requires that pictures are resized to the square of a tower.
 * @throws SparseVilaError `ERR_PREPROCESSOR_CONFIG` without do_resize, `ERR_CONFIG_INVALID` for another size
 */
export function requireTowerSize({ doResize, size }: PreprocessorConfig, imageSize: number, file: string): void {
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

const BLACK: Rgb = [0, 0, 0];
const WHITE: Rgb = [1, 1, 1];

function parseFilter(fields: Record<string, unknown>, file: string): ResampleFilter {
  const filter = PIL_FILTERS.get(fields.resample);
  if (filter === undefined) throw wrong(file, '1 (lanczos), 2 (bilinear) or 3 (bicubic)', 'resample', fields.resample);
  return filter;
}

function parseRescale({ rescale_factor: factor = 1 / 255 }: Record<string, unknown>, file: string): number {
  if (typeof factor === 'number' && Number.isFinite(factor) && factor > 0) return factor;
  throw wrong(file, 'a positive number', 'rescale_factor', factor);
}

/** The numbers are used in f32: no std may become 0, and no pixel may become infinite. */
function requireFinite({ mean, std, rescaleFactor, doRescale, doNormalize }: PreprocessorConfig, file: string): void {
  if (std.some((s) => Math.fround(s) <= 0))
    throw wrong(file, 'three positive numbers that f32 holds', 'image_std', std);
  const white = 255 * (doRescale ? rescaleFactor : 1);
  const extremes = std.flatMap((s, c) => [0, white].map((x) => (doNormalize ? (x - (mean[c] ?? 0)) / s : x)));
  if (extremes.every((value) => Number.isFinite(Math.fround(value)))) return;
  const field = Number.isFinite(Math.fround(white)) ? 'image_mean and image_std' : 'rescale_factor';
  throw wrong(
    file,
    'numbers that leave pixels finite in f32',
    field,
    field === 'rescale_factor' ? rescaleFactor : [mean, std],
  );
}

const SIZE_FORMS = 'a positive integer, {height, width} or {shortest_edge}';

function parseSize(value: unknown, file: string, field = 'size'): { height: number; width: number } {
  const side = (v: unknown) =>
    typeof v === 'number' && Number.isSafeInteger(v) && v > 0 && v < 2 ** 31 ? v : undefined;
  const whole = side(value);
  if (whole !== undefined) return { height: whole, width: whole };
  if (typeof value === 'object' && value !== null) {
    const { height, width, shortest_edge, ...rest } = value as Record<string, unknown>;
    const [h, w, edge] = [side(height), side(width), side(shortest_edge)];
    const plain = Object.values(rest).every((v) => v === null);
    if (plain && h !== undefined && w !== undefined && shortest_edge == null) return { height: h, width: w };
    if (plain && edge !== undefined && height == null && width == null) return { height: edge, width: edge };
  }
  throw wrong(file, SIZE_FORMS, field, value);
}

const KNOWN_STEPS = ['do_resize', 'do_rescale', 'do_normalize', 'do_convert_rgb', 'do_center_crop'];

/** Refuses unsupported steps, because ignoring one would give other pixels than the model was trained on. */
function refuseUnsupported(
  fields: Record<string, unknown>,
  size: { height: number; width: number },
  file: string,
): void {
  for (const [field, value] of Object.entries(fields)) {
    if (field.startsWith('do_') && !KNOWN_STEPS.includes(field) && parseFlag({ [field]: value }, field, file)) {
      throw wrong(file, 'false, because this step is not implemented', field, value);
    }
  }
  if (!parseFlag({ do_center_crop: false, ...fields }, 'do_center_crop', file)) return;
  const crop = parseSize(fields.crop_size, file, 'crop_size');
  if (crop.height !== size.height || crop.width !== size.width) {
    throw wrong(
      file,
      `size (${size.height}×${size.width}), because cropping is not implemented,`,
      'crop_size',
      fields.crop_size,
    );
  }
}

function parseRgb(value: unknown, field: string, file: string): Rgb {
  if (Array.isArray(value) && value.length === 3 && value.every((v) => typeof v === 'number' && Number.isFinite(v))) {
    const [r, g, b] = value as [number, number, number];
    return [r, g, b];
  }
  throw wrong(file, 'three numbers', field, value);
}

function parseFlag(fields: Record<string, unknown>, field: string, file: string): boolean {
  const value = fields[field] ?? true;
  if (typeof value !== 'boolean' && value !== 0 && value !== 1) throw wrong(file, 'true or false', field, value);
  return Boolean(value);
}

function wrong(file: string, expected: string, field: string, received: unknown): SparseVilaError {
  return new SparseVilaError(
    'ERR_PREPROCESSOR_CONFIG',
    `Expected ${expected} for ${field} of ${file} but received ${show(received)}.`,
  );
}

function show(value: unknown): string {
  return value === undefined ? 'nothing' : (JSON.stringify(value) ?? String(value));
}
