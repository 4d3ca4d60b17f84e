// The decode loop of one turn: sample, stream text at character boundaries, run the token over the turn's view.

import type { VisionLanguageModel } from '../models/model';
import type { Sampler } from '../text/sampling';
import { stopMatcher } from '../text/stop';
import { textStream } from '../text/tokenizer';
import { type Conversation, lengthOf, lengthsOf } from './conversation';
import type { TurnView } from './view';

export type FinishReason = 'stop' | 'length' | 'stopString';

export interface Generated {
  readonly finish: FinishReason;
  /** Tokens of the answer, a stop token not counted. */
  readonly tokens: number;
  /** Decoder steps and the milliseconds they took. */
  readonly steps: number;
  readonly ms: number;
}

export interface GenerateOptions {
  readonly maxTokens: number;
  readonly stop: readonly string[];
  readonly breathe: () => Promise<void>;
}

/** Yields the answer's text. Leaves the conversation `answered`, even when its consumer stops early. */
export async function* generate(
  model: VisionLanguageModel,
  c: Conversation,
  view: TurnView,
  sampler: Sampler,
  first: Float32Array,
  { maxTokens, stop, breathe }: GenerateOptions,
): AsyncGenerator<string, Generated> {
  const stream = textStream(model.tokenizer);
  const matcher = stopMatcher(stop);
  let logits = first;
  let tokens = 0;
  let steps = 0;
  let ms = 0;
  let pending: number[] = [];
  let finish: FinishReason = 'length';
  try {
    while (tokens < maxTokens && Math.max(lengthOf(c), c.nextPosition) < c.capacity) {
      const begin = performance.now();
      const id = sampler.sample(logits, c.ids);
      if (model.stopIds.includes(id)) {
        finish = 'stop';
        break;
      }
      tokens++;
      c.ids.push(id);
      pending = [id];
      const { emit, stopped } = matcher.push(stream.push(id));
      if (emit !== '') yield emit;
      if (stopped) {
        finish = 'stopString';
        break;
      }
      if (tokens === maxTokens) break;
      logits = await step(model, c, view, id, breathe);
      pending = [];
      steps++;
      ms += performance.now() - begin;
    }
    const { emit } = finish === 'stopString' ? { emit: '' } : matcher.push(stream.flush());
    const rest = finish === 'stopString' ? '' : emit + matcher.flush();
    if (rest !== '') yield rest;
    return { finish, tokens, steps, ms };
  } finally {
    c.phase = { at: 'answered', pending };
  }
}

/** One token through the decoder; returns the next logits. */
async function step(
  model: VisionLanguageModel,
  c: Conversation,
  view: TurnView,
  id: number,
  breathe: () => Promise<void>,
): Promise<Float32Array> {
  const x = model.decoder.embed([id]);
  try {
    const y = await model.decoder.forward(x, [c.nextPosition], c.cache, {
      length: lengthsOf(c),
      views: view.layers,
      breathe,
    });
    for (const layer of c.layers) layer.length++;
    c.nextPosition++;
    const logits = model.decoder.logits(y);
    y.dispose();
    return logits;
  } finally {
    x.dispose();
  }
}
