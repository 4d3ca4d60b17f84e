// GET requests to the Hub and its redirects: the token is sent only to the endpoint's origin, redirects are few, a stalled request is aborted,
// and requests that may succeed later are repeated.

import { setTimeout as sleep } from 'node:timers/promises';
import { onAbort } from '../abort';
import { SparseVilaError } from '../errors';
import { networkError, responseError, type Subject, shownUrl, statusError } from './errors';
import type { HubSettings } from './settings';

/** The settings that all requests for one model share. */
export interface Call {
  readonly subject: Subject;
  readonly settings: HubSettings;
  readonly signal: AbortSignal | undefined;
}

/** The result of one attempt: a value, or an error that the next attempt may not have. */
export type Attempt<T> = { readonly value: T } | { readonly failed: SparseVilaError; readonly afterMs?: number };

const MOST_REDIRECTS = 8;
const ATTEMPTS = 5;
/** Longest pause that a server may request. */
const LONGEST_WAIT_MS = 60_000;

/**
 * Calls `attempt` until it returns a value, with increasing pauses, or those that the server requests. An attempt that made progress resets the
 * count.
 * @throws the error of the last attempt; errors of `attempt`; `signal.reason`
 */
export async function repeated<T>(
  { settings, signal }: Call,
  attempt: () => Promise<Attempt<T>>,
  hasAdvanced: () => boolean = () => false,
): Promise<T> {
  for (let failures = 1; ; failures++) {
    const result = await attempt();
    if ('value' in result) return result.value;
    if (hasAdvanced()) failures = 1;
    const afterMs = result.afterMs ?? settings.pauseMs * 2 ** (failures - 1);
    if (failures >= ATTEMPTS || afterMs > LONGEST_WAIT_MS) throw result.failed;
    await sleep(afterMs, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
    signal?.throwIfAborted();
  }
}

/**
 * Watches one request: ends it when `feed` is not called for some time, and when the caller aborts. `fetch` alone is not relied on for that: its
 * own listener may be garbage by then (Node 20), so each wait is raced against the end.
 */
export interface Watchdog {
  readonly signal: AbortSignal;
  /** `work`, or the reason of the end as soon as the request is ended. For one wait at a time. */
  within<T>(work: Promise<T>): Promise<T>;
  feed(): void;
  stop(): void;
}

export function watchdog({ settings, signal }: Call): Watchdog {
  const controller = new AbortController();
  let fail: (reason: unknown) => void = () => undefined;
  const end = (reason: unknown): void => {
    controller.abort(reason);
    fail(reason);
  };
  const stall = (): void => end(new Error(`nothing was received for ${settings.stallMs / 1000} s`));
  let timer = setTimeout(stall, settings.stallMs);
  if (signal?.aborted) end(signal.reason);
  const forget = signal === undefined || signal.aborted ? undefined : onAbort(signal, () => end(signal.reason));
  return {
    signal: controller.signal,
    within: (work) =>
      new Promise((done, failed) => {
        fail = failed;
        if (controller.signal.aborted) failed(controller.signal.reason);
        work.then(done, failed);
      }),
    feed: () => {
      clearTimeout(timer);
      timer = setTimeout(stall, settings.stallMs);
    },
    stop: () => {
      clearTimeout(timer);
      forget?.();
    },
  };
}

/** The pieces of a response's body. Leaving the loop ends the response, which may be endless; that is not waited for. */
export async function* piecesOf({ body }: Response, watch: Watchdog): AsyncGenerator<Uint8Array> {
  const reader = body?.getReader();
  if (reader === undefined) return;
  try {
    for (;;) {
      const { done, value } = await watch.within(reader.read());
      if (done) return;
      watch.feed();
      yield value;
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}

/**
 * The response to a GET request, with a status below 400, or 416. Its body is read under the same `watch`.
 * @throws SparseVilaError `ERR_HUB_…` for an error that a repetition would not change; `signal.reason`
 */
export async function get(
  call: Call,
  url: URL,
  headers: Readonly<Record<string, string>>,
  watch: Watchdog,
): Promise<Attempt<Response>> {
  try {
    return await follow(call, url, headers, watch);
  } catch (error) {
    return failedAttempt(call, url, error);
  }
}

/** Converts an error of the network to a failed attempt. @throws errors of ours; `signal.reason` */
export function failedAttempt(call: Call, url: URL, error: unknown): { readonly failed: SparseVilaError } {
  call.signal?.throwIfAborted();
  if (error instanceof SparseVilaError) throw error;
  return { failed: networkError(call.subject, url, error) };
}

async function follow(
  { subject, settings }: Call,
  start: URL,
  headers: Readonly<Record<string, string>>,
  watch: Watchdog,
): Promise<Attempt<Response>> {
  const home = new URL(settings.endpoint).origin;
  let url = start;
  for (let hop = 0; hop <= MOST_REDIRECTS; hop++) {
    const token = url.origin === home ? settings.token() : undefined;
    const sent = { 'user-agent': 'sparsevila', ...headers, ...(token && { authorization: `Bearer ${token}` }) };
    const response = await watch.within(fetch(url, { redirect: 'manual', headers: sent, signal: watch.signal }));
    watch.feed();
    const { status } = response;
    const location = response.headers.get('location');
    if (status < 400 && (status < 300 || status === 304 || location === null)) {
      if (status < 300) return { value: response };
      throw responseError(subject.name, `${shownUrl(url)} answered ${status}`);
    }
    if (status === 416) return { value: response };
    // The connection is not reused, because its body may be endless.
    void response.body?.cancel().catch(() => undefined);
    if (status >= 400) {
      const error = statusError(subject, response, url, token !== undefined);
      if (status !== 408 && status !== 429 && status < 500) throw error;
      return { failed: error, ...retryAfter(response.headers) };
    }
    url = redirected(subject.name, url, location ?? '');
  }
  throw responseError(subject.name, `${shownUrl(start)} redirects more than ${MOST_REDIRECTS} times`);
}

function redirected(name: string, from: URL, location: string): URL {
  const url = URL.canParse(location, from.href) ? new URL(location, from) : undefined;
  const isSafe = url !== undefined && (url.protocol === 'https:' || url.protocol === from.protocol);
  if (isSafe && url.username === '' && url.password === '') return url;
  throw responseError(name, `${shownUrl(from)} redirects to an address that is not ${from.protocol}// without a user`);
}

/** `Retry-After` in seconds or as a date, or the time after which the Hub's `RateLimit: "api";r=0;t=55` begins anew. */
function retryAfter(headers: Headers, now = Date.now()): { readonly afterMs?: number } {
  const [, reset] = /;\s*t=(\d+)/.exec(headers.get('ratelimit') ?? '') ?? [];
  const given = headers.get('retry-after') ?? reset ?? '';
  const ms = /^\d+$/.test(given) ? Number(given) * 1000 : Date.parse(given) - now;
  return Number.isFinite(ms) ? { afterMs: Math.max(0, ms) } : {};
}
