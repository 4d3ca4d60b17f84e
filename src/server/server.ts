// An HTTP server with OpenAI's API for an engine: chat completions, responses, models, health and metrics.

import { randomUUID } from 'node:crypto';
import { type AddressInfo, createServer } from 'node:net';
import { basename, resolve } from 'node:path';
import fastify, { type FastifyInstance } from 'fastify';
import { ENGINE } from '../engine/engine';
import type { Engine } from '../engine/types';
import { messageOf, SparseVilaError } from '../errors';
import { checkValue } from '../options';
import { chatRoutes } from './chat';
import type { ServedModel } from './chat_request';
import { guard, type Held } from './guard';
import { type ServerMetrics, serverMetrics } from './metrics';
import { type CheckedServerOptions, checkServerOptions, LONGEST_MS, type ServerOptions } from './options';
import { pageRoutes } from './page';
import { RequestError, requestErrorOf } from './request_error';
import { responseRoutes } from './responses';
import { plainRoutes } from './routes';

export type { ServerLimits, ServerOptions } from './options';

/** A server that listens. */
export interface Server {
  /** Where it listens, as `http://127.0.0.1:8000`. */
  readonly url: string;
  /** The name of the model for clients. */
  readonly model: string;
  /** The number of requests that it holds, and the bytes of their bodies and of those that arrive. */
  readonly held: () => number;
  readonly heldBytes: () => number;
  /** Stops listening and waits until running answers are finished; with `now`, ends them. The engine stays open. */
  close(options?: { readonly now?: boolean }): Promise<void>;
}

/** What the routes share. */
export interface ServerContext {
  readonly engine: Engine;
  readonly options: CheckedServerOptions;
  readonly model: ServedModel;
  readonly metrics: ServerMetrics;
  readonly isStopping: () => boolean;
  readonly logError: (error: unknown) => void;
}

/** Whether an address can be listened at now: for programs that have much to do before they serve. @throws SparseVilaError `ERR_LISTEN` */
export async function requireAddress(options?: ServerOptions): Promise<void> {
  const { host, port } = checkServerOptions(options);
  const probe = createServer();
  await new Promise<void>((resolved, failed) => {
    probe.once('error', (cause) => failed(cannotListen(host, port, cause)));
    probe.listen({ host, port }, () => probe.close(() => resolved()));
  });
}

function cannotListen(host: string, port: number, cause: unknown): SparseVilaError {
  const message = `Expected to listen at ${host}:${port}, but ${messageOf(cause)}. Choose another --port or --host.`;
  return new SparseVilaError('ERR_LISTEN', message, { cause });
}

/**
 * Serves an engine until `close`.
 * @throws SparseVilaError `ERR_OPTION_INVALID`; `ERR_LISTEN` if the address cannot be listened at
 */
export async function serve(engine: Engine, options?: ServerOptions): Promise<Server> {
  checkValue('serve', 'engine', engine, ENGINE);
  const checked = checkServerOptions(options);
  const app = application(checked);
  let isStopping = false;
  let held: Held = { requests: () => 0, bytes: () => 0 };
  const metrics = serverMetrics(engine, () => held.requests());
  const model: ServedModel = { name: checked.name ?? standardName(engine), maxNewTokens: engine.model.maxNewTokens };
  const logError = (error: unknown): void => checked.log(`sparsevila: ${stackOf(error)}`);
  const context = { engine, options: checked, model, metrics, logError, isStopping: () => isStopping };
  // In this order: what the guard refuses has a request id and is counted.
  observe(app, context);
  held = guard(app, checked, metrics.answerSeconds);
  answerErrors(app, context);
  plainRoutes(app, context);
  chatRoutes(app, context);
  responseRoutes(app, context);
  if (checked.page) pageRoutes(app);
  const { host, port } = checked;
  try {
    await app.listen({ host, port });
  } catch (cause) {
    await app.close();
    throw cannotListen(host, port, cause);
  }
  const address = app.server.address() as AddressInfo;
  return {
    url: `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`,
    model: model.name,
    held: held.requests,
    heldBytes: held.bytes,
    async close({ now = false } = {}) {
      isStopping = true;
      const closed = app.close();
      if (now) app.server.closeAllConnections();
      await closed;
    },
  };
}

/** The name of a model of the Hub, or of its folder without the path, which is nobody's business. */
function standardName({ model: { name, path } }: Engine): string {
  return resolve(name) === resolve(path) ? basename(path) : name;
}

function application({ limits }: CheckedServerOptions): FastifyInstance {
  const app = fastify({
    bodyLimit: limits.bodyBytes,
    requestTimeout: limits.receiveMs,
    // A check every second finds slow clients in time.
    http: { connectionsCheckingInterval: Math.min(1000, limits.receiveMs), headersTimeout: limits.receiveMs },
    keepAliveTimeout: 5000,
    genReqId: () => `req_${randomUUID().replaceAll('-', '')}`,
    routerOptions: { maxParamLength: 1000 },
    // A request that comes while the server stops is answered 503, which clients repeat.
    return503OnClosing: true,
    forceCloseConnections: 'idle',
    logger: false,
    clientErrorHandler(error, socket) {
      if (!socket.writable) return void socket.destroy();
      const isLate = error.code === 'ERR_HTTP_REQUEST_TIMEOUT';
      const { status, body } = new RequestError(
        isLate ? 408 : 400,
        isLate ? 'The request came too slowly.' : 'The request is not valid HTTP.',
      );
      const text = JSON.stringify(body);
      const head = `HTTP/1.1 ${status} ${isLate ? 'Request Timeout' : 'Bad Request'}\r\ncontent-type: application/json\r\nconnection: close`;
      socket.end(`${head}\r\ncontent-length: ${text.length}\r\nx-should-retry: false\r\n\r\n${text}`);
    },
  });
  // JSON alone: a web page of another origin can send text without asking for permission.
  app.removeContentTypeParser('text/plain');
  return app;
}

function answerErrors(app: FastifyInstance, context: ServerContext): void {
  app.setErrorHandler((error, _request, reply) => {
    const { status, body, headers } = requestErrorOf(error, context.logError);
    reply.code(status).headers(headers).send(body);
  });
  app.setNotFoundHandler((request, reply) => {
    // The guard has added the headers for web pages of other origins.
    if (request.method === 'OPTIONS') return reply.code(204).send();
    const message = `Unknown request: ${request.method} ${request.url.slice(0, 200)}.`;
    throw new RequestError(404, message, { code: 'unknown_url' });
  });
}

/** Headers of every response, metrics, and the end of connections: while the server stops, and of clients that do not read. */
function observe(app: FastifyInstance, { metrics, isStopping, options: { limits } }: ServerContext): void {
  // To receive a request, to answer it, and to read the answer.
  const longestMs = Math.min(LONGEST_MS, 2 * limits.receiveMs + limits.answerMs);
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id);
    if (isStopping()) reply.header('connection', 'close');
    const route = request.routeOptions.url ?? 'none';
    const begin = performance.now();
    const timer = setTimeout(() => reply.raw.destroy(), longestMs).unref();
    reply.raw.once('close', () => {
      clearTimeout(timer);
      const { statusCode, writableFinished } = reply.raw;
      // 499, as nginx counts clients that leave.
      metrics.request(route, writableFinished ? statusCode : 499, (performance.now() - begin) / 1000);
      if (isStopping()) setImmediate(() => app.server.closeIdleConnections());
    });
  });
}

const stackOf = (error: unknown): string =>
  error instanceof Error ? (error.stack ?? messageOf(error)) : messageOf(error);
