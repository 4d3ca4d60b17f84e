// What `quantize` may be given, and the checks at the door.

import { join } from 'node:path';
import { SparseVilaError } from '../errors';
import { isPresent } from '../files';
import { readJson } from '../json';
import { type DecoderConfig, parseDecoderConfig } from '../models/config';
import {
  BOOLEAN,
  type Check,
  COUNT,
  checkOptions,
  FUNCTION,
  invalidOption,
  listOf,
  NAME,
  oneOf,
  SIGNAL,
} from '../options';
import { packageFolder } from '../runtime/paths';
import type { OnProgress } from '../runtime/progress';
import { type CalibrationSample, readCalibration } from './calibration';
import { QUANTIZED_FORMATS, type QuantizedFormat } from './formats';
import { LINEARS, linearShapes } from './layer';
import type { Method } from './quantize_layer';

export const METHODS = ['awq', 'rtn'] as const satisfies readonly Method[];
/** What can be quantised to 4 bits: of the decoder its layers and its head, and the other parts. */
export const MODULES = ['decoder', 'head', 'tower', 'projector'] as const;
/** Those that `quantize` takes: the rest are `quantizeParts`'. */
export const DECODER_MODULES = ['decoder', 'head'] as const satisfies readonly Module[];
export const ROUNDINGS = ['feedback', 'nearest'] as const;
export type Rounding = (typeof ROUNDINGS)[number];
export type Module = (typeof MODULES)[number];

export interface QuantizeOptions {
  /** Folder of a float checkpoint. */
  readonly model: string;
  /** New folder. */
  readonly out: string;
  /** Default 'autoawq'. */
  readonly format?: QuantizedFormat;
  /** Inputs that share a scale; default 128. */
  readonly groupSize?: number;
  /** No zero points; default false. */
  readonly symmetric?: boolean;
  /** Default 'awq'; 'rtn' rounds to nearest and needs no calibration. */
  readonly method?: Method;
  /** How AWQ's scaled weights are rounded: 'feedback' (default) makes up for each weight's loss in the next, 'nearest' is plain AWQ. */
  readonly rounding?: Rounding;
  /** What becomes 4-bit; default the decoder's layers. The head is rounded to nearest. */
  readonly modules?: readonly Module[];
  /**
   * JSON lines of conversations (see `readCalibration`); default every other one of the packaged scenes. Answers that are missing
   * are asked for, which takes the whole float model in memory; with all given, only its embedding, tower and projector are read.
   */
  readonly calibration?: string | undefined;
  /** Most conversations; default 128. */
  readonly samples?: number | undefined;
  /** Most rows that the search keeps of each layer's inputs; default 4096. */
  readonly rows?: number | undefined;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** The options with their defaults. */
export interface CheckedOptions {
  readonly model: string;
  readonly out: string;
  readonly format: QuantizedFormat;
  readonly groupSize: number;
  readonly symmetric: boolean;
  readonly method: Method;
  readonly rounding: Rounding;
  readonly modules: readonly Module[];
  readonly samples: number;
  readonly rows: number;
  /** Undefined: the packaged scenes, or none where none is needed. */
  readonly calibration: string | undefined;
}

const GROUP_SIZE: Check = {
  expected: 'a multiple of 8, commonly 128, 64 or 32',
  accepts: (value) => Number.isSafeInteger(value) && (value as number) >= 8 && (value as number) % 8 === 0,
};

/** Fills in defaults; `known` are the modules that may be named. @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_OPTION_MISSING` */
export function checkQuantizeOptions(
  options: QuantizeOptions,
  known: readonly Module[] = DECODER_MODULES,
): CheckedOptions {
  const given = checkOptions<QuantizeOptions>('quantize', options, {
    model: { ...NAME, required: true },
    out: { ...NAME, required: true },
    format: oneOf(...QUANTIZED_FORMATS),
    groupSize: GROUP_SIZE,
    symmetric: BOOLEAN,
    method: oneOf(...METHODS),
    rounding: oneOf(...ROUNDINGS),
    modules: listOf(`modules among ${known.join(', ')}`, oneOf(...known), 1),
    calibration: NAME,
    samples: COUNT,
    rows: COUNT,
    signal: SIGNAL,
    onProgress: FUNCTION,
  });
  const { model, out, format = 'autoawq', groupSize = 128, symmetric = false, method = 'awq' } = given;
  const { rounding = 'feedback', modules = ['decoder'], samples = 128, rows = 4096 } = given;
  const calibration = method === 'awq' && modules.includes('decoder') ? given.calibration : undefined;
  return { model, out, format, groupSize, symmetric, method, rounding, modules, samples, rows, calibration };
}

export function invalid(name: string, expected: string, received: unknown): SparseVilaError {
  return invalidOption('quantize', `${expected} for ${name}`, String(received));
}

/**
 * Half of the conversations about the packaged scenes: those to calibrate on, or the others, to judge by.
 * @throws SparseVilaError `ERR_CALIBRATION` where the package's files are not there
 */
export function packagedScenes(half: 'calibration' | 'evaluation'): CalibrationSample[] {
  const file = join(packageFolder(), 'assets', 'calibration', 'conversations.jsonl');
  return readCalibration(file).filter((_, i) => i % 2 === (half === 'calibration' ? 0 : 1));
}

/** What a run reads: its output must lie apart from it. */
export const inputsOf = ({ model, calibration }: Pick<QuantizeOptions, 'model' | 'calibration'>): string[] =>
  calibration === undefined ? [model] : [model, calibration];

/** The folder of the decoder's weights and config in a VILA checkpoint. @throws SparseVilaError `ERR_MODEL_TYPE`, `ERR_MODEL_MISSING` */
export function decoderFolder(model: string): string {
  const folder = join(model, 'llm');
  if (isPresent(join(folder, 'config.json'))) return folder;
  throw new SparseVilaError(
    isPresent(join(model, 'config.json')) ? 'ERR_MODEL_TYPE' : 'ERR_MODEL_MISSING',
    `Expected a VILA or NVILA checkpoint folder (config.json, llm/, vision_tower/, mm_projector/) at ${model}.`,
  );
}

/** The decoder's config. @throws SparseVilaError `ERR_QUANTIZE_SHAPE` where the format cannot hold a matrix; `ERR_CONFIG_…` */
export function checkedDecoderConfig(folder: string, options: CheckedOptions): DecoderConfig {
  const file = join(folder, 'config.json');
  const json = readJson(file);
  if (json.quantization_config !== undefined && json.quantization_config !== null) {
    throw new SparseVilaError(
      'ERR_ALREADY_QUANTIZED',
      `${file}: this checkpoint is quantised already. Quantise its float original, or change its format with \`convert\`.`,
    );
  }
  const config = parseDecoderConfig(json, file);
  checkShapes(Object.fromEntries(LINEARS.map((name) => [`${name}_proj`, linearShapes(config)[name]])), options);
  return config;
}

/** Matrices [outputs, inputs] against what the format can hold. @throws SparseVilaError `ERR_QUANTIZE_SHAPE` */
export function checkShapes(
  shapes: Readonly<Record<string, readonly [rows: number, cols: number]>>,
  { groupSize, format }: CheckedOptions,
): void {
  for (const [name, [rows, cols]] of Object.entries(shapes)) {
    if (cols % groupSize === 0 && (format !== 'autoawq' || rows % 8 === 0)) continue;
    const fits = [128, 64, 32, 16, 8].filter((size) =>
      Object.values(shapes).every(([, inputs]) => inputs % size === 0),
    );
    throw new SparseVilaError(
      'ERR_QUANTIZE_SHAPE',
      `Expected inputs that are a multiple of the group size ${groupSize}` +
        `${format === 'autoawq' ? ' and outputs that are a multiple of 8' : ''}, received ${name} [${rows}, ${cols}].` +
        `${fits.length > 0 ? ` This model takes groups of ${fits.join(', ')}.` : ''}`,
    );
  }
}
