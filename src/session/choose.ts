// Chooses the next token of an answer from the decoder's scores: what is added to them, the draw, and the log-probabilities that are reported.

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
}

export interface Chooser {
  /** Samples the next id from scores, f32 [1, v]. `history`: the ids of the conversation, for the repetition penalty. */
  choose(scores: Tensor, history: readonly number[]): Choice;
  dispose(): void;
}

export function chooser(
  { tokenizer, decoder }: Pick<VisionLanguageModel, 'tokenizer' | 'decoder'>,
  sampler: Sampler,
  { logprobs, logitBias = {} }: ChoiceOptions,
): Chooser {
  const bias = biasOf(logitBias, decoder.config.vocabSize);
  return {
    choose: (scores, history) => {
      const adjusted = bias === undefined ? scores : start().tf.add(scores, bias);
      try {
        const id = draw(sampler, adjusted, history);
        const logprob = logprobs === undefined ? undefined : logprobsOf(floats(scores), id, logprobs, tokenizer.bytes);
        return { id, logprob };
      } finally {
        if (adjusted !== scores) adjusted.dispose();
      }
    },
    dispose: () => bias?.dispose(),
  };
}

/** What is added to all scores, f32 [1, v]; undefined if it is nothing. */
function biasOf(logitBias: Readonly<Record<number, number>>, size: number): Tensor | undefined {
  const entries = Object.entries(logitBias);
  if (entries.length === 0) return undefined;
  const values = new Float32Array(size);
  for (const [id, value] of entries) values[Number(id)] = value;
  return float32(values, [1, size]);
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
