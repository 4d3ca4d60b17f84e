// GET /v1/models, /health and /metrics; POST /tokenize: the tokens of a request before and after pruning, without running the tower.

import type { FastifyInstance } from 'fastify';
import { checkModel } from './chat_request';
import { mediaSource } from './content';
import { fieldsOf, missing } from './fields';
import { messagesOf } from './messages';
import { RequestError } from './request_error';
import { requestLife } from './request_life';
import { IGNORED, sparsityOf } from './request_options';
import type { ServerContext } from './server';

const FIELDS = { messages: 'messages', format: 'response_format' };

export function plainRoutes(app: FastifyInstance, context: ServerContext): void {
  const { engine, metrics, options } = context;
  const model = {
    ...{ id: context.model.name, object: 'model', created: Math.floor(Date.now() / 1000), owned_by: 'sparsevila' },
    // As vLLM names it.
    max_model_len: engine.model.contextLength,
    sparsevila: { family: engine.model.family, videos: engine.model.videos, sparsity: options.sparsity },
  };
  app.get('/v1/models', async () => ({ object: 'list', data: [model] }));
  app.get('/v1/models/*', async (request) => {
    const { '*': id } = request.params as { '*': string };
    if (id === model.id) return model;
    throw new RequestError(404, `The model '${id.slice(0, 200)}' does not exist.`, {
      code: 'model_not_found',
      param: 'model',
    });
  });
  app.get('/health', async (_request, reply) => {
    const status = engine.ended.aborted ? 'failed' : context.isStopping() ? 'stopping' : 'ok';
    if (status !== 'ok') reply.code(503);
    const { running, waiting } = engine.stats();
    return { status, model: model.id, running, waiting };
  });
  app.get('/metrics', async (_request, reply) => {
    reply.header('content-type', metrics.contentType);
    return await metrics.text();
  });
  app.post('/tokenize', async (request, reply) => {
    const life = requestLife(reply.raw, { answerMs: options.limits.answerMs, fields: FIELDS, log: context.logError });
    try {
      const body = fieldsOf(request.body);
      body.only(['model', 'messages', 'prompt', 'sparsity'], IGNORED);
      if (body.value('model') !== undefined) checkModel(body, context.model.name);
      const prompt = body.text('prompt');
      const list = prompt === undefined ? body.list('messages') : [{ role: 'user', content: prompt }];
      if (list === undefined) throw missing('messages');
      const sparsity = sparsityOf(body, options.sparsity);
      const messages = await messagesOf(list, mediaSource(options, life));
      const { text, visualSeen, visualKept } = await engine.count({ messages, sparsity }, { signal: life.signal });
      return {
        count: text + visualKept,
        max_model_len: engine.model.contextLength,
        ...{ text_tokens: text, visual_tokens: { seen: visualSeen, kept: visualKept } },
      };
    } catch (error) {
      throw life.refusalOf(error);
    } finally {
      life.end();
    }
  });
}
