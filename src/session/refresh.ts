// The view of an answer, whose rows a method may select again while the answer is written: a token is run over all rows, and its attention says together
// with the question's which rows the tokens after it attend. With `verify` every pass is over all rows, so that this costs the columns of attention alone.

import type { Segment } from '../models/segments';
import type { Tensor } from '../runtime/tensor';
import type { CacheLayer } from './conversation';
import type { PrefillContext } from './prefill';
import { runRows, type StepView } from './steps';
import { timed } from './times';
import { type Relevance, type TurnView, turnView } from './view';

/** A turn's view that its answer may renew. */
export interface AnswerView extends TurnView, StepView {
  /** Number of times that rows were selected again. */
  readonly refreshes: number;
}

export function answerView(context: PrefillContext, found: Relevance): AnswerView {
  const { conversation, method, model, times } = context;
  const { config } = model.decoder;
  const { refresh } = method.retrieve ?? {};
  let view = turnView(method, conversation, found, config);
  let [since, rejected, refreshes] = [0, 0, 0];
  return {
    get layers() {
      return view.layers;
    },
    get retrieved() {
      return view.retrieved;
    },
    get refreshes() {
      return refreshes;
    },
    get isDue() {
      if (refresh === undefined || view.layers === undefined) return false;
      const { every = Number.POSITIVE_INFINITY, rejected: most = Number.POSITIVE_INFINITY } = refresh;
      return since >= every || rejected >= most;
    },
    async renew(ids, position) {
      const { scores, relevance } = await observed(context, found, ids, position);
      try {
        const next = await timed(times, 'retrieve', () => turnView(method, conversation, { relevance }, config));
        view.dispose();
        view = next;
      } catch (error) {
        scores.dispose();
        throw error;
      }
      [since, rejected, refreshes] = [0, 0, refreshes + 1];
      return scores;
    },
    ran(tokens) {
      since += tokens;
    },
    judged(isAccepted) {
      if (!isAccepted) rejected++;
    },
    dispose: () => view.dispose(),
  };
}

/**
 * Runs tokens over all rows. Returns the scores after each, and per layer the mean of two relevances: the question's, and the attention that each visual
 * row receives from these tokens.
 */
async function observed(
  context: PrefillContext,
  { relevance: asked }: Relevance,
  ids: readonly number[],
  position: number,
): Promise<Relevance & { scores: Tensor }> {
  const relevance = [...asked];
  const onColumns: Segment['onColumns'] = (layer, columns) => {
    const { visual } = context.conversation.layers[layer] as CacheLayer;
    relevance[layer] = (asked[layer] as Float32Array).map(
      (own, i) => (own + (columns[visual[i] as number] as number)) / 2,
    );
  };
  return { scores: await runRows(context, ids, position, undefined, onColumns), relevance };
}
