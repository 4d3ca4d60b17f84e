// Options of the server, their defaults and their validation.

import { requestedMethod } from '../engine/request';
import type { SparsityRequest } from '../engine/types';
import { type AddressRule, publicAddresses } from '../image/addresses';
import { ANYTHING, BOOLEAN, COUNT, checkOptions, FUNCTION, integer, listOf, NAME, OBJECT } from '../options';

/** Limits of what clients may ask for. Sizes are bytes, times are milliseconds. */
export interface ServerLimits {
  /** Size of one request body. */
  readonly bodyBytes: number;
  /** Size of all request bodies that are held at the same time. */
  readonly heldBytes: number;
  /** Number of requests that run or wait; the next one is answered 429. */
  readonly requests: number;
  /** Number of requests of one API key, or of one address where there are no keys, that run, wait or arrive; the next one is answered 429. Default: no limit. */
  readonly clientRequests: number;
  /** Number of pictures and of video frames in one request. */
  readonly pictures: number;
  readonly frames: number;
  /** Number of answer tokens of one request, over its `n` answers. */
  readonly tokens: number;
  /** Number of answers of one request. */
  readonly answers: number;
  /** Time for one request from its arrival to the end of its answer. */
  readonly answerMs: number;
  /** Time for a client to send a request, and for it to read the answer once its time is over. */
  readonly receiveMs: number;
  /** Time without output after which a comment is sent, so that clients and proxies keep the connection. */
  readonly silenceMs: number;
  /** Size and number of the stored responses to which `previous_response_id` can refer. */
  readonly storedBytes: number;
  readonly storedResponses: number;
}

export const DEFAULT_LIMITS: ServerLimits = {
  bodyBytes: 32 * 2 ** 20,
  heldBytes: 256 * 2 ** 20,
  requests: 64,
  clientRequests: Number.POSITIVE_INFINITY,
  pictures: 32,
  frames: 256,
  tokens: 8192,
  answers: 8,
  answerMs: 600_000,
  receiveMs: 60_000,
  silenceMs: 10_000,
  storedBytes: 256 * 2 ** 20,
  storedResponses: 1000,
};

export interface ServerOptions {
  /** Address to listen at; default 127.0.0.1, which only programs of this machine reach. */
  readonly host?: string;
  /** Default 8000; 0 lets the system choose. */
  readonly port?: number;
  /** The name of the model for clients; default that of the engine's model. */
  readonly name?: string;
  /** Keys of which a client has to send one; default none is needed. */
  readonly apiKeys?: readonly string[];
  /** Origins whose web pages may call the server, or `*`; default none. */
  readonly origins?: readonly string[];
  /** Host names under which the server may be addressed besides its own address; default none. Ignored if it listens beyond this machine. */
  readonly hostNames?: readonly string[];
  /**
   * Hosts from which pictures may be fetched: `example.com`, `*.example.com`, `example.com:8080`, or `*` for every public one. Default none:
   * pictures come as data URLs.
   */
  readonly urls?: readonly string[];
  /** Addresses or subnets of private networks that a fetch may connect to, such as `10.1.0.0/16`; default none. */
  readonly addresses?: readonly string[];
  /** Sparsity of requests that name none; default SparseVILA's image preset. */
  readonly sparsity?: SparsityRequest;
  /** Whether the chat page is served at `/`; default true. */
  readonly page?: boolean;
  readonly limits?: Partial<ServerLimits>;
  /** Receives one line for each unexpected error; default writes it to stderr. */
  readonly log?: (line: string) => void;
}

export type CheckedServerOptions = Required<Omit<ServerOptions, 'name' | 'limits' | 'addresses'>> & {
  readonly name: string | undefined;
  readonly limits: ServerLimits;
  /** The addresses that a fetch may connect to. */
  readonly addresses: AddressRule;
};

const HOST_PATTERN = /^(\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:\d{1,5})?$/i;

/** Checks the options and adds the defaults. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function checkServerOptions(options: ServerOptions | undefined): CheckedServerOptions {
  const given = checkOptions('serve', options, {
    host: NAME,
    port: integer(0, 65_535),
    name: NAME,
    apiKeys: listOf('keys without spaces', {
      expected: 'a key',
      accepts: (value) => typeof value === 'string' && /^[!-~]+$/.test(value),
    }),
    origins: listOf('origins such as https://example.com', {
      expected: 'an origin',
      accepts: (value) =>
        value === '*' || (typeof value === 'string' && URL.canParse(value) && new URL(value).origin === value),
    }),
    hostNames: listOf('host names', NAME),
    urls: listOf('hosts such as example.com or *.example.com', {
      expected: 'a host',
      accepts: (value) => typeof value === 'string' && HOST_PATTERN.test(value),
    }),
    addresses: listOf('addresses or subnets', NAME),
    sparsity: OBJECT,
    page: BOOLEAN,
    limits: ANYTHING,
    log: FUNCTION,
  });
  const { host = '127.0.0.1', port = 8000, name, apiKeys = [], origins = [], hostNames = [], urls = [] } = given;
  const addresses = publicAddresses(given.addresses);
  const { sparsity = { method: 'sparsevila' }, page = true, log = toStderr } = given;
  requestedMethod(sparsity);
  const limits = { ...DEFAULT_LIMITS, ...checkLimits(given.limits) };
  return { host, port, name, apiKeys, origins, hostNames, urls, addresses, sparsity, page, limits, log };
}

/** Timers of Node take no longer time: 24 days. */
export const LONGEST_MS = 2 ** 31 - 1;

function checkLimits(limits: Partial<ServerLimits> | undefined): Partial<ServerLimits> {
  const checks = Object.fromEntries(
    Object.keys(DEFAULT_LIMITS).map((name) => [name, name.endsWith('Ms') ? integer(1, LONGEST_MS) : COUNT]),
  );
  return checkOptions('limits', limits, checks as { [K in keyof ServerLimits]: typeof COUNT });
}

const toStderr = (line: string): void => void process.stderr.write(`${line}\n`);
