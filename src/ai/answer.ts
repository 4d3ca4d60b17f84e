// Events of the engine as results of the AI SDK: whole, and as a stream.

import type {
  LanguageModelV4FinishReason,
  LanguageModelV4GenerateResult,
  LanguageModelV4StreamPart,
  LanguageModelV4Usage,
  SharedV4ProviderMetadata,
  SharedV4Warning,
} from '@ai-sdk/provider' with { 'resolution-mode': 'import' };
import type { EngineEvent } from '../engine/types';
import { SparseVilaError } from '../errors';
import type { TokenLogprob } from '../text/logprobs';

type End = Extract<EngineEvent, { type: 'end' }>;

/** What is reported at the end of an answer. */
interface Summary {
  readonly finishReason: LanguageModelV4FinishReason;
  readonly usage: LanguageModelV4Usage;
  /** Visual tokens and times, and log-probabilities if they were asked for. */
  readonly providerMetadata: SharedV4ProviderMetadata;
}

function summaryOf({ finish, usage, ms }: End, logprobs: readonly TokenLogprob[]): Summary {
  const { prompt, cached, generated, ...visual } = usage;
  const own = { ...visual, ms: { ...ms }, ...(logprobs.length > 0 && { logprobs }) };
  return {
    finishReason: { unified: finish === 'length' ? 'length' : 'stop', raw: finish },
    usage: {
      inputTokens: { total: prompt, noCache: prompt - cached, cacheRead: cached, cacheWrite: undefined },
      outputTokens: { total: generated, text: generated, reasoning: 0 },
      raw: { ...usage },
    },
    providerMetadata: { sparsevila: own } as unknown as SharedV4ProviderMetadata,
  };
}

/** Reads an answer to its end. */
export async function generated(
  events: AsyncIterable<EngineEvent>,
  modelId: string,
  warnings: SharedV4Warning[],
): Promise<LanguageModelV4GenerateResult> {
  const logprobs: TokenLogprob[] = [];
  let text = '';
  for await (const event of events) {
    if (event.type === 'text') {
      text += event.text;
      for (const token of event.logprobs ?? []) logprobs.push(token);
    }
    if (event.type === 'end')
      return {
        content: [{ type: 'text', text }],
        ...summaryOf(event, logprobs),
        ...{ warnings, response: { modelId, timestamp: new Date() } },
      };
  }
  throw new SparseVilaError('ERR_INTERNAL', 'The engine ended an answer without an end event.');
}

/** An answer as a stream. A reader that cancels it ends the answer. */
export function streamed(
  events: AsyncIterableIterator<EngineEvent>,
  modelId: string,
  warnings: SharedV4Warning[],
): ReadableStream<LanguageModelV4StreamPart> {
  const id = '0';
  const logprobs: TokenLogprob[] = [];
  const start: LanguageModelV4StreamPart[] = [
    { type: 'stream-start', warnings },
    { type: 'response-metadata', modelId, timestamp: new Date() },
    { type: 'text-start', id },
  ];
  const partsOf = (event: EngineEvent): LanguageModelV4StreamPart[] => {
    if (event.type === 'begin') return [];
    if (event.type === 'end')
      return [
        { type: 'text-end', id },
        { type: 'finish', ...summaryOf(event, logprobs) },
      ];
    for (const token of event.logprobs ?? []) logprobs.push(token);
    return event.text === '' ? [] : [{ type: 'text-delta', id, delta: event.text }];
  };
  return new ReadableStream<LanguageModelV4StreamPart>({
    start: (controller) => {
      for (const part of start) controller.enqueue(part);
    },
    async pull(controller) {
      try {
        const { done, value } = await events.next();
        if (done === true) controller.close();
        else {
          const parts = partsOf(value);
          for (const part of parts) controller.enqueue(part);
          // A pull that enqueues nothing is not repeated by itself.
          if (parts.length === 0) await this.pull?.(controller);
        }
      } catch (error) {
        controller.enqueue({ type: 'error', error });
        controller.close();
      }
    },
    cancel: async () => {
      await events.return?.();
    },
  });
}
