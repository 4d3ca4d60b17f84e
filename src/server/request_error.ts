// Errors of HTTP requests: the status, the body in OpenAI's form, and whether a client should repeat the request. Errors of the package become
// 400 if the request caused them, 503 if a later request may succeed, and 500 otherwise.

import { type ErrorCode, SparseVilaError } from '../errors';

interface Details {
  readonly type?: string;
  readonly code?: string | null;
  /** The path of the field at fault, as `messages[0].content`. */
  readonly param?: string | null;
  /** Seconds after which a client may try again; absent: it should not. */
  readonly retryAfter?: number;
}

/** A request that is answered with an error. */
export class RequestError extends Error {
  readonly status: number;
  readonly type: string;
  readonly code: string | null;
  readonly param: string | null;
  readonly retryAfter: number | undefined;

  constructor(status: number, message: string, { type, code = null, param = null, retryAfter }: Details = {}) {
    super(message);
    this.name = 'RequestError';
    this.status = status;
    this.type = type ?? (status >= 500 ? 'server_error' : 'invalid_request_error');
    this.code = code;
    this.param = param;
    this.retryAfter = retryAfter;
  }

  /** The body of the response. */
  get body(): { readonly error: object } {
    const { message, type, param, code } = this;
    return { error: { message, type, param, code } };
  }

  /** The headers by which official clients decide whether to repeat the request. */
  get headers(): Record<string, string> {
    if (this.retryAfter === undefined) return { 'x-should-retry': 'false' };
    return { 'x-should-retry': 'true', 'retry-after': String(this.retryAfter) };
  }
}

/** A 400 for one field. */
export function invalidField(param: string, message: string, code = 'invalid_value'): RequestError {
  return new RequestError(400, message, { param, code });
}

/** A 400 for a field that OpenAI's API has and this server does not support. */
export function unsupportedField(param: string, what: string): RequestError {
  return invalidField(param, `Unsupported: ${what}. Omit '${param}'.`, 'unsupported_parameter');
}

/** Codes of errors that the content of a request causes, besides those of images. */
const REQUEST_CODES: readonly string[] = ['ERR_OPTION_INVALID', 'ERR_OPTION_MISSING', 'ERR_QUESTION', 'ERR_VIDEO'];
const MEDIA_CODES = /^ERR_(IMAGE|VIDEO)/;
/** Codes of states that pass. */
const PASSING_CODES: readonly ErrorCode[] = ['ERR_OUT_OF_MEMORY', 'ERR_BUSY', 'ERR_DISPOSED', 'ERR_ENGINE_ENDED'];

const FULL: string = 'ERR_ENGINE_FULL';

/** A 429: as many requests as the server holds are running or waiting. */
export function tooMany(retryAfter: number): RequestError {
  const message = 'The server holds as many requests as it can; try again later.';
  return new RequestError(429, message, { type: 'rate_limit_error', code: 'rate_limit_exceeded', retryAfter });
}

/** A 429: as many requests of this client as it may have are running or waiting. */
export function tooManyOfClient(most: number, retryAfter: number): RequestError {
  const message = `You have ${most} requests at this server, which is its limit for each client; wait until one of them has ended.`;
  return new RequestError(429, message, { type: 'rate_limit_error', code: 'rate_limit_exceeded', retryAfter });
}

/** Where a request has what the engine reads, as paths of fields. */
export interface Places {
  /** The list of messages. */
  readonly messages: string;
  /** The form of the answer. */
  readonly format: string;
  /** The pictures and videos that have been read so far. */
  readonly media: readonly string[];
}

/**
 * Any error as one that is answered. An unexpected one shows nothing of its cause, which `log` receives. `places` locate what the engine refuses:
 * a picture by its own path if the request has one, by that of the messages otherwise.
 */
export function requestErrorOf(error: unknown, log: (error: unknown) => void, places?: Places): RequestError {
  if (error instanceof RequestError) return error;
  if (error instanceof SparseVilaError) {
    const { code, message } = error;
    if (code === FULL) return tooMany(5);
    if (code === 'ERR_CONTEXT_OVERFLOW')
      return new RequestError(400, message, { code: 'context_length_exceeded', param: places?.messages ?? null });
    if (REQUEST_CODES.includes(code) || MEDIA_CODES.test(code))
      return new RequestError(400, message, { code, param: places === undefined ? null : placeOf(error, places) });
    if (PASSING_CODES.includes(code)) return new RequestError(503, message, { code, retryAfter: 5 });
  }
  const { status, type, message } = ofFramework(error);
  if (status !== undefined) return new RequestError(status, message, { code: type });
  log(error);
  return new RequestError(500, 'The server failed to answer this request; its log has the reason.', {
    code: 'internal_error',
  });
}

/** The field that an error of the engine is about; null if it is about none of these. */
function placeOf({ code, message }: SparseVilaError, { messages, format, media }: Places): string | null {
  if (MEDIA_CODES.test(code)) return media.length === 1 ? (media[0] ?? null) : messages;
  if (code === 'ERR_QUESTION') return messages;
  // As all messages about formats begin.
  return /^format\b/.test(message) ? format : null;
}

const FRAMEWORK_CODES: Readonly<Record<string, string>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'request_too_large',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'unsupported_media_type',
  FST_ERR_CTP_INVALID_JSON_BODY: 'invalid_json',
};

/** Errors that Fastify throws before a handler runs: a body that is too large, not JSON, or of another type. */
function ofFramework(error: unknown): { readonly status?: number; readonly type: string; readonly message: string } {
  const { statusCode, code, message } = error as { statusCode?: unknown; code?: unknown; message?: unknown };
  if (typeof statusCode !== 'number' || statusCode < 400 || statusCode > 499) return { type: '', message: '' };
  const type = (typeof code === 'string' && FRAMEWORK_CODES[code]) || 'invalid_request';
  if (type === 'unsupported_media_type')
    return {
      status: statusCode,
      type,
      message: 'Expected a JSON body: send the header "content-type: application/json".',
    };
  return { status: statusCode, type, message: typeof message === 'string' ? message : 'The request is not valid.' };
}
