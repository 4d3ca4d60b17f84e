// Finds the most aggressive ratios of a method that keep a given quality on a small set, by walking along the border in the grid of ratios.
// Because quality falls as either ratio grows, this tries far fewer settings than the grid has.

import { coded } from '../errors';
import { attendsAll } from '../models/config';
import type { VisionLanguageModel } from '../models/model';
import {
  ANYTHING,
  BOOLEAN,
  type Check,
  type Checks,
  COUNT,
  checkOptions,
  FUNCTION,
  OBJECT,
  oneOf,
  SEED,
  SIGNAL,
} from '../options';
import type { OnProgress } from '../runtime/progress';
import type { MethodEntry } from '../sparsity/methods';
import { type ConverseOptions, converse, type TurnResult } from './converse';
import type { DataSet } from './data_set';
import { scoresOf } from './evaluate';
import type { Score, ScoreName } from './scores';
import { DENSE, POSITION_MODES, type Positions, type Ratios, type Setting } from './settings';

/** The goal: a minimum of agreement with dense, or of accuracy by the score; a share. */
export interface Goal {
  readonly measure: 'agreement' | 'accuracy';
  readonly least: number;
}

export const PREFILL_GRID: readonly number[] = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];
export const DECODE_GRID: readonly number[] = [0, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];

export interface TuneOptions {
  readonly model: VisionLanguageModel;
  readonly data: DataSet;
  readonly method: MethodEntry;
  /** Default: original. */
  readonly positions?: Positions;
  readonly goal: Goal;
  /** The score for accuracy. Default: exact. */
  readonly score?: ScoreName | Score;
  /** Seed of random methods. Default 1. */
  readonly seed?: number;
  /** Default 64. */
  readonly maxTokens?: number;
  /** Default: PREFILL_GRID and DECODE_GRID. */
  /** Whether to find, at the best ratios, decoder layers that need no visual rows while an answer is written. Default false. */
  readonly schedule?: boolean;
  readonly grid?: { readonly prefill: readonly number[]; readonly decode: readonly number[] };
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

const GOAL: Check = {
  expected: '{ measure: "agreement" or "accuracy", least: a share from 0 to 1 }',
  accepts: (value) => {
    const { measure, least } = Object(value) as Partial<Goal>;
    return (measure === 'agreement' || measure === 'accuracy') && typeof least === 'number' && least >= 0 && least <= 1;
  },
};

const CHECKS: Checks<TuneOptions> = {
  ...{ model: { ...OBJECT, required: true }, data: { ...OBJECT, required: true }, score: ANYTHING },
  method: {
    expected: 'a row of METHODS',
    accepts: (value) => OBJECT.accepts(value) && 'uses' in (value as object),
    required: true,
  },
  positions: oneOf(...POSITION_MODES),
  goal: { ...GOAL, required: true },
  seed: SEED,
  maxTokens: COUNT,
  grid: OBJECT,
  schedule: BOOLEAN,
  signal: SIGNAL,
  onProgress: FUNCTION,
};

/** Ratios that were tried; `value` is undefined if they were abandoned because the goal was out of reach. */
export interface Tried extends Ratios {
  readonly value: number | undefined;
}

export interface Tuned {
  /** Of the ratios that reach the goal, those with the smallest sum of active shares at prefill and at decode. */
  readonly best: Ratios & { readonly value: number; readonly none?: readonly number[] };
  readonly tried: readonly Tried[];
}

/**
 * Tunes a method. Returns undefined if not even sparsity 0 reaches the goal, which happens only for an accuracy that dense does not have.
 * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_OPTION_MISSING`, `ERR_CALLBACK`; errors of `converse`
 */
export async function tune(options: TuneOptions): Promise<Tuned | undefined> {
  const given = checkOptions('tune', options, CHECKS);
  try {
    return await search({ seed: 1, maxTokens: 64, positions: 'original', ...given });
  } catch (error) {
    throw coded(error, given.signal);
  }
}

/** The options with their defaults. */
interface Search extends TuneOptions {
  readonly positions: Positions;
  readonly seed: number;
  readonly maxTokens: number;
}

async function search(options: Search): Promise<Tuned | undefined> {
  const { method, data, grid = { prefill: PREFILL_GRID, decode: DECODE_GRID }, onProgress = () => undefined } = options;
  const prefill = method.uses.prefill ? grid.prefill : [0];
  const decode = method.uses.decode ? grid.decode : [0];
  const [steps, images] = [prefill.length + decode.length, data.conversations.map(({ images }) => images())];
  const ask = (setting: Setting, i: number): Promise<TurnResult[]> => answersOf(options, setting, i, images[i] ?? []);
  const dense: TurnResult[][] = [];
  for (const i of data.conversations.keys()) {
    onProgress({ step: 'ask the dense model', done: i, total: images.length, unit: 'conversations' });
    dense.push(await ask(DENSE, i));
  }
  onProgress({ step: 'ask the dense model', done: images.length, total: images.length, unit: 'conversations' });
  const tried: Tried[] = [];
  // From no sparsity to the border, then along it: a decode ratio that fails at one prefill ratio fails at all higher ones.
  for (let p = 0, d = decode.length - 1; p < prefill.length && d >= 0; ) {
    onProgress({ step: 'try ratios', done: tried.length, total: steps, unit: 'ratios' });
    const ratios = { prefillSparsity: prefill[p] as number, decodeSparsity: decode[d] as number };
    const value = await quality(options, { method: method.name, ...ratios, positions: options.positions }, dense, ask);
    tried.push({ ...ratios, value });
    if (value === undefined) d--;
    else p++;
  }
  onProgress({ step: 'try ratios', done: steps, total: steps, unit: 'ratios' });
  const [best] = tried.filter((one): one is Tuned['best'] => one.value !== undefined).sort(byActive);
  if (best === undefined || options.schedule !== true) return best && { best, tried };
  const value = async (none: readonly number[]): Promise<number | undefined> => {
    const setting = { ...ratiosOf(best), method: method.name, positions: options.positions, schedule: { none } };
    return quality(options, setting, dense, ask);
  };
  return { best: { ...best, ...(await emptiestLayers(options, best.value, value)) }, tried };
}

const ratiosOf = ({ prefillSparsity, decodeSparsity }: Ratios): Ratios => ({ prefillSparsity, decodeSparsity });

/** Layers that need no visual rows, found one by one from the last: a layer joins if the goal is still met. */
async function emptiestLayers(
  { model, onProgress = () => undefined }: Search,
  start: number,
  qualityOf: (none: readonly number[]) => Promise<number | undefined>,
): Promise<{ readonly value: number; readonly none: readonly number[] }> {
  const { config } = model.decoder;
  let found = { value: start, none: [] as readonly number[] };
  for (let layer = config.layers - 1; layer >= 0; layer--) {
    onProgress({ step: 'try layers', done: config.layers - 1 - layer, total: config.layers, unit: 'layers' });
    if (!attendsAll(config, layer)) continue;
    const none = [...found.none, layer];
    const value = await qualityOf(none);
    if (value !== undefined) found = { value, none };
  }
  onProgress({ step: 'try layers', done: config.layers, total: config.layers, unit: 'layers' });
  return found;
}

function byActive(a: Ratios, b: Ratios): number {
  const active = ({ prefillSparsity: p, decodeSparsity: d }: Ratios): number => 1 - p + (1 - p) * (1 - d);
  return active(a) - active(b);
}

function answersOf(
  { model, data, seed, maxTokens, signal }: Search,
  setting: Setting,
  i: number,
  images: ConverseOptions['images'],
): Promise<TurnResult[]> {
  const conversation = data.conversations[i] as DataSet['conversations'][number];
  return converse({ model, conversation, images, setting, protocol: 'forget', seed, maxTokens, signal });
}

/** The share of answers that meet the goal; undefined as soon as too many do not. */
async function quality(
  { data, goal, score = 'exact' }: TuneOptions,
  setting: Setting,
  dense: readonly TurnResult[][],
  ask: (setting: Setting, i: number) => Promise<TurnResult[]>,
): Promise<number | undefined> {
  const total = data.conversations.reduce((sum, { turns }) => sum + turns.length, 0);
  let misses = 0;
  for (const [i, { turns }] of data.conversations.entries()) {
    const results = await ask(setting, i);
    const kept =
      goal.measure === 'accuracy'
        ? await scoresOf(results, turns, score)
        : results.map(({ answer }, t) => Number(answer === dense[i]?.[t]?.answer));
    misses += turns.length - kept.reduce((sum, share) => sum + share, 0);
    if ((total - misses) / total < goal.least) return undefined;
  }
  return (total - misses) / total;
}
