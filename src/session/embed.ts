// The hidden state of a text, a picture or several: of the last row of a prompt, as embedding models that are made of decoders take it.
// Source: E5-V (arXiv 2407.12580) and VLM2Vec (arXiv 2410.05160): last token, unit length.

import type { VisionLanguageModel } from '../models/model';
import { floats } from '../ops/run';
import { checkOptions, OBJECT, SIGNAL } from '../options';
import type { SparsityMethod } from '../sparsity/method';
import type { Part } from './options';
import { createSession } from './session';

export interface EmbedOptions {
  /** Default: dense. */
  readonly method?: SparsityMethod;
  readonly signal?: AbortSignal;
}

/**
 * The vector of a content, f32 [hidden size], of length 1: the final norm's output for the last row of the chat prompt that holds it. Vectors of
 * one model can be compared by their dot product. Add an instruction as text, such as "Describe it in one word.": a model that was not trained
 * to embed needs one.
 * @throws SparseVilaError as `Session.ask`; `signal.reason`
 */
export async function embed(
  model: VisionLanguageModel,
  content: string | readonly Part[],
  options?: EmbedOptions,
): Promise<Float32Array> {
  const { method, signal } = checkOptions<EmbedOptions>('embed', options, { method: OBJECT, signal: SIGNAL });
  let last = new Float32Array();
  const { decoder } = model;
  const watched: VisionLanguageModel = {
    ...model,
    decoder: {
      ...decoder,
      scores: (x, rows) => {
        const normalized = decoder.norm(x);
        last = floats(normalized).slice(-decoder.config.hiddenSize) as typeof last;
        normalized.dispose();
        return decoder.scores(x, rows);
      },
    },
  };
  using chat = createSession(watched, { ...(method && { method }) });
  await chat.ask(content, { maxTokens: 1, temperature: 0, ...(signal && { signal }) });
  const length = Math.sqrt(last.reduce((sum, value) => sum + value * value, 0));
  return last.map((value) => value / length);
}
