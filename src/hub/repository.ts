// Queries the Hub's API about a model: the commit of a revision, and the files of a commit. All answers are validated before use.
// Source: huggingface_hub 2.4 `hf_api.py` (model_info with files_metadata, list_repo_tree).

import { SparseVilaError } from '../errors';
import { type Json, parseJson } from '../json';
import { responseError } from './errors';
import { DEFAULT_REVISION, isCommit } from './names';
import { type Attempt, type Call, failedAttempt, get, piecesOf, repeated, watchdog } from './request';

/** A file of a model, as the Hub lists it. */
export interface RemoteFile {
  /** Relative, with `/`, without `..`. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** sha256 (64 hex digits) of a large file's bytes, or git's sha1 (40) of a small file. */
  readonly hash: string;
  /** git's sha1 of the object that git stores: the file, or for a large file the pointer to it. */
  readonly gitHash: string;
}

const ANSWER_BYTES = 64 * 2 ** 20;
/** Where the Hub's answer about a revision may have been shortened. */
const SHORTENED = 50_000;
const MOST_FILES = 200_000;
const LONGEST_PATH = 1000;

/** The API's description of a revision. */
export interface RevisionInfo {
  readonly commit: string;
  /** All files; undefined where the answer has not all of them, with sizes and hashes. */
  readonly files: readonly RemoteFile[] | undefined;
}

/** @throws SparseVilaError `ERR_HUB_…`; `ERR_PATH_OUTSIDE` for a path that leaves the folder; `signal.reason` */
export async function infoOf(call: Call): Promise<RevisionInfo> {
  const { name, revision = DEFAULT_REVISION, endpoint } = call.subject;
  const url = new URL(`${endpoint}/api/models/${name}/revision/${encodeURIComponent(revision)}?blobs=true`);
  const { json } = await getJson(call, url);
  const { sha, siblings } = isObject(json) ? json : {};
  if (typeof sha !== 'string' || !isCommit(sha) || (isCommit(revision) && sha !== revision))
    throw responseError(name, `expected a commit of 40 hex digits for "sha" of ${url.pathname}`);
  const entries = Array.isArray(siblings) ? siblings.map(asListed) : [];
  const isAll = entries.length > 0 && entries.length < SHORTENED && entries.every((entry) => entry !== undefined);
  return { commit: sha, files: isAll ? entries.flatMap((entry) => remoteFile(name, entry) ?? []) : undefined };
}

/** An entry of `siblings` as one of a tree; undefined without size and hash, which some mirrors leave out. */
function asListed(sibling: unknown): Json | undefined {
  if (!isObject(sibling) || sibling.size === undefined || sibling.blobId === undefined) return undefined;
  const lfs = isObject(sibling.lfs) ? { oid: sibling.lfs.sha256, size: sibling.lfs.size } : undefined;
  const { rfilename: path, size, blobId: oid } = sibling;
  return { type: 'file', path, size, oid, ...(lfs && { lfs }) };
}

/** All files of a commit, by the tree that the API pages. @throws SparseVilaError `ERR_HUB_…`; `ERR_PATH_OUTSIDE` for a path that leaves the folder; `signal.reason` */
export async function filesOf(call: Call, commit: string): Promise<RemoteFile[]> {
  const { name, endpoint } = call.subject;
  const url = new URL(`${endpoint}/api/models/${name}/tree/${commit}?recursive=true`);
  const files: RemoteFile[] = [];
  const seen = new Set<string>();
  while (!seen.has(url.search)) {
    seen.add(url.search);
    const { json, next } = await getJson(call, url);
    if (!Array.isArray(json)) throw responseError(name, `expected a list from ${url.pathname}`);
    for (const entry of json) {
      const file = remoteFile(name, entry);
      if (file !== undefined) files.push(file);
    }
    if (files.length > MOST_FILES) throw responseError(name, `it lists more than ${MOST_FILES} files`);
    if (next === undefined) break;
    // Only the cursor is taken from the link; the host that it names is not used.
    url.search = next.search;
  }
  return files;
}

/** The address of a file. */
export function fileUrl({ subject }: Call, commit: string, path: string): URL {
  const encoded = path.split('/').map(encodeURIComponent).join('/');
  return new URL(`${subject.endpoint}/${subject.name}/resolve/${commit}/${encoded}`);
}

/** A file of a listing; undefined for folders, and for unusual but harmless names, which no model needs. */
export function remoteFile(name: string, entry: unknown): RemoteFile | undefined {
  if (!isObject(entry) || entry.type !== 'file') return undefined;
  const { path, oid } = entry;
  const lfs = isObject(entry.lfs) ? entry.lfs : undefined;
  if (typeof path !== 'string' || path === '') throw responseError(name, 'it lists a file without a path');
  if (/^[/\\]|^[A-Za-z]:/.test(path) || path.split(/[/\\]/).includes('..'))
    throw new SparseVilaError(
      'ERR_PATH_OUTSIDE',
      `${name}: expected paths inside the model's folder in the Hub's list, received ${JSON.stringify(path.slice(0, 200))}. Nothing was written.`,
    );
  const size = lfs?.size ?? entry.size;
  const hash = lfs?.oid ?? oid;
  const isSound =
    Number.isSafeInteger(size) && Number(size) >= 0 && isHex(oid, 40) && (lfs === undefined || isHex(hash, 64));
  if (!isSound) throw responseError(name, `expected size and hash of ${JSON.stringify(path.slice(0, 200))}`);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters that a name must not have
  const isOdd = path.length > LONGEST_PATH || /[\\\u0000-\u001f\u007f]|(^|\/)\.?(\/|$)/.test(path);
  return isOdd ? undefined : { path, size: Number(size), hash: String(hash), gitHash: String(oid) };
}

const isHex = (value: unknown, digits: number): boolean =>
  typeof value === 'string' && value.length === digits && /^[0-9a-f]+$/.test(value);

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

interface Answer {
  readonly json: unknown;
  /** The link to the next part of a list. */
  readonly next: URL | undefined;
}

const getJson = (call: Call, url: URL): Promise<Answer> => repeated(call, () => tryJson(call, url));

async function tryJson(call: Call, url: URL): Promise<Attempt<Answer>> {
  const { name } = call.subject;
  const watch = watchdog(call);
  try {
    const result = await get(call, url, { accept: 'application/json' }, watch);
    if (!('value' in result)) return result;
    const { value: response } = result;
    const pieces: Uint8Array[] = [];
    let bytes = 0;
    for await (const piece of piecesOf(response, watch)) {
      bytes += piece.length;
      if (bytes > ANSWER_BYTES) throw responseError(name, `more than ${ANSWER_BYTES} bytes from ${url.pathname}`);
      pieces.push(piece);
    }
    const text = Buffer.concat(pieces).toString('utf8');
    const json = parseJson(text, () => responseError(name, `expected JSON from ${url.pathname}`));
    return { value: { json, next: nextOf(response.headers, url) } };
  } catch (error) {
    return failedAttempt(call, url, error);
  } finally {
    watch.stop();
  }
}

/** `Link: <https://…?cursor=…>; rel="next"` */
function nextOf(headers: Headers, from: URL): URL | undefined {
  const [, link] = /<([^>]+)>\s*;\s*rel="?next"?/.exec(headers.get('link') ?? '') ?? [];
  return link !== undefined && URL.canParse(link, from.href) ? new URL(link, from) : undefined;
}
