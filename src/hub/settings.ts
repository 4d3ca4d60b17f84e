// Settings of the Hub from the environment variables of Hugging Face's Python tools. Source: huggingface_hub 2.4 `constants.py`,
// `utils/_auth.py`.

import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { SparseVilaError } from '../errors';
import { isPresent, readTextFile } from '../files';
import type { Environment } from '../runtime/paths';

const HUB = 'https://huggingface.co';
const TOKEN_BYTES = 64 * 1024;
const STALL_MS = 30_000;
const PAUSE_MS = 500;

export interface HubSettings {
  /** The Hub's address without a final slash; the token is sent to its origin only. */
  readonly endpoint: string;
  /** The folder of `models--owner--name`. */
  readonly cache: string;
  readonly offline: boolean;
  /** Milliseconds without data after which a request is aborted and repeated. */
  readonly stallMs: number;
  /** Milliseconds before a request is repeated; doubled each time. */
  readonly pauseMs: number;
  /** Reads the token for each request, so that it is stored nowhere. @throws SparseVilaError `ERR_HUB_SETTINGS`, `ERR_FILE_…` */
  token(): string | undefined;
}

/** @throws SparseVilaError `ERR_HUB_SETTINGS` for an HF_ENDPOINT or HF_HUB_DOWNLOAD_TIMEOUT that cannot be used */
export function hubSettings(env: Environment = process.env): HubSettings {
  const home = homeOf(env);
  return {
    endpoint: endpointOf(env.HF_ENDPOINT),
    cache: resolve(expanded(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, 'hub'), env)),
    offline: isTrue(env.HF_HUB_OFFLINE) || isTrue(env.TRANSFORMERS_OFFLINE),
    stallMs: timeoutOf(env.HF_HUB_DOWNLOAD_TIMEOUT),
    pauseMs: PAUSE_MS,
    token: () => (isTrue(env.HF_HUB_DISABLE_IMPLICIT_TOKEN) ? undefined : tokenOf(env, home)),
  };
}

function homeOf(env: Environment): string {
  const cache = env.XDG_CACHE_HOME || join(homedir(), '.cache');
  return resolve(expanded(env.HF_HOME || join(cache, 'huggingface'), env));
}

/** Expands `~` and `$NAME` as Python does. */
function expanded(path: string, env: Environment): string {
  const home = path === '~' || path.startsWith('~/') ? join(homedir(), path.slice(1)) : path;
  return home.replace(/\$(?:(\w+)|\{(\w+)\})/g, (whole, plain, braced) => env[plain ?? braced] ?? whole);
}

const isTrue = (value: string | undefined): boolean => /^(1|true|yes|on)$/i.test(value ?? '');

function endpointOf(given: string | undefined): string {
  if (!given) return HUB;
  const url = URL.canParse(given) ? new URL(given) : undefined;
  const isUsable = url !== undefined && /^https?:$/.test(url.protocol) && url.username === '' && url.password === '';
  if (isUsable && url.search === '' && url.hash === '') return url.href.replace(/\/+$/, '');
  throw new SparseVilaError(
    'ERR_HUB_SETTINGS',
    'Expected an http(s) URL without user, query and fragment in HF_ENDPOINT. Correct or unset it.',
  );
}

function timeoutOf(given: string | undefined): number {
  if (!given) return STALL_MS;
  const seconds = Number(given);
  if (seconds > 0 && seconds <= 86_400) return Math.ceil(seconds * 1000);
  throw new SparseVilaError(
    'ERR_HUB_SETTINGS',
    `Expected seconds from 1 to 86400 in HF_HUB_DOWNLOAD_TIMEOUT, received ${JSON.stringify(given.slice(0, 40))}.`,
  );
}

function tokenOf(env: Environment, home: string): string | undefined {
  const file = expanded(env.HF_TOKEN_PATH || join(home, 'token'), env);
  const inFile = (): string => (isPresent(file) ? readTextFile(file, { what: 'a Hub token', limit: TOKEN_BYTES }) : '');
  const token = (env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN || inFile()).trim();
  if (token === '') return undefined;
  // The error of `fetch` would quote a value that cannot be in a header.
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new SparseVilaError(
    'ERR_HUB_SETTINGS',
    `Expected a token of visible ASCII characters in ${env.HF_TOKEN ? 'HF_TOKEN' : 'the token file'}, received others. Copy it again.`,
  );
}
