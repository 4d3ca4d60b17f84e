// Methods side by side: every conversation with every setting, in the multi-turn protocol, resumable after each.

import type { VisionLanguageModel } from '../models/model';
import type { OnProgress } from '../runtime/progress';
import { converse, type Protocol, sharedTowerTimes, type TurnResult } from './converse';
import type { DataSet } from './data_set';
import type { ResultsFile } from './results_file';
import { type Row, rowOf } from './rows';
import { DENSE, nameOf, type Setting } from './settings';

export interface EvaluateOptions {
  readonly model: VisionLanguageModel;
  readonly data: DataSet;
  /** Dense among them. */
  readonly settings: readonly Setting[];
  readonly protocols: readonly Protocol[];
  /** Of methods that draw. */
  readonly seed: number;
  readonly maxTokens: number;
  readonly results: ResultsFile;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** Asks whatever `results` does not hold yet; returns a row per protocol and setting. @throws what `converse` throws */
export async function evaluate(options: EvaluateOptions): Promise<Row[]> {
  const { data, settings, protocols, results, onProgress = () => undefined } = options;
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
      const ask = { ...options, ...part, conversation, images, signal: options.signal };
      // The first conversation of a process pays for what every other one finds ready: it is held twice.
      if (cold) withTower(part.setting, await converse(ask));
      cold = false;
      const turns = withTower(part.setting, await converse(ask));
      results.append(pieceOf(i, part), turns);
    }
  }
  onProgress({ step: 'evaluate', done: total, total, unit: 'conversations' });
  return parts.map((part) => partRow(data, results, part, protocols.length > 1));
}

interface Part {
  readonly protocol: Protocol;
  readonly setting: Setting;
}

function pieceOf(conversation: number, { protocol, setting }: Part): string {
  return `${conversation} ${protocol} ${nameOf(setting)}`;
}

function partRow({ conversations }: DataSet, results: ResultsFile, part: Part, several: boolean): Row {
  const pieceFor = (i: number, setting: Setting): TurnResult[] =>
    results.pieces.get(pieceOf(i, { ...part, setting })) as TurnResult[];
  const answered = conversations.map(({ turns }, i) => ({
    turns,
    results: pieceFor(i, part.setting),
    dense: pieceFor(i, DENSE),
  }));
  const row = rowOf(part.setting, answered);
  return several ? { ...row, protocol: part.protocol } : row;
}
