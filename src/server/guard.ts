// What every request passes before its body is read: the host name it is addressed to, cross-origin rules, the API key, and room for its body.

import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import { type Readable, Transform } from 'node:stream';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { clientOf, clientRequests } from './clients';
import type { CheckedServerOptions } from './options';
import { PAGE_PATHS } from './page';
import { RequestError, tooMany, tooManyOfClient } from './request_error';

/** Paths that need no key: the page, which asks for one, and the health check. */
const OPEN = [...PAGE_PATHS, '/health', '/favicon.ico'];
const MOST_WAIT_SECONDS = 30;

/** Requests that the server holds: from the last byte of their body to the last one of their answer. */
export interface Held {
  readonly requests: () => number;
  readonly bytes: () => number;
}

/** Installs the checks. `answerSeconds` is the time after which a refused client may find room. */
export function guard(app: FastifyInstance, options: CheckedServerOptions, answerSeconds: () => number): Held {
  const { limits } = options;
  const held = { requests: 0, bytes: 0 };
  const mostBytes = Math.max(limits.heldBytes, limits.bodyBytes);
  const hasRoom = (bytes: number): boolean => held.requests < limits.requests && held.bytes + bytes <= mostBytes;
  const waitSeconds = (): number => Math.min(MOST_WAIT_SECONDS, Math.max(1, Math.ceil(answerSeconds())));
  const full = (): RequestError => tooMany(waitSeconds());
  const clients = clientRequests(limits.clientRequests);
  app.addHook('onRequest', async (request, reply) => {
    checkHost(request, options);
    crossOrigin(request, reply, options);
    const key = checkKey(request, options);
    if (request.method === 'POST') {
      const leave = clients.enter(key === undefined ? clientOf(request.ip) : `key ${key}`);
      if (leave === undefined) throw tooManyOfClient(limits.clientRequests, waitSeconds());
      reply.raw.once('close', leave);
    }
    // Refused before the body is sent, if there is no room for it now.
    if (request.method === 'POST' && !hasRoom(announcedBytes(request, limits.bodyBytes))) throw full();
  });
  // Bytes count when they have arrived and a request when its body has, so that slow clients hold no room from others.
  app.addHook('preParsing', async (request, reply, body) => {
    if (request.method !== 'POST') return body;
    let bytes = 0;
    reply.raw.once('close', () => {
      held.bytes -= bytes;
    });
    return counted(body as Readable, (arrived) => {
      bytes += arrived;
      held.bytes += arrived;
      if (held.bytes <= mostBytes) return undefined;
      // The rest of the body is not read.
      reply.header('connection', 'close');
      return full();
    });
  });
  app.addHook('preValidation', async (request, reply) => {
    if (request.method !== 'POST') return;
    if (!hasRoom(0)) throw full();
    held.requests++;
    reply.raw.once('close', () => {
      held.requests--;
    });
  });
  return { requests: () => held.requests, bytes: () => held.bytes };
}

/** A body whose bytes are reported to `arrive`, which may refuse them. */
function counted(body: Readable, arrive: (bytes: number) => Error | undefined): Readable {
  const through = new Transform({
    transform: (piece: Buffer, _encoding, done) => {
      const refusal = arrive(piece.length);
      if (refusal === undefined) done(null, piece);
      else done(refusal);
    },
  });
  // Not a pipeline, which would close the connection before the refusal is sent.
  body.once('error', (error) => through.destroy(error));
  return body.pipe(through);
}

/** The size that a body announces; 0 if it announces none. @throws RequestError 413 */
function announcedBytes({ headers }: FastifyRequest, most: number): number {
  const bytes = Number(headers['content-length'] ?? 0);
  if (bytes <= most) return bytes;
  throw new RequestError(413, `Expected a body of at most ${most} bytes, received ${bytes}.`, {
    code: 'request_too_large',
  });
}

const isLoopback = (host: string): boolean => /^(localhost|127\.\d+\.\d+\.\d+|::1)$/i.test(host);

/**
 * A server for this machine alone answers only under names of this machine: a web page whose own name leads to 127.0.0.1 (DNS rebinding) cannot
 * call it.
 */
function checkHost(request: FastifyRequest, { host, hostNames }: CheckedServerOptions): void {
  if (!isLoopback(host)) return;
  const name = hostNameOf(request.headers.host ?? '');
  if (name === undefined || isLoopback(name) || hostNames.includes(name)) return;
  const message = `This server is not addressed as ${JSON.stringify(name.slice(0, 100))}. Allow the name with --host-name.`;
  throw new RequestError(403, message, { code: 'host_not_allowed' });
}

/** The host name in a Host header, without port and brackets; undefined if there is none. */
function hostNameOf(header: string): string | undefined {
  if (header === '') return undefined;
  const url = URL.canParse(`http://${header}`) ? new URL(`http://${header}`) : undefined;
  const name = url?.hostname.replace(/^\[|\]$/g, '') ?? header;
  return isIP(name) === 6 ? name : name.toLowerCase();
}

/** Answers of a browser's question whether a page of another origin may call: only for the origins of the options. */
function crossOrigin(request: FastifyRequest, reply: FastifyReply, { origins }: CheckedServerOptions): void {
  const { origin } = request.headers;
  if (origins.length === 0 || origin === undefined) return;
  if (!origins.includes('*') && !origins.includes(origin)) return;
  reply.header('access-control-allow-origin', origins.includes('*') ? '*' : origin);
  reply.header('vary', 'origin');
  reply.header('access-control-expose-headers', 'x-request-id');
  if (request.method !== 'OPTIONS') return;
  reply.header('access-control-allow-methods', 'GET, POST, DELETE');
  reply.header('access-control-allow-headers', request.headers['access-control-request-headers'] ?? '*');
  reply.header('access-control-max-age', '600');
}

/**
 * The number of the key that a request has; undefined if it needs none. Compares digests in constant time, so that neither the length nor a prefix of a
 * key can be measured.
 * @throws RequestError 401
 */
function checkKey(request: FastifyRequest, { apiKeys }: CheckedServerOptions): number | undefined {
  const [path = ''] = request.url.split('?');
  if (apiKeys.length === 0 || request.method === 'OPTIONS' || OPEN.includes(path)) return undefined;
  const [, given = ''] = /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? '') ?? [];
  const found = apiKeys.map((key) => timingSafeEqual(digest(key), digest(given)));
  if (found.includes(true)) return found.indexOf(true);
  const message =
    given === ''
      ? "You didn't provide an API key: send the header Authorization: Bearer KEY."
      : 'Incorrect API key provided.';
  throw new RequestError(401, message, { code: 'invalid_api_key' });
}

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
