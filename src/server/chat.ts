// POST /v1/chat/completions.

import { randomUUID } from 'node:crypto';
import type { FastifyInstance, FastifyReply } from 'fastify';
import {
  type Answering,
  answer,
  chatLogprob,
  chatUsage,
  type EndEvent,
  finishReason,
  measurements,
  usageOf,
} from './answers';
import { type ChatRequest, chatRequest } from './chat_request';
import { mediaSource } from './content';
import { eventStream } from './event_stream';
import { type RequestLife, requestLife } from './request_life';
import type { ServerContext } from './server';

const FIELDS = { messages: 'messages', format: 'response_format' };

export function chatRoutes(app: FastifyInstance, context: ServerContext): void {
  app.post('/v1/chat/completions', async (request, reply) => {
    const { options } = context;
    const life = requestLife(reply.raw, { answerMs: options.limits.answerMs, fields: FIELDS, log: context.logError });
    try {
      const chat = await chatRequest(request.body, context.model, mediaSource(options, life));
      if (chat.stream) return await streamed(context, chat, reply, life);
      return await whole(context, chat, life);
    } catch (error) {
      throw life.refusalOf(error);
    } finally {
      life.end();
    }
  });
}

/** All answers of a request at the same time; if one fails, the others are ended. */
async function together<T>(runs: readonly T[], life: RequestLife, work: (run: T, index: number) => Promise<EndEvent>) {
  try {
    return await Promise.all(runs.map(work));
  } catch (error) {
    life.abort(error);
    throw error;
  }
}

async function whole(context: ServerContext, { runs, hasLogprobs }: ChatRequest, life: RequestLife) {
  const answering: Answering = { engine: context.engine, metrics: context.metrics, signal: life.signal };
  const choices: object[] = [];
  const ends = await together(runs, life, async (run, index) => {
    const { text, logprobs, end } = await answer(answering, run);
    choices[index] = {
      index,
      message: { role: 'assistant', content: text, refusal: null, annotations: [] },
      logprobs: hasLogprobs ? { content: logprobs.map(chatLogprob), refusal: null } : null,
      finish_reason: finishReason(end),
      sparsevila: measurements(end),
    };
    return end;
  });
  return { ...head('chat.completion', context.model.name), choices, usage: chatUsage(usageOf(ends)) };
}

async function streamed(context: ServerContext, chat: ChatRequest, reply: FastifyReply, life: RequestLife) {
  const { limits } = context.options;
  const stream = eventStream(reply, limits.silenceMs);
  const own = head('chat.completion.chunk', context.model.name);
  const usage = chat.includeUsage ? { usage: null } : {};
  const send = (index: number, delta: object, more: object = {}): Promise<void> =>
    stream.send({
      ...{ ...own, choices: [{ index, delta, logprobs: null, finish_reason: null, ...more }], ...usage },
    });
  const answering: Answering = { engine: context.engine, metrics: context.metrics, signal: life.signal };
  try {
    const ends = await together(chat.runs, life, async (run, index) => {
      let begun = false;
      const begin = async (): Promise<void> => {
        if (!begun) await send(index, { role: 'assistant', content: '', refusal: null });
        begun = true;
      };
      const { end } = await answer(answering, run, async (text, logprobs) => {
        await begin();
        const content = chat.hasLogprobs ? { logprobs: { content: logprobs.map(chatLogprob), refusal: null } } : {};
        await send(index, { content: text }, content);
      });
      await begin();
      await send(index, {}, { finish_reason: finishReason(end), sparsevila: measurements(end) });
      return end;
    });
    if (chat.includeUsage) await stream.send({ ...own, choices: [], usage: chatUsage(usageOf(ends)) });
    stream.end('[DONE]');
  } catch (error) {
    if (life.isLeft()) stream.end();
    else {
      const refusal = life.refusalOf(error);
      if (!stream.fail(refusal)) throw refusal;
    }
  }
  return reply;
}

function head(object: string, model: string) {
  const id = `chatcmpl-${randomUUID().replaceAll('-', '')}`;
  return {
    id,
    object,
    created: Math.floor(Date.now() / 1000),
    model,
    service_tier: 'default',
    system_fingerprint: null,
  };
}
