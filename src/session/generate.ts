// The decode loop of one turn: sample a token, stream text at character boundaries, run the token over the turn's view.

import { SparseVilaError } from '../errors';
import type { VisionLanguageModel } from '../models/model';
import { floats } from '../ops/run';
import type { Tensor } from '../runtime/tensor';
import type { TokenLogprob } from '../text/logprobs';
import { stopMatcher, stopTokens } from '../text/stop';
import { textStream } from '../text/tokenizer';
import type { Chooser } from './choose';
import { type Conversation, lengthOf } from './conversation';
import type { AnswerView } from './refresh';
import { plainSteps } from './steps';
import { type VerifyOptions, verifiedSteps } from './verify';

export type FinishReason = 'stop' | 'length' | 'stopString';

/** A piece of an answer: text, and the tokens since the last piece if the question asks for log-probabilities. */
export interface Piece {
  /** Empty only at the end, after tokens that gave no text. */
  readonly text: string;
  readonly tokens: readonly TokenLogprob[];
}

export interface Generated {
  readonly finish: FinishReason;
  /** Number of tokens of the answer, without the stop token. */
  readonly tokens: number;
  /** Number of decoder steps, and the milliseconds they took. */
  readonly steps: number;
  readonly ms: number;
  /** Number of drafted tokens, and how many of them the answer took; 0 unless drafts are verified. */
  readonly drafted: number;
  readonly accepted: number;
  /** Whether the tokens are those of dense decoding. */
  readonly isVerified: boolean;
}

export interface GenerateOptions {
  readonly maxTokens: number;
  readonly stop: readonly string[];
  readonly pace: () => Promise<void>;
  /** If given, the view only drafts, and the answer is that of dense decoding. */
  readonly verify?: Omit<VerifyOptions, 'isEnd'> | undefined;
}

/**
 * Yields the answer in pieces. Stores ids that are not in the cache yet as the script's `pending`, also when the consumer stops early.
 * @param first scores of the first token, f32 [1, v]; disposed of here
 */
export async function* generate(
  model: VisionLanguageModel,
  conversation: Conversation,
  view: AnswerView,
  choices: Chooser,
  first: Tensor,
  { maxTokens, stop, pace, verify }: GenerateOptions,
): AsyncGenerator<Piece, Generated> {
  checkSpread(floats(first));
  const stream = textStream(model.tokenizer);
  const matcher = stopMatcher(stop);
  const named = stopTokens(model.tokenizer, stop);
  let scores = first;
  const context = { model, conversation, pace };
  const isEnd = (id: number): boolean => model.stopIds.includes(id) || named.has(id);
  const run =
    verify === undefined ? plainSteps(context, view) : verifiedSteps(context, view, choices, { ...verify, isEnd });
  let tokens = 0;
  let accepted = 0;
  let steps = 0;
  let ms = 0;
  let pending: number[] = [];
  let unsaid: TokenLogprob[] = []; // tokens that belong to the next piece
  let finish: FinishReason = 'length';
  let isWhole = true; // false while a step runs: if it throws, the turn is taken back
  let cut = false; // true after a stop string: the text that the matcher holds back is not part of the answer
  try {
    while (tokens < maxTokens && Math.max(lengthOf(conversation), conversation.nextPosition) < conversation.capacity) {
      const begin = performance.now();
      const { draft } = run;
      const { id, logprob } = choices.choose(scores, conversation.ids);
      if (id === draft) accepted++;
      if (model.stopIds.includes(id)) {
        finish = 'stop';
        break;
      }
      if (named.has(id)) {
        finish = 'stopString';
        break;
      }
      tokens++;
      conversation.ids.push(id);
      pending = [id];
      const { emit, stopped } = matcher.push(stream.push(id));
      if (logprob !== undefined) unsaid.push(logprob);
      if (emit !== '') {
        yield { text: emit, tokens: unsaid };
        unsaid = [];
      }
      if (stopped) {
        finish = 'stopString';
        cut = true;
        break;
      }
      if (choices.isOver) {
        finish = 'stop';
        break;
      }
      if (tokens === maxTokens) break;
      scores.dispose();
      isWhole = false;
      scores = await run.next(id, maxTokens - tokens);
      isWhole = true;
      pending = [];
      steps++;
      ms += performance.now() - begin;
    }
    const { emit } = cut ? { emit: '' } : matcher.push(stream.flush());
    const rest = cut ? '' : emit + matcher.flush();
    if (rest !== '' || unsaid.length > 0) yield { text: rest, tokens: unsaid };
    return { finish, tokens, steps, ms, drafted: run.drafted, accepted, isVerified: verify !== undefined };
  } finally {
    scores.dispose();
    if (isWhole) await run.end();
    run.dispose();
    conversation.script = { ...conversation.script, pending };
  }
}

/** Refuses scores that are all equal, because sampling would then return an arbitrary token. @throws SparseVilaError `ERR_LOGITS_INVALID` */
function checkSpread(scores: Float32Array): void {
  const [one] = scores;
  if (scores.length < 2 || scores.some((score) => score !== one)) return;
  throw new SparseVilaError(
    'ERR_LOGITS_INVALID',
    `Expected scores that tell tokens apart, received ${one} for all ${scores.length}. Is a weight of the decoder all zero?`,
  );
}
