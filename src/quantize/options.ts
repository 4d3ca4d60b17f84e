// The options of `quantize`, and their validation.

import { join } from 'node:path';
import { QUANTIZED_FORMATS, type QuantizedFormat } from '../checkpoint/formats';
import type { SparseVilaError } from '../errors';
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

export const METHODS = ['awq', 'rtn'] as const;
export type Method = (typeof METHODS)[number];
/** Modules that can be quantized to 4 bits: the decoder's layers, its head, and the other parts. */
export const MODULES = ['decoder', 'head', 'tower', 'projector'] as const;
export const ROUNDINGS = ['feedback', 'nearest'] as const;
export type Rounding = (typeof ROUNDINGS)[number];
export type Module = (typeof MODULES)[number];
/** Alternative to 4 bits for a vision tower: 8-bit weights and activations. */
export const TOWER_FORMATS = ['w8a8'] as const;
export type TowerFormat = (typeof TOWER_FORMATS)[number];

export interface QuantizeOptions {
  /** Folder of a float checkpoint. */
  readonly model: string;
  /** New folder. */
  readonly out: string;
  /** Default 'autoawq'. */
  readonly format?: QuantizedFormat;
  /** Number of inputs that share a scale; default 128. */
  readonly groupSize?: number;
  /** Whether to quantize without zero points; default false. */
  readonly symmetric?: boolean;
  /** Default 'awq'; 'rtn' rounds to nearest and needs no calibration. */
  readonly method?: Method;
  /** Rounding of AWQ's scaled weights: 'feedback' (default) compensates the error of each weight in the next ones, 'nearest' is plain AWQ. */
  readonly rounding?: Rounding;
  /** Modules to quantize to 4 bits; default the decoder's layers. The head is rounded to nearest. */
  readonly modules?: readonly Module[];
  /** Quantizes the tower to 8 bits, if `modules` does not contain it. */
  readonly tower?: TowerFormat | undefined;
  /**
   * JSON lines of conversations (see `readCalibration`); default every other one of the packaged scenes. Missing answers
   * are generated, which loads the whole float model; if all are given, only its embedding, tower and projector are read.
   */
  readonly calibration?: string | undefined;
  /** Maximum number of conversations; default 128. */
  readonly samples?: number | undefined;
  /** Maximum number of rows of each layer's inputs that the search holds; default 4096. */
  readonly rows?: number | undefined;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** The options with their defaults. */
export type CheckedOptions = Required<
  Omit<QuantizeOptions, 'calibration' | 'tower' | 'samples' | 'rows' | 'signal' | 'onProgress'>
> & {
  readonly samples: number;
  readonly rows: number;
  readonly tower: TowerFormat | undefined;
  /** Undefined: the packaged scenes, or none if none is needed. */
  readonly calibration: string | undefined;
};

/** What loading takes. */
const GROUP_SIZE: Check = {
  expected: 'a multiple of 32, commonly 128, 64 or 32',
  accepts: (value) => Number.isSafeInteger(value) && (value as number) >= 32 && (value as number) % 32 === 0,
};

/** Fills in defaults. @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_OPTION_MISSING` */
export function checkQuantizeOptions(options: QuantizeOptions): CheckedOptions {
  const given = checkOptions<QuantizeOptions>('quantize', options, {
    model: { ...NAME, required: true },
    out: { ...NAME, required: true },
    format: oneOf(...QUANTIZED_FORMATS),
    groupSize: GROUP_SIZE,
    symmetric: BOOLEAN,
    method: oneOf(...METHODS),
    rounding: oneOf(...ROUNDINGS),
    // The 8-bit tower may be the only change.
    modules: listOf(`modules among ${MODULES.join(', ')}`, oneOf(...MODULES), options?.tower === undefined ? 1 : 0),
    tower: {
      ...oneOf(...TOWER_FORMATS),
      expected: `${TOWER_FORMATS.join(' or ')} (4 bits: name the tower among modules)`,
    },
    calibration: NAME,
    samples: COUNT,
    rows: COUNT,
    signal: SIGNAL,
    onProgress: FUNCTION,
  });
  const { model, out, format = 'autoawq', groupSize = 128, symmetric = false, method = 'awq' } = given;
  const { rounding = 'feedback', modules = ['decoder'], tower, samples = 128, rows = 4096 } = given;
  if (tower !== undefined && modules.includes('tower'))
    throw invalid('the tower', 'either 4 bits (modules) or 8 bits (tower)', 'both');
  const isCalibrated = tower !== undefined || (method === 'awq' && modules.some((module) => module !== 'head'));
  const calibration = isCalibrated ? given.calibration : undefined;
  return { model, out, format, groupSize, symmetric, method, rounding, modules, tower, samples, rows, calibration };
}

export function invalid(name: string, expected: string, received: unknown): SparseVilaError {
  return invalidOption('quantize', `${expected} for ${name}`, String(received));
}

/**
 * Half of the conversations about the packaged scenes: those for calibration, or the others for evaluation.
 * @throws SparseVilaError `ERR_CALIBRATION` if the package's files are missing
 */
export function packagedScenes(half: 'calibration' | 'evaluation'): CalibrationSample[] {
  const file = join(packageFolder(), 'assets', 'calibration', 'conversations.jsonl');
  return readCalibration(file).filter((_, i) => i % 2 === (half === 'calibration' ? 0 : 1));
}
