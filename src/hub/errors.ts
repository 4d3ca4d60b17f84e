// Errors for failed requests to the Hub, with advice. Tokens and queries of URLs, which may be signatures, are never quoted.

import { codeOf, messageOf, SparseVilaError } from '../errors';
import { isPresent } from '../files';
import { DEFAULT_REVISION, type HubName } from './names';

/** A model at a revision, for messages and requests. */
export interface Subject extends HubName {
  readonly endpoint: string;
}

export const shownName = ({ name, revision = DEFAULT_REVISION }: HubName): string =>
  revision === DEFAULT_REVISION ? name : `${name}@${revision}`;

/** A URL without its query. */
export const shownUrl = ({ origin, pathname }: URL): string => `${origin}${pathname}`;

const TOKEN_ADVICE = 'set HF_TOKEN to a token of an account that may read it (ENDPOINT/settings/tokens)';

/** For names that were meant as paths. */
const notHere = (name: string): string => (isPresent(name) ? '' : 'there is no folder of this name here, and ');

/** The error for a response with a status of at least 400. `hasToken`: whether the request had a token. */
export function statusError(
  subject: Subject,
  response: Pick<Response, 'status' | 'headers'>,
  url: URL,
  hasToken: boolean,
): SparseVilaError {
  const { status, headers } = response;
  const reason = headers.get('x-error-code') ?? '';
  const { name, revision = DEFAULT_REVISION, endpoint } = subject;
  const tokenAdvice = TOKEN_ADVICE.replace('ENDPOINT', endpoint);
  const page = `${endpoint}/${name}`;
  if (reason === 'GatedRepo') {
    const advice = `Accept its conditions at ${page}, then ${hasToken ? 'try again' : tokenAdvice}.`;
    return hubError('ERR_HUB_ACCESS', `${name}: the model is gated, and access was refused (${status}). ${advice}`);
  }
  if (reason === 'RevisionNotFound')
    return hubError('ERR_HUB_NOT_FOUND', `${name}: there is no revision ${revision}. ${page} lists them.`);
  if (reason === 'EntryNotFound' || (status === 404 && url.pathname.includes('/resolve/')))
    return hubError('ERR_HUB_NOT_FOUND', `${name}: there is no file at ${shownUrl(url)}.`);
  if (status === 404 || reason === 'RepoNotFound')
    return hubError(
      'ERR_HUB_NOT_FOUND',
      `${name}: ${notHere(name)}${page} is not found. If the model is private, ${tokenAdvice}.`,
    );
  if (status === 401 || status === 403) {
    const found = hasToken ? 'the token was not accepted' : 'no token was sent';
    return hubError(
      'ERR_HUB_ACCESS',
      `${name}: access was refused (${status}), and ${found}. Check ${page}, and ${tokenAdvice}.`,
    );
  }
  if (status === 429) {
    const advice = `Wait some minutes${hasToken ? '' : ', or set HF_TOKEN, which raises the limit'}.`;
    return hubError('ERR_HUB_RATE_LIMIT', `${name}: ${url.host} received too many requests (429). ${advice}`);
  }
  if (status >= 500)
    return hubError('ERR_HUB_UNREACHABLE', `${name}: ${url.host} answered ${status} each time. Try again later.`);
  return hubError('ERR_HUB_RESPONSE', `${name}: ${shownUrl(url)} answered ${status}, which is not expected.`);
}

/** The error for a request without a response, or with an interrupted one. */
export function networkError(subject: HubName, url: URL, cause: unknown): SparseVilaError {
  // `fetch` puts reasons such as ECONNREFUSED or a certificate error into its cause.
  const under = typeof cause === 'object' && cause !== null && 'cause' in cause ? cause.cause : undefined;
  const reason = codeOf(under) ?? codeOf(cause) ?? messageOf(under ?? cause);
  return hubError(
    'ERR_HUB_UNREACHABLE',
    `${subject.name}: ${notHere(subject.name)}${url.host} cannot be reached, or breaks off (${reason}). Check the network and HF_ENDPOINT, and try again; what has ` +
      'been downloaded is kept.',
    cause,
  );
}

export function offlineError(name: HubName, cache: string): SparseVilaError {
  return hubError(
    'ERR_HUB_OFFLINE',
    `${shownName(name)}: expected a folder of this name, or a whole copy of the model in ${cache}, found neither; HF_HUB_OFFLINE is set, so ` +
      'nothing is fetched. Unset it, or download the model first.',
  );
}

/** The error for a response with unexpected content. */
export const responseError = (name: string, what: string): SparseVilaError =>
  hubError('ERR_HUB_RESPONSE', `${name}: the Hub's answer cannot be used: ${what}.`);

type HubCode = Extract<SparseVilaError['code'], `ERR_HUB_${string}`>;

export const hubError = (code: HubCode, message: string, cause?: unknown): SparseVilaError =>
  new SparseVilaError(code, message, cause === undefined ? {} : { cause });
