// The statistics of a turn: numbers of tokens, times, and what was kept and retrieved.

import { type DecoderConfig, isStateLayer } from '../models/config';
import type { TokenLogprob } from '../text/logprobs';
import type { FinishReason, Generated } from './generate';
import type { PrefillContext } from './prefill';
import type { AnswerView } from './refresh';
import type { PrunedMedium } from './sight';
import type { StageTimes } from './times';

export interface TurnStats {
  readonly tokens: {
    /** Number of visual tokens of this turn's media, before pruning. */
    readonly visualSeen: number;
    /** Number of visual tokens that entered the decoder, over all turns so far. */
    readonly visualKept: number;
    /** Number of visual rows that decoding attends in this turn; where layers differ, their mean, rounded. */
    readonly visualRetrieved: number;
    /** Number of visual rows after the prefill, and of those that decoding attends: means over the layers. */
    readonly activePrefill: number;
    readonly activeDecode: number;
    /** Number of rows that this turn's prompt added to the cache. */
    readonly prompt: number;
    readonly generated: number;
    /** With `verify`: number of drafted tokens, and how many of them the answer took. Otherwise 0. */
    readonly drafted: number;
    readonly accepted: number;
  };
  /** Milliseconds. `retrieve` is the time of `prune` and `retrieve` of the method; `perToken` is the mean decoder step. */
  readonly ms: StageTimes & { readonly perToken: number; readonly total: number };
  readonly finish: FinishReason;
  /** Number of times that visual rows were selected again while the answer was written. */
  readonly refreshes: number;
  /** The kept tokens of each image and video of this turn. */
  readonly media: readonly PrunedMedium[];
  /** Per layer, the visual tokens that were attended, the last ones if they were selected again, as indices among the `visualKept`; undefined if every layer attended all of them. */
  readonly retrieved: readonly Int32Array[] | undefined;
  /** The tokens of the answer with their log-probabilities; undefined unless the question asked for them. */
  readonly logprobs: readonly TokenLogprob[] | undefined;
}

/** A turn whose prompt is in the cache. */
export interface PrefilledTurn {
  /** Pruned media by their index in the conversation: this turn's, and those that a rewritten history puts into the cache again. */
  readonly media: ReadonlyMap<number, PrunedMedium>;
  readonly view: Pick<AnswerView, 'retrieved' | 'refreshes'> | undefined;
  /** Number of rows that the prefill added to the cache. */
  readonly promptRows: number;
  readonly activePrefill: number;
}

/** What a turn has come to, besides the log-probabilities of its tokens. `given` is the number of its media, `total` its milliseconds. */
export function statsOf(
  { conversation, model, times }: PrefillContext,
  { media: seen, view, promptRows, activePrefill }: PrefilledTurn,
  given: number,
  { tokens, steps, ms, finish, drafted, accepted, isVerified }: Generated,
  total: number,
): Omit<TurnStats, 'logprobs'> {
  const first = conversation.media.length - given;
  const media = [...seen].filter(([medium]) => medium >= first).map(([, pruned]) => pruned);
  const retrieved = view?.retrieved?.map(({ length }) => length);
  const chosen = retrieved ? meanOfAttending(model.decoder.config, retrieved) : conversation.places.length;
  const { refreshes = 0 } = view ?? {};
  // A step that selects again attends all rows. Verified answers do so in any case, and drafts attend what is retrieved.
  const activeDecode = refreshes > 0 && !isVerified ? chosen + ((activePrefill - chosen) * refreshes) / steps : chosen;
  return {
    tokens: {
      visualSeen: media.reduce((sum, medium) => sum + medium.tokens, 0),
      visualKept: conversation.places.length,
      visualRetrieved: Math.round(activeDecode),
      activePrefill,
      activeDecode,
      prompt: promptRows,
      ...{ generated: tokens, drafted, accepted },
    },
    ms: { ...times, perToken: steps === 0 ? 0 : ms / steps, total },
    finish,
    refreshes,
    media,
    retrieved: view?.retrieved,
  };
}

/** The mean of one count per layer over the layers that attend rows. */
export function meanOfAttending(config: DecoderConfig, counts: readonly number[]): number {
  const attending = counts.filter((_, layer) => !isStateLayer(config, layer));
  return attending.reduce((sum, count) => sum + count, 0) / attending.length;
}
