// POST /v1/responses, whole or as events in OpenAI's order; GET and DELETE of a stored response.

import { randomUUID } from 'node:crypto';
import type { FastifyInstance, FastifyReply } from 'fastify';
import type { TokenLogprob } from '../text/logprobs';
import { type Answering, answer, chatLogprob, type EndEvent, finishReason, measurements, usageOf } from './answers';
import { mediaSource } from './content';
import { type EventStream, eventStream } from './event_stream';
import type { RequestError } from './request_error';
import { type RequestLife, requestLife } from './request_life';
import { type ResponseStore, responseStore } from './response_store';
import { type ResponseRequest, responseRequest } from './responses_request';
import type { ServerContext } from './server';

const FIELDS = { messages: 'input', format: 'text.format' };

export function responseRoutes(app: FastifyInstance, context: ServerContext): void {
  const { options, model } = context;
  const store = responseStore(options.limits);
  app.post('/v1/responses', async (request, reply) => {
    const life = requestLife(reply.raw, { answerMs: options.limits.answerMs, fields: FIELDS, log: context.logError });
    try {
      const asked = await responseRequest(request.body, model, mediaSource(options, life), store);
      if (asked.stream) return await streamed(context, asked, store, reply, life);
      const own = responseParts(asked, model.name);
      const { text, logprobs, end } = await answer(answeringOf(context, life), asked.run);
      return remember(store, asked, own.finished(text, logprobs, end), text);
    } catch (error) {
      throw life.refusalOf(error);
    } finally {
      life.end();
    }
  });
  const idOf = (params: unknown): string => (params as { id: string }).id;
  app.get('/v1/responses/:id', async ({ params }) => store.response(idOf(params)));
  app.delete('/v1/responses/:id', async ({ params }) => {
    const id = idOf(params);
    store.response(id);
    store.remove(id);
    return { id, object: 'response', deleted: true };
  });
}

const answeringOf = ({ engine, metrics }: ServerContext, { signal }: RequestLife): Answering => ({
  engine,
  metrics,
  signal,
});

function remember<T extends { readonly id: string }>(
  store: ResponseStore,
  asked: ResponseRequest,
  response: T,
  text: string,
): T {
  if (asked.store) store.keep(response.id, response, asked.dialogue, text);
  return response;
}

/** The objects of one response in its states. */
function responseParts({ shown, store, hasLogprobs }: ResponseRequest, model: string) {
  const id = `resp_${randomUUID().replaceAll('-', '')}`;
  const itemId = `msg_${randomUUID().replaceAll('-', '')}`;
  const created_at = Math.floor(Date.now() / 1000);
  const response = (status: string, more: object) => ({
    ...{ id, object: 'response', created_at, status, background: false, error: null, incomplete_details: null },
    ...{
      model,
      output: [] as object[],
      parallel_tool_calls: true,
      tool_choice: 'auto',
      tools: [],
      truncation: 'disabled',
    },
    ...{ reasoning: { effort: null, summary: null }, store, user: null, usage: null, ...shown, ...more },
  });
  const part = (text: string, logprobs: readonly TokenLogprob[]) => ({
    ...{ type: 'output_text', text, annotations: [], logprobs: hasLogprobs ? logprobs.map(chatLogprob) : [] },
  });
  const item = (status: string, content: readonly object[]) => ({
    ...{ id: itemId, type: 'message', status, role: 'assistant', content },
  });
  return {
    ...{ itemId, part, item },
    begun: () => response('in_progress', {}),
    failed: ({ code, message }: RequestError) =>
      response('failed', { error: { code: code ?? 'server_error', message } }),
    finished: (text: string, logprobs: readonly TokenLogprob[], end: EndEvent) => {
      const isCut = finishReason(end) === 'length';
      const status = isCut ? 'incomplete' : 'completed';
      return response(status, {
        incomplete_details: isCut ? { reason: 'max_output_tokens' } : null,
        ...(isCut ? {} : { completed_at: Math.floor(Date.now() / 1000) }),
        output: [item(status, [part(text, logprobs)])],
        usage: responseUsage(end),
        sparsevila: measurements(end),
      });
    },
  };
}

function responseUsage(end: EndEvent) {
  const { prompt, cached, generated } = usageOf([end]);
  return {
    ...{ input_tokens: prompt, input_tokens_details: { cached_tokens: cached }, output_tokens: generated },
    ...{ output_tokens_details: { reasoning_tokens: 0 }, total_tokens: prompt + generated },
  };
}

async function streamed(
  context: ServerContext,
  asked: ResponseRequest,
  store: ResponseStore,
  reply: FastifyReply,
  life: RequestLife,
): Promise<FastifyReply> {
  const stream = eventStream(reply, context.options.limits.silenceMs);
  const own = responseParts(asked, context.model.name);
  const { send, hasBegun } = numbered(stream);
  const place = { item_id: own.itemId, output_index: 0, content_index: 0 };
  const begin = async (): Promise<void> => {
    if (hasBegun()) return;
    await send('response.created', { response: own.begun() });
    await send('response.in_progress', { response: own.begun() });
    await send('response.output_item.added', { output_index: 0, item: own.item('in_progress', []) });
    await send('response.content_part.added', { ...place, part: own.part('', []) });
  };
  try {
    const { text, logprobs, end } = await answer(answeringOf(context, life), asked.run, async (delta, tokens) => {
      await begin();
      const shown = asked.hasLogprobs ? tokens.map(chatLogprob) : [];
      await send('response.output_text.delta', { ...place, delta, logprobs: shown });
    });
    await begin();
    const response = remember(store, asked, own.finished(text, logprobs, end), text);
    const part = own.part(text, logprobs);
    await send('response.output_text.done', { ...place, text, logprobs: part.logprobs });
    await send('response.content_part.done', { ...place, part });
    await send('response.output_item.done', { output_index: 0, item: response.output[0] ?? {} });
    await send(`response.${response.status}`, { response });
    stream.end();
  } catch (error) {
    const refusal = life.refusalOf(error);
    if (life.isLeft()) stream.end();
    else if (hasBegun()) {
      await send('response.failed', { response: own.failed(refusal) });
      stream.end();
    } else if (!stream.fail(refusal, 'error')) throw refusal;
  }
  return reply;
}

/** Sends events with their type and a number. */
function numbered(stream: EventStream) {
  let next = 0;
  return {
    hasBegun: () => next > 0,
    send: (type: string, event: object): Promise<void> =>
      stream.send({ type, sequence_number: next++, ...event }, type),
  };
}
