// Fetches an image from an http(s) URL that the caller allows: few redirects, each of which must be allowed too; size and time are bounded.
// The server's content type is ignored: the bytes decide. Node's own client, and not `fetch`, because it connects to an address that was
// checked, and because destroying a request always ends it.

import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { onAbort } from '../abort';
import { codeOf, messageOf, SparseVilaError } from '../errors';
import { type AddressRule, checkedLookup, literalAddress } from './addresses';
import { type CollectOptions, collect, tooManyBytes } from './collect';
import { iterated } from './input';
import { nameOfText } from './text';

/** Whether images may be fetched from http(s) URLs: all, none, or those that the function allows, redirects included. */
export type AllowUrls = boolean | ((url: URL) => boolean);

export interface FetchOptions extends CollectOptions {
  /** The addresses that may be connected to, redirects included; default all. */
  readonly addresses?: AddressRule | undefined;
  /** Milliseconds for the whole fetch; default FETCH_MS. */
  readonly fetchMs?: number | undefined;
  /** Resolves names; default the system's resolver. */
  readonly lookup?: Parameters<typeof checkedLookup>[2];
}

const MOST_REDIRECTS = 5;
/** Milliseconds for a whole fetch. */
const FETCH_MS = 60_000;

const HEADERS = { 'user-agent': 'sparsevila', accept: 'image/*,*/*;q=0.5', 'accept-encoding': 'identity' };

/**
 * Fetches `text`, an http(s) URL.
 * @throws SparseVilaError ERR_IMAGE_URL if `allow` or `addresses` refuses it, ERR_IMAGE_INVALID (not a URL), ERR_IMAGE_FETCH (network, status,
 *   redirects, time), and errors of `collect`; `signal.reason` if aborted
 */
export async function fetchImage(text: string, allow: AllowUrls, options: FetchOptions): Promise<Uint8Array> {
  const { signal, maxBytes, name, fetchMs = FETCH_MS } = options;
  signal?.throwIfAborted();
  const ending = new AbortController();
  const timedOut = failed(name, `it took longer than ${fetchMs / 1000} seconds`);
  const timer = setTimeout(() => ending.abort(timedOut), fetchMs);
  const forget = signal && onAbort(signal, () => ending.abort(signal.reason));
  try {
    const response = await follow(text, allow, { ...options, signal: ending.signal });
    const { statusCode = 0, statusMessage = '' } = response;
    if (statusCode < 200 || statusCode > 299) {
      response.destroy();
      throw failed(name, `the server answered ${statusCode} ${statusMessage}`);
    }
    if (Number(response.headers['content-length'] ?? 0) > maxBytes) {
      response.destroy();
      throw tooManyBytes(name, maxBytes);
    }
    return await collect(() => iterated(response), { ...options, signal: ending.signal });
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    if (ending.signal.aborted) throw timedOut;
    if (error instanceof SparseVilaError) throw error;
    throw failed(name, `the request failed (${codeOf(error) ?? messageOf(error)})`, error);
  } finally {
    clearTimeout(timer);
    forget?.();
  }
}

type Following = FetchOptions & { readonly signal: AbortSignal };

async function follow(text: string, allow: AllowUrls, options: Following): Promise<IncomingMessage> {
  const { name } = options;
  let url = parse(text, name);
  for (let hop = 0; hop <= MOST_REDIRECTS; hop++) {
    requireAllowed(url, allow, name, hop > 0);
    const response = await open(url, options);
    const { statusCode = 0, headers } = response;
    if (statusCode < 300 || statusCode > 399 || headers.location === undefined) return response;
    // The body may be endless.
    response.destroy();
    url = parse(headers.location, name, url);
  }
  throw failed(name, `it redirects more than ${MOST_REDIRECTS} times`);
}

/** The response to a GET request. It is destroyed when the signal aborts. */
function open(url: URL, { name, addresses, lookup, signal }: Following): Promise<IncomingMessage> {
  const literal = literalAddress(url);
  const refusedAddress = (): SparseVilaError =>
    new SparseVilaError(
      'ERR_IMAGE_URL',
      `Expected a public address for ${name}, received one of a private or special network, which is not connected to.`,
    );
  if (addresses !== undefined && literal !== undefined && !addresses(literal)) throw refusedAddress();
  const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const request = send(url, {
      headers: HEADERS,
      // A connection is not shared, since another request may be allowed other addresses.
      agent: false,
      ...(addresses !== undefined && { lookup: checkedLookup(addresses, refusedAddress, lookup) }),
    });
    const forget = onAbort(signal, () => {
      request.destroy();
      reject(signal.reason);
    });
    // Also after the response: a connection that breaks is reported by the body.
    request.on('error', reject);
    request.on('close', forget);
    request.on('response', resolve);
    request.end();
  });
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
