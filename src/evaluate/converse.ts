// Holds one conversation with one setting: returns answers, attended tokens and times. Does not judge answers.

import { codeOf, messageOf, SparseVilaError } from '../errors';
import type { ImageInput } from '../image/decode';
import type { VisionLanguageModel } from '../models/model';
import { methodFor } from '../session/quota_scores';
import { createSession } from '../session/session';
import type { TurnStats } from '../session/turn_stats';
import type { TrueConversation } from './data_set';
import { answering, createMethod, methodEntry, nameOf, type Setting } from './settings';

/** forget: each turn sees the pictures and no text of earlier turns. chat: earlier questions and answers stay. */
export const PROTOCOLS = ['forget', 'chat'] as const;
export type Protocol = (typeof PROTOCOLS)[number];

export const STAGES = ['image', 'tower', 'project', 'prefill', 'retrieve', 'decode', 'total'] as const;
/** Milliseconds. `prefill` includes what a method does inside it; `retrieve` is the time of the selections outside. */
export type Times = Readonly<Record<(typeof STAGES)[number], number>>;

export interface TurnResult {
  readonly answer: string;
  /** Numbers of visual tokens that the question's prefill and the decoding attend: means over the layers. */
  readonly activePrefill: number;
  readonly activeDecode: number;
  /** Of verified answers: number of drafted tokens, and how many of them the answer took. */
  readonly drafted?: number;
  readonly accepted?: number;
  readonly ms: Times;
}

export interface ConverseOptions {
  readonly model: VisionLanguageModel;
  readonly conversation: TrueConversation;
  readonly images: readonly ImageInput[];
  readonly setting: Setting;
  readonly protocol: Protocol;
  readonly seed: number;
  /** Maximum number of tokens of an answer. */
  readonly maxTokens: number;
  /** Makes the answers those of dense decoding. Methods that retrieve frames answer as without it. */
  readonly verify?: 'dense' | undefined;
  readonly signal: AbortSignal | undefined;
}

/**
 * Asks all questions greedily.
 * @throws SparseVilaError `ERR_DATA_SET` for a picture that cannot be decoded; other errors unchanged; `signal.reason`
 */
export async function converse(options: ConverseOptions): Promise<TurnResult[]> {
  const { model, conversation, images, setting, protocol, seed, maxTokens, verify, signal } = options;
  const history = protocol === 'forget' ? 'forget' : 'keep';
  const { method: name, schedule, refresh, ...ratios } = setting;
  const question = conversation.turns[0]?.question ?? '';
  const since = performance.now();
  const media = conversation.frames === undefined ? { images } : { videos: [{ frames: images }] };
  const created = await methodFor(model, methodEntry(name), { ...ratios, seed }, { question, ...media, signal });
  const method = answering(created, { schedule, refresh });
  // What a method asks the model before the first turn is part of that turn's selections.
  const asked = methodEntry(name).frameScores === true ? performance.now() - since : 0;
  const verified = verify === undefined || method.retrieve?.frames !== undefined ? {} : { verify };
  const session = createSession(model, { method, history });
  try {
    const results: TurnResult[] = [];
    for (const [i, { question }] of conversation.turns.entries()) {
      const first = i === 0 ? media : {};
      const how = { temperature: 0, maxTokens, ...verified, ...(signal && { signal }) };
      const answer = session.ask(question, { ...first, ...how });
      const text = await answer.text();
      const stats = answer.stats as TurnStats;
      const { drafted, accepted } = stats.tokens;
      const drafts = 'verify' in verified ? { drafted, accepted } : {};
      results.push({ ...resultOf(text.trim(), stats, i === 0 ? asked : 0), ...drafts });
    }
    return results;
  } catch (cause) {
    if (!/^ERR_IMAGE/.test(codeOf(cause) ?? '')) throw cause;
    throw new SparseVilaError('ERR_DATA_SET', `${conversation.place}: ${messageOf(cause)}`, { cause });
  } finally {
    session.dispose();
  }
}

/**
 * For models with an image cache: if a conversation found its pictures encoded, its first turn is charged the tower's time of the
 * conversation that encoded them, with the same taps. Make a new one for every set of pictures.
 */
export function sharedTowerTimes(): (setting: Setting, results: readonly TurnResult[]) => TurnResult[] {
  const times = new Map<string, number>();
  return (setting, results) => {
    const [first, ...later] = results;
    if (first === undefined) return [];
    const { prune, encode, reuse, resize } = createMethod(setting, 0);
    const layers = JSON.stringify([
      prune?.taps ?? {},
      encode === undefined && reuse === undefined ? resize : nameOf(setting),
    ]);
    const { tower: own, total } = first.ms;
    const tower = Math.max(own, times.get(layers) ?? 0);
    times.set(layers, tower);
    return [{ ...first, ms: rounded({ ...first.ms, tower, total: total + tower - own }) }, ...later];
  };
}

function resultOf(answer: string, { tokens, ms }: TurnStats, asked: number): TurnResult {
  const { image, tower, project, prefill } = ms;
  const [retrieve, total] = [ms.retrieve + asked, ms.total + asked];
  const decode = Math.max(0, total - image - tower - project - prefill - retrieve);
  const { activePrefill, activeDecode } = tokens;
  return {
    answer,
    activePrefill,
    activeDecode,
    ms: rounded({ image, tower, project, prefill, retrieve, decode, total }),
  };
}

/** Rounds to microseconds. */
function rounded(times: Times): Times {
  return Object.fromEntries(Object.entries(times).map(([stage, ms]) => [stage, Math.round(ms * 1000) / 1000])) as Times;
}
