// Fetches an image from an http(s) URL that the caller allows: few redirects, each of which must be allowed too; size and time are bounded.
// The server's content type is ignored: the bytes decide.

import { codeOf, messageOf, SparseVilaError } from '../errors';
import { type CollectOptions, collect, tooManyBytes } from './collect';
import { piecesOf } from './input';
import { nameOfText } from './text';

/** Whether images may be fetched from http(s) URLs: all, none, or those that the function allows, redirects included. */
export type AllowUrls = boolean | ((url: URL) => boolean);

const MOST_REDIRECTS = 5;
/** Milliseconds for a whole fetch. */
const FETCH_MS = 60_000;

/**
 * Fetches `text`, an http(s) URL.
 * @throws SparseVilaError ERR_IMAGE_URL if `allow` refuses it, ERR_IMAGE_INVALID (not a URL), ERR_IMAGE_FETCH (network, status, redirects,
 *   time), and errors of `collect`; `signal.reason` if aborted
 */
export async function fetchImage(text: string, allow: AllowUrls, options: CollectOptions): Promise<Uint8Array> {
  const { signal, maxBytes, name } = options;
  const timeout = AbortSignal.timeout(FETCH_MS);
  const either = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
  try {
    const response = await follow(text, allow, name, either);
    if (!response.ok) throw failed(name, `the server answered ${response.status} ${response.statusText}`);
    if (Number(response.headers.get('content-length') ?? 0) > maxBytes) throw tooManyBytes(name, maxBytes);
    if (response.body === null) return new Uint8Array();
    const { body } = response;
    return await collect(() => piecesOf(body), { ...options, signal: either });
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    if (timeout.aborted) throw failed(name, `it took longer than ${FETCH_MS / 1000} seconds`, error);
    if (error instanceof SparseVilaError) throw error;
    throw failed(name, reasonOf(error), error);
  }
}

async function follow(text: string, allow: AllowUrls, name: string, signal: AbortSignal): Promise<Response> {
  let url = parse(text, name);
  for (let hop = 0; hop <= MOST_REDIRECTS; hop++) {
    requireAllowed(url, allow, name, hop > 0);
    const response = await fetch(url, { redirect: 'manual', signal });
    const location = response.headers.get('location');
    if (response.status < 300 || response.status > 399 || location === null) return response;
    await response.body?.cancel();
    url = parse(location, name, url);
  }
  throw failed(name, `it redirects more than ${MOST_REDIRECTS} times`);
}

function parse(text: string, name: string, base?: URL): URL {
  const url = URL.canParse(text, base?.href) ? new URL(text, base) : undefined;
  if (url !== undefined && url.username === '' && url.password === '') return url;
  const reason = url === undefined ? 'it cannot be parsed' : 'it holds a user name or password, which is not sent';
  throw new SparseVilaError('ERR_IMAGE_INVALID', `Expected a valid URL for ${name} but ${reason}.`);
}

function requireAllowed(url: URL, allow: AllowUrls, name: string, isRedirect: boolean): void {
  const isWeb = url.protocol === 'http:' || url.protocol === 'https:';
  if (isWeb && (allow === true || (typeof allow === 'function' && allow(new URL(url)) === true))) return;
  const where = isRedirect ? `, which redirects to ${isWeb ? `another ${nameOfText(url.href)}` : url.protocol}` : '';
  const reason = allow === false ? 'URLs are not fetched unless they are allowed' : 'allowUrls does not allow this one';
  throw new SparseVilaError(
    'ERR_IMAGE_URL',
    `Expected a file or bytes for ${name}${where}, since ${reason}; load the model with allowUrls: true, or a function of the URL, ` +
      '(--allow-urls on the command line), or fetch it yourself and pass the bytes.',
  );
}

function failed(name: string, reason: string, cause?: unknown): SparseVilaError {
  return new SparseVilaError(
    'ERR_IMAGE_FETCH',
    `Expected to fetch ${name} but ${reason}; check the URL and the network.`,
    cause === undefined ? {} : { cause },
  );
}

/** The reason that `fetch` puts into its cause, such as ECONNREFUSED or a certificate error. */
function reasonOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  return `the request failed (${codeOf(cause) ?? (cause === undefined ? messageOf(error) : messageOf(cause))})`;
}
