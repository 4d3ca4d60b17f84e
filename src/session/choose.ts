// Chooses the next token of an answer from the decoder's scores: what is added to them, the draw, and the log-probabilities that are reported.

import { type AnswerFormat, type Constraint, compileFormat, constraintOf } from '../grammar/constraint';
import type { VisionLanguageModel } from '../models/model';
import { float32, floats } from '../ops/run';
import { sample } from '../ops/sample';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { logprobsOf, type TokenLogprob } from '../text/logprobs';
import type { Sampler } from '../text/sampling';

export interface Choice {
  readonly id: number;
  /** Given if the question asks for log-probabilities. */
  readonly logprob: TokenLogprob | undefined;
}

export interface ChoiceOptions {
  /** Number of most probable tokens to report with each token; undefined: no log-probabilities. */
  readonly logprobs: number | undefined;
  /** Added to the scores of these ids. */
  readonly logitBias: Readonly<Record<number, number>> | undefined;
  readonly format: AnswerFormat | undefined;
}

/** Chooses the tokens of an answer, one after another. */
export interface Choices {
  /** Samples the next id from scores, f32 [1, v]. `history`: the ids of the conversation, for the repetition penalty. */
  choose(scores: Tensor, history: readonly number[]): Choice;
  /** Whether the answer is complete, and the format allows no further token. */
  readonly isOver: boolean;
}

export interface Chooser extends Choices {
  /** Chooses from the same random numbers what would come next, without log-probabilities, and leaves this one as it is. Valid until this one chooses. */
  ahead(): Choices;
  dispose(): void;
}

export function chooser(
  model: Pick<VisionLanguageModel, 'tokenizer' | 'decoder' | 'stopIds'>,
  sampler: Sampler,
  { logprobs, logitBias = {}, format }: ChoiceOptions,
): Chooser {
  const { tokenizer, decoder, stopIds } = model;
  const constraint = format && constraintOf(model, compileFormat(format));
  const bias = biasOf(logitBias, decoder.config.vocabSize);
  const constant = bias && constraint === undefined ? float32(bias, [1, bias.length]) : undefined;
  const additions = additionsFor(decoder.config.vocabSize, bias);
  /** What is added to all scores, f32 [1, v]; undefined if it is nothing. */
  const added = (own: Constraint | undefined): Tensor | undefined =>
    own === undefined ? constant : additions.of(own.allowed());
  const choose = (scores: Tensor, history: readonly number[], from: Sampler, own: Constraint | undefined): number => {
    const addition = added(own);
    const adjusted = addition === undefined ? scores : start().tf.add(scores, addition);
    try {
      const id = draw(from, adjusted, history);
      if (!stopIds.includes(id)) own?.accept(id);
      return id;
    } finally {
      if (adjusted !== scores) adjusted.dispose();
    }
  };
  return {
    choose: (scores, history) => {
      const id = choose(scores, history, sampler, constraint);
      const logprob = logprobs === undefined ? undefined : logprobsOf(floats(scores), id, logprobs, tokenizer.bytes);
      return { id, logprob };
    },
    get isOver() {
      return constraint?.isOver === true;
    },
    ahead: () => {
      const [from, own] = [sampler.ahead(), constraint?.fork()];
      return {
        choose: (scores, history) => ({ id: choose(scores, history, from, own), logprob: undefined }),
        get isOver() {
          return own?.isOver === true;
        },
      };
    },
    dispose: () => {
      constant?.dispose();
      additions.dispose();
    },
  };
}

/** The bias by id, f32 [v]; undefined if there is none. */
function biasOf(logitBias: Readonly<Record<number, number>>, size: number): Float32Array | undefined {
  const entries = Object.entries(logitBias);
  if (entries.length === 0) return undefined;
  const values = new Float32Array(size);
  for (const [id, value] of entries) values[Number(id)] = value;
  return values;
}

/** Number of masks whose tensors an answer keeps: the places of a schema between which it goes to and fro, such as the inside of its strings. */
const KEPT_ADDITIONS = 8;

/** For masks: f32 [1, v] with the bias of allowed ids, and -Infinity for the others. Those that were used last are kept, so that most tokens make none. */
function additionsFor(size: number, bias: Float32Array | undefined) {
  const known = new Map<Uint32Array, Tensor>();
  return {
    of(allowed: Uint32Array): Tensor {
      const found = known.get(allowed) ?? float32(masked(allowed, size, bias), [1, size]);
      known.delete(allowed);
      known.set(allowed, found);
      for (const [oldest, tensor] of known) {
        if (known.size <= KEPT_ADDITIONS) break;
        tensor.dispose();
        known.delete(oldest);
      }
      return found;
    },
    dispose: () => {
      for (const tensor of known.values()) tensor.dispose();
      known.clear();
    },
  };
}

function masked(allowed: Uint32Array, size: number, bias: Float32Array | undefined): Float32Array {
  const values = new Float32Array(size).fill(Number.NEGATIVE_INFINITY);
  for (let id = 0; id < size; id++) {
    const word = allowed[id >> 5] as number;
    if (word === 0) id |= 31;
    else if ((word >>> (id & 31)) & 1) values[id] = bias?.[id] ?? 0;
  }
  return values;
}

/** Samples the next id. The scores are read by JavaScript only under a repetition penalty; otherwise only the id is read. */
function draw(sampler: Sampler, scores: Tensor, history: readonly number[]): number {
  const drawn = sampler.draw();
  if (drawn === undefined) return sampler.sample(floats(scores), history);
  const ids = sample(scores, drawn);
  const [id = -1] = ids.dataSync<'int32'>();
  ids.dispose();
  // The op found no valid id; the JavaScript sampler throws the error that says why.
  return id >= 0 ? id : sampler.sample(floats(scores), history);
}
