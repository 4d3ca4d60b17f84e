// Compares methods: runs every conversation with every setting, in the multi-turn protocol, and can resume after each one.

import { coded, SparseVilaError } from '../errors';
import type { VisionLanguageModel } from '../models/model';
import { ANYTHING, type Checks, COUNT, checkOptions, FUNCTION, listOf, OBJECT, oneOf, SEED, SIGNAL } from '../options';
import type { OnProgress } from '../runtime/progress';
import { inMemory, type ResultsFile } from '../runtime/results_file';
import { converse, PROTOCOLS, type Protocol, sharedTowerTimes, type TurnResult } from './converse';
import type { DataSet, TrueTurn } from './data_set';
import { SCORE_NAMES, type Score, type ScoreName, scoreOf } from './scores';
import { DENSE, nameOf, type Setting } from './settings';
import { type Answered, type MethodSummary, summarize } from './summary';

export interface EvaluateOptions {
  readonly model: VisionLanguageModel;
  readonly data: DataSet;
  /** The settings to compare. Dense runs first, even if it is not among them. */
  readonly settings: readonly Setting[];
  /** Default: forget. */
  readonly protocols?: readonly Protocol[];
  /** The score of answers: its name, or a function that returns a share. Default: exact. */
  readonly score?: ScoreName | Score;
  /**
   * Scores only the questions that this setting answers wrongly, with a score below 1/2; such as `downsample`, as VTC-Bench (arXiv 2510.07143)
   * does: questions that a smaller picture answers say nothing about what was selected. It runs as a row of its own.
   */
  readonly missedBy?: Setting;
  /** Seed of random methods. Default 1. */
  readonly seed?: number;
  /** Default 64. */
  readonly maxTokens?: number;
  /** 'dense': answers are those of dense decoding over what a method has kept, as with `verify` of `ask`; rows then have `drafted` and `accepted`. */
  readonly verify?: 'dense';
  /** The store of answers, so that a stopped evaluation continues. Default: in memory. */
  readonly results?: ResultsFile;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

const CHECKS: Checks<EvaluateOptions> = {
  model: { ...OBJECT, required: true },
  data: { ...OBJECT, required: true },
  settings: { ...listOf('settings', OBJECT), required: true },
  protocols: listOf(`of ${PROTOCOLS.join(', ')}`, oneOf(...PROTOCOLS), 1),
  score: {
    expected: `one of ${SCORE_NAMES.join(', ')} or a function`,
    accepts: (value) => typeof value === 'function' || SCORE_NAMES.includes(value as ScoreName),
  },
  missedBy: OBJECT,
  seed: SEED,
  maxTokens: COUNT,
  verify: oneOf('dense'),
  results: ANYTHING,
  signal: SIGNAL,
  onProgress: FUNCTION,
};

/**
 * Runs the conversations that are not in `results`, scores all answers, and returns a summary per protocol and setting.
 * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_CALLBACK`; `ERR_DATA_SET` if `missedBy` misses no question; errors of `converse`
 */
export async function evaluate(options: EvaluateOptions): Promise<MethodSummary[]> {
  checkOptions('evaluate', options, CHECKS);
  try {
    return await compare(options);
  } catch (error) {
    throw coded(error, options.signal);
  }
}

async function compare(options: EvaluateOptions): Promise<MethodSummary[]> {
  const { model, data, seed = 1, maxTokens = 64, verify, signal, results = inMemory() } = options;
  const { protocols = ['forget'], score = 'exact', missedBy, onProgress = () => undefined } = options;
  const wanted = [DENSE, ...(missedBy === undefined ? [] : [missedBy]), ...options.settings];
  const settings = [...new Map(wanted.map((setting) => [nameOf(setting), setting])).values()];
  const total = data.conversations.length;
  const parts = protocols.flatMap((protocol) => settings.map((setting) => ({ protocol, setting })));
  let cold = true;
  for (const [i, conversation] of data.conversations.entries()) {
    onProgress({ step: 'evaluate', done: i, total, unit: 'conversations' });
    const open = parts.filter((part) => !results.pieces.has(pieceOf(i, part)));
    if (open.length === 0) continue;
    const images = conversation.images();
    const withTower = sharedTowerTimes();
    for (const part of open) {
      const ask = { model, seed, maxTokens, verify, ...part, conversation, images, signal };
      // The first conversation of a process includes one-time costs, so it is held twice.
      if (cold) withTower(part.setting, await converse(ask));
      cold = false;
      const turns = withTower(part.setting, await converse(ask));
      results.append(pieceOf(i, part), turns);
    }
  }
  onProgress({ step: 'evaluate', done: total, total, unit: 'conversations' });
  const rows: MethodSummary[] = [];
  for (const part of parts)
    rows.push(await partRow(data, results, part, { several: protocols.length > 1, score, missedBy }));
  return rows;
}

interface Part {
  readonly protocol: Protocol;
  readonly setting: Setting;
}

function pieceOf(conversation: number, { protocol, setting }: Part): string {
  return `${conversation} ${protocol} ${nameOf(setting)}`;
}

interface RowOptions {
  /** Whether there are several protocols. */
  readonly several: boolean;
  readonly score: ScoreName | Score;
  readonly missedBy: Setting | undefined;
}

async function partRow(
  { conversations }: DataSet,
  results: ResultsFile,
  part: Part,
  { several, score, missedBy }: RowOptions,
): Promise<MethodSummary> {
  const pieceFor = (i: number, setting: Setting): TurnResult[] =>
    results.pieces.get(pieceOf(i, { ...part, setting })) as TurnResult[];
  const answered: Answered[] = [];
  for (const [i, { turns, frames }] of conversations.entries()) {
    const given = pieceFor(i, part.setting);
    const scores = await scoresOf(given, turns, score);
    const missed = missedBy && (await scoresOf(pieceFor(i, missedBy), turns, score)).map((one) => one < 0.5);
    answered.push({
      turns,
      frames,
      results: given,
      scores,
      dense: pieceFor(i, DENSE),
      ...(missed && { counts: missed }),
    });
  }
  if (missedBy !== undefined && !answered.some(({ counts }) => counts?.includes(true)))
    throw new SparseVilaError(
      'ERR_DATA_SET',
      `Expected a question that ${nameOf(missedBy)} answers wrongly, received none of ${conversations.length} conversations. Ask more questions, or ` +
        'use a setting that sees less.',
    );
  const row = summarize(part.setting, answered);
  return several ? { ...row, protocol: part.protocol } : row;
}

/** The score of each answer of a conversation. */
export async function scoresOf(
  results: readonly TurnResult[],
  turns: readonly TrueTurn[],
  score: ScoreName | Score,
): Promise<number[]> {
  const scores: number[] = [];
  for (const [i, turn] of turns.entries()) scores.push(await scoreOf(score, results[i]?.answer ?? '', turn));
  return scores;
}
