// A stand-in of the Hub's HTTP interface on this machine: the API (revision, paged tree), files by HEAD and GET, large ones by a redirect to a
// second server (the CDN), ranges; and what a spec makes it do wrong.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { filesBelow } from '../../src/files';
import type { HubSettings } from '../../src/hub/settings';

/** Files by path. */
export type Files = Readonly<Record<string, Buffer>>;

export interface Seen {
  readonly server: 'hub' | 'cdn';
  readonly method: string;
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
}

/** What a response does wrong. */
export type Fault =
  | { readonly status: number; readonly headers?: Readonly<Record<string, string>>; readonly body?: string }
  /** The connection is cut after so many bytes of the body. */
  | { readonly breakAfter: number }
  /** The response ends after so many bytes, as if that were all. */
  | { readonly endAfter: number }
  | { readonly bytes: (right: Buffer) => Buffer }
  /** Pieces of so many bytes with a pause after each. */
  | { readonly piece: number; readonly pauseMs: number }
  /** Range headers are ignored. */
  | { readonly noRanges: true };

export interface Hub {
  readonly endpoint: string;
  readonly requests: readonly Seen[];
  /** The commit of `main`. */
  readonly commit: string;
  /** Decides about each request; undefined: it is answered as it should be. */
  misbehave(decide: (seen: Seen, count: number) => Fault | undefined): void;
  /** A wrong listing. */
  list(entries: readonly unknown[]): void;
  /** Lets the answer about a revision have no sizes and hashes, as those of some mirrors: the tree is asked for them. */
  withoutBlobs(): void;
  forget(): void;
  settings(cache: string, more?: Partial<HubSettings>): HubSettings;
  close(): Promise<void>;
}

const LARGE = /\.(safetensors|bin|model)$/;
const PAGE = 5;

/** The files of a folder, and others that no loader needs. */
export function filesOfFolder(folder: string, more: Readonly<Record<string, string>> = {}): Files {
  const own = filesBelow(folder).map((path) => [path, readFileSync(join(folder, path))] as const);
  return Object.fromEntries([
    ...own,
    ...Object.entries(more).map(([path, text]) => [path, Buffer.from(text)] as const),
  ]);
}

export const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
export const gitSha1 = (bytes: Buffer): string =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
const pointer = (bytes: Buffer): Buffer =>
  Buffer.from(`version https://git-lfs.github.com/spec/v1\noid sha256:${sha256(bytes)}\nsize ${bytes.length}\n`);

/** A model on the stand-in. */
interface Served {
  readonly name: string;
  readonly files: Files;
  readonly revisions: readonly string[];
  readonly commit: string;
  readonly requests: Seen[];
  endpoint: string;
  cdn: string;
  listing: readonly unknown[];
  hasBlobs: boolean;
  decide: (seen: Seen, count: number) => Fault | undefined;
}

/** Serves `files` as the model `name` at every revision that `revisions` names. */
export async function startHub(name: string, files: Files, revisions: readonly string[] = ['main']): Promise<Hub> {
  const served: Served = {
    ...{ name, files, revisions, requests: [], endpoint: '', cdn: '', hasBlobs: true, decide: () => undefined },
    commit: createHash('sha1')
      .update(JSON.stringify(Object.keys(files)))
      .update(name)
      .digest('hex'),
    listing: Object.entries(files).map(([path, bytes]) => entryOf(path, bytes)),
  };
  const servers = [createServer(handler(served, 'hub')), createServer(handler(served, 'cdn'))] as const;
  const { requests, commit } = served;
  const endpoint = await listen(servers[0]);
  Object.assign(served, { endpoint, cdn: await listen(servers[1]) });
  return {
    ...{ endpoint, requests, commit },
    misbehave: (decide) => void Object.assign(served, { decide }),
    list: (listing) => void Object.assign(served, { listing }),
    withoutBlobs: () => void Object.assign(served, { hasBlobs: false }),
    forget: () => void requests.splice(0),
    settings: (cache, more = {}) => ({
      ...{ endpoint, cache, offline: false, stallMs: 5000, pauseMs: 1, token: () => undefined },
      ...more,
    }),
    close: async () => {
      for (const server of servers) {
        server.closeAllConnections();
        await new Promise((done) => server.close(done));
      }
    },
  };
}

const handler =
  (served: Served, server: Seen['server']) =>
  (request: IncomingMessage, response: ServerResponse): void => {
    const { method = '', url = '', headers } = request;
    const seen = { server, method, path: url, range: headers.range, authorization: headers.authorization };
    served.requests.push(seen);
    const fault = served.decide(seen, served.requests.filter(({ path }) => path === url).length);
    if (fault !== undefined && 'status' in fault) {
      response.writeHead(fault.status, fault.headers).end(fault.body ?? '');
      return;
    }
    const answered =
      server === 'cdn' ? answerBlob(served, request, response, fault) : answer(served, request, response, fault);
    void answered.catch(() => response.destroy());
  };

type BodyFault = Exclude<Fault, { status: number }> | undefined;

const missing = (response: ServerResponse, code: string): void =>
  void response.writeHead(404, { 'x-error-code': code }).end();

async function answerBlob(
  { files }: Served,
  request: IncomingMessage,
  response: ServerResponse,
  fault: BodyFault,
): Promise<void> {
  const { pathname } = new URL(request.url ?? '', 'http://cdn');
  const bytes = Object.values(files).find((one) => pathname === `/blobs/${sha256(one)}`);
  return bytes === undefined ? missing(response, 'EntryNotFound') : await send(bytes, request, response, {}, fault);
}

async function answer(
  served: Served,
  request: IncomingMessage,
  response: ServerResponse,
  fault: BodyFault,
): Promise<void> {
  const { name, files, revisions, commit, endpoint, listing, hasBlobs } = served;
  const { pathname, searchParams } = new URL(request.url ?? '', endpoint);
  const path = decodeURIComponent(pathname);
  const api = /^\/api\/models\/([^/]+\/[^/]+)\/(revision|tree)\/(.+)$/.exec(path);
  const resolve = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(path);
  const [model, revision = ''] = api === null ? [resolve?.[1], resolve?.[2]] : [api[1], api[3]];
  if (model !== name) return missing(response, 'RepoNotFound');
  if (revision !== commit && !revisions.includes(revision)) return missing(response, 'RevisionNotFound');
  if (api?.[2] === 'revision') {
    const siblings = listing.map((entry) => siblingOf(entry, hasBlobs && searchParams.has('blobs')));
    return json(response, { id: name, sha: commit, siblings });
  }
  if (api !== null) {
    const from = Number(searchParams.get('cursor') ?? 0);
    const link = `<${endpoint}${pathname}?recursive=true&cursor=${from + PAGE}>; rel="next"`;
    return json(response, listing.slice(from, from + PAGE), from + PAGE < listing.length ? { link } : {});
  }
  const file = resolve?.[3] ?? '';
  const bytes = files[file];
  if (bytes === undefined) return missing(response, 'EntryNotFound');
  const common = { 'x-repo-commit': commit, etag: `"${gitSha1(bytes)}"` };
  if (!LARGE.test(file)) return await send(bytes, request, response, common, fault);
  const linked = { 'x-linked-etag': `"${sha256(bytes)}"`, 'x-linked-size': String(bytes.length) };
  const location = `${served.cdn}/blobs/${sha256(bytes)}?signature=secret`;
  response.writeHead(302, { ...common, ...linked, location }).end();
}

/** A file as the Hub lists it. */
export function entryOf(path: string, bytes: Buffer): Readonly<Record<string, unknown>> {
  const plain = { type: 'file', path, size: bytes.length, oid: gitSha1(bytes) };
  if (!LARGE.test(path)) return plain;
  const small = pointer(bytes);
  return { ...plain, oid: gitSha1(small), lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: small.length } };
}

/** The same as the answer about a revision has it. */
function siblingOf(entry: unknown, hasBlobs: boolean): Readonly<Record<string, unknown>> {
  const { path, size, oid, lfs } = entry as {
    path: unknown;
    size: unknown;
    oid: unknown;
    lfs?: { oid: string; size: number };
  };
  if (!hasBlobs) return { rfilename: path };
  return { rfilename: path, size, blobId: oid, ...(lfs && { lfs: { sha256: lfs.oid, size: lfs.size } }) };
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function json(response: ServerResponse, value: unknown, headers: Readonly<Record<string, string>> = {}): void {
  response.writeHead(200, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value));
}

async function send(
  bytes: Buffer,
  request: IncomingMessage,
  response: ServerResponse,
  headers: Readonly<Record<string, string>>,
  fault: BodyFault,
): Promise<void> {
  const isRanged = request.headers.range !== undefined && !(fault !== undefined && 'noRanges' in fault);
  const [, given = '0'] = isRanged ? (/^bytes=(\d+)-/.exec(request.headers.range ?? '') ?? []) : [];
  const from = Number(given);
  if (from > 0 && from >= bytes.length) {
    response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end();
    return;
  }
  const right = bytes.subarray(from);
  const body = fault !== undefined && 'bytes' in fault ? fault.bytes(right) : right;
  const ranged = isRanged ? { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {};
  const length = fault !== undefined && 'endAfter' in fault ? {} : { 'content-length': String(body.length) };
  response.writeHead(isRanged ? 206 : 200, { ...headers, ...ranged, ...length });
  if (request.method === 'HEAD') return void response.end();
  if (fault !== undefined && 'endAfter' in fault) return void response.end(body.subarray(0, fault.endAfter));
  if (fault !== undefined && 'breakAfter' in fault) {
    response.write(body.subarray(0, fault.breakAfter), () => setTimeout(() => response.destroy(), 20));
    return;
  }
  if (fault === undefined || !('piece' in fault)) return void response.end(body);
  for (let at = 0; at < body.length && !response.destroyed; at += fault.piece) {
    response.write(body.subarray(at, at + fault.piece));
    await sleep(fault.pauseMs);
  }
  response.end();
}
