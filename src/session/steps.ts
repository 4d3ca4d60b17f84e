// The decoder steps of an answer: each runs the token that was chosen last and gives the scores of the next one.

import { SparseVilaError } from '../errors';
import type { VisionLanguageModel } from '../models/model';
import type { LayerView, Segment } from '../models/segments';
import type { Tensor } from '../runtime/tensor';
import type { Conversation } from './conversation';

export interface Steps {
  /**
   * Runs a token; returns the scores of the next one, f32 [1, v], which the caller disposes of. The conversation then counts the token's row.
   * @param more most tokens that can still follow `id`, at least 1
   */
  next(id: number, more: number): Promise<Tensor>;
  /** The token that was drafted in the place of the next one; undefined if none was. */
  readonly draft: number | undefined;
  /** Number of tokens drafted so far. */
  readonly drafted: number;
  /** Leaves in the cache only the rows that the conversation counts. Required after the last step, unless the turn is taken back. */
  end(): Promise<void>;
  /** Frees memory, after `end` or a failure. */
  dispose(): void;
}

export interface StepContext {
  readonly model: Pick<VisionLanguageModel, 'decoder'>;
  readonly conversation: Conversation;
  readonly pace: () => Promise<void>;
}

export type Views = readonly (LayerView | undefined)[] | undefined;

/** What the steps of an answer attend. */
export interface StepView {
  /** The views of the next step. */
  readonly layers: Views;
  /** Whether the next tokens that run over all rows are to select rows again. */
  readonly isDue: boolean;
  /** Runs tokens over all rows and selects what later steps attend; returns the scores after each, f32 [n, v]. Does not count them in the conversation. */
  renew(ids: readonly number[], position: number): Promise<Tensor>;
  /** So many tokens were run without selecting rows again. */
  ran(tokens: number): void;
  /** A token that was drafted over the view was accepted or rejected. */
  judged(isAccepted: boolean): void;
}

/** A view that does not change. */
export function fixedView(layers: Views): StepView {
  const renew = (): never => {
    throw new SparseVilaError('ERR_INTERNAL', 'Expected a view that selects rows again, received a fixed one.');
  };
  return { layers, isDue: false, renew, ran: () => undefined, judged: () => undefined };
}

/** Steps of one token each over a view. */
export function plainSteps(context: StepContext, view: StepView): Steps {
  const { conversation } = context;
  return {
    next: async (id) => {
      const scores = view.isDue ? await view.renew([id], conversation.nextPosition) : await runOver(context, view, id);
      count(conversation, id);
      return scores;
    },
    draft: undefined,
    drafted: 0,
    end: async () => undefined,
    dispose: () => undefined,
  };
}

async function runOver(context: StepContext, view: StepView, id: number): Promise<Tensor> {
  const scores = await runRows(context, [id], context.conversation.nextPosition, view.layers);
  view.ran(1);
  return scores;
}

/** Counts the row of a token that is in the cache. */
export function count(conversation: Conversation, id: number): void {
  for (const layer of conversation.layers) layer.length++;
  conversation.nextPosition++;
  conversation.items.push(id);
}

/** Appends tokens at consecutive positions to the cache; returns the scores after each, f32 [n, v]. Does not count them in the conversation. */
export async function runRows(
  { model: { decoder }, conversation: { cache }, pace }: StepContext,
  ids: readonly number[],
  position: number,
  views: Views,
  onColumns?: Segment['onColumns'],
): Promise<Tensor> {
  const x = decoder.embed(ids);
  try {
    const positions = Array.from(ids, (_, row) => position + row);
    const y = await decoder.forward(x, [{ cache, positions, views, onColumns }], { pace });
    try {
      return decoder.scores(y, Array.from(ids.keys()));
    } finally {
      y.dispose();
    }
  } finally {
    x.dispose();
  }
}
