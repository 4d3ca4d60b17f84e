// The content of a message as parts of a question: texts, pictures and videos in their order. Pictures are data URLs, or are fetched from hosts
// that the server's options allow. A client never names a file of this machine.

import { SparseVilaError } from '../errors';
import { fetchImage } from '../image/fetch';
import { dataUrlBytes, isDataUrl } from '../image/text';
import type { VideoInput } from '../models/media';
import type { Part } from '../session/options';
import { type Fields, fieldsOf, missing, wrongType } from './fields';
import type { CheckedServerOptions } from './options';
import { invalidField, unsupportedField } from './request_error';
import type { RequestLife } from './request_life';

/** What reading the media of one request needs. */
export interface MediaSource {
  readonly options: CheckedServerOptions;
  readonly signal: AbortSignal;
  /** Media of the request so far; they count over all its messages. */
  readonly counts: { pictures: number; frames: number };
  /** The paths of the URLs that were read so far. */
  readonly paths: string[];
}

export function mediaSource(options: CheckedServerOptions, { signal, media }: RequestLife): MediaSource {
  return { options, signal, counts: { pictures: 0, frames: 0 }, paths: media };
}

const TEXTS = ['text', 'input_text', 'output_text', 'refusal'];
const PICTURES = ['image_url', 'input_image'];
const VIDEOS = ['video_url', 'input_video', 'video'];
const REFUSED: Readonly<Record<string, string>> = {
  input_audio: 'audio input',
  audio: 'audio input',
  file: 'files; send pictures as image_url',
  input_file: 'files; send pictures as input_image',
};
/** Hints of other servers about a picture, which have no effect here. */
const HINTS = ['detail', 'prompt_cache_breakpoint', 'uuid', 'cache_control', 'annotations', 'logprobs'];

/**
 * The parts of a message's content.
 * @throws RequestError for malformed or unsupported content, and for a picture that cannot be had
 */
export async function partsOf(content: unknown, path: string, source: MediaSource): Promise<Part[]> {
  if (typeof content === 'string') return [content];
  if (!Array.isArray(content)) throw wrongType(path, 'a string or a list of parts', content);
  const parts: Part[] = [];
  for (const [i, value] of content.entries()) parts.push(await partOf(fieldsOf(value, `${path}[${i}]`), source));
  return parts;
}

async function partOf(part: Fields, source: MediaSource): Promise<Part> {
  const type = part.text('type', 64);
  if (type === undefined) throw missing(part.at('type'));
  const breakpoint = part.object('prompt_cache_breakpoint');
  // The picture memory of the engine keeps every picture up to its end, so that an explicit mark changes nothing.
  breakpoint?.oneOf('mode', ['explicit']);
  if (TEXTS.includes(type)) {
    part.only(['type', 'text', 'refusal'], HINTS);
    const text = part.text('text') ?? part.text('refusal');
    if (text === undefined) throw missing(part.at('text'));
    return text;
  }
  if (PICTURES.includes(type)) return { kind: 'image', image: await pictureOf(part, source) };
  if (VIDEOS.includes(type)) return { kind: 'video', video: await videoOf(part, type, source) };
  const refused = Object.hasOwn(REFUSED, type) ? REFUSED[type] : undefined;
  if (refused !== undefined) throw unsupportedField(part.at('type'), refused);
  throw wrongType(part.at('type'), `'text', 'image_url' or 'video_url'`, type);
}

/** The bytes of a picture: `image_url` is an object with a url in chat completions, and the URL itself in responses. */
async function pictureOf(part: Fields, source: MediaSource): Promise<Uint8Array> {
  part.only(['type', 'image_url'], HINTS, ['file_id']);
  if (part.value('file_id') !== undefined) throw unsupportedField(part.at('file_id'), 'uploaded files');
  count(source, 'pictures', 1, part.path);
  const value = part.value('image_url');
  if (typeof value === 'string') return await bytesOf(value, part.at('image_url'), source);
  const inner = part.object('image_url');
  inner?.only(['url'], HINTS);
  const url = inner?.text('url');
  if (inner === undefined || url === undefined)
    throw missing(inner === undefined ? part.at('image_url') : inner.at('url'));
  return await bytesOf(url, inner.at('url'), source);
}

/**
 * A film as `video_url: { url }`, or its frames: `{ frames: [url], fps }`, or `data:video/jpeg;base64,A,B` as in vLLM. `fps` and `max_frames` of a
 * film say which frames are taken of it.
 */
async function videoOf(part: Fields, type: string, source: MediaSource): Promise<VideoInput> {
  part.only(['type', 'video_url', 'input_video', 'video', 'fps'], HINTS);
  const inner = typeof part.value(type) === 'string' ? undefined : part.object(type);
  inner?.only(['url', 'data', 'frames', 'fps', 'max_frames', 'format'], HINTS);
  const rate = inner?.number('fps', 0.001, 1000) ?? part.number('fps', 0.001, 1000);
  const fps = rate === undefined ? {} : { fps: rate };
  const at = inner?.path ?? part.at(type);
  const most = source.options.limits.frames;
  const listed = inner?.list('frames', most);
  if (listed !== undefined) return { frames: await framesOf(listed, `${at}.frames`, source), ...fps };
  const data = inner?.text('data');
  const url = inner === undefined ? part.text(type) : (inner.text('url') ?? (data && `data:video/mp4;base64,${data}`));
  if (url === undefined) throw missing(inner?.at('url') ?? at);
  const packed = /^data:video\/jpeg;base64,/i.exec(url.slice(0, 100))?.[0].length;
  if (packed !== undefined) {
    const frames = url.slice(packed).split(',');
    return {
      frames: await framesOf(
        frames.map((frame) => `data:image/jpeg;base64,${frame}`),
        at,
        source,
      ),
      ...fps,
    };
  }
  const maxFrames = inner?.integer('max_frames', 1, most);
  count(source, 'frames', maxFrames ?? 1, part.path);
  return { file: await bytesOf(url, at, source, 'video'), ...fps, ...(maxFrames !== undefined && { maxFrames }) };
}

async function framesOf(urls: readonly unknown[], path: string, source: MediaSource): Promise<Uint8Array[]> {
  if (urls.length === 0) throw wrongType(path, 'at least one frame', urls);
  count(source, 'frames', urls.length, path);
  const frames: Uint8Array[] = [];
  for (const [i, url] of urls.entries()) {
    if (typeof url !== 'string') throw wrongType(`${path}[${i}]`, 'a URL', url);
    frames.push(await bytesOf(url, `${path}[${i}]`, source));
  }
  return frames;
}

function count(
  { counts, options: { limits } }: MediaSource,
  kind: 'pictures' | 'frames',
  by: number,
  path: string,
): void {
  counts[kind] += by;
  if (counts[kind] > limits[kind])
    throw invalidField(
      path,
      `Expected at most ${limits[kind]} ${kind} in a request, received more.`,
      `too_many_${kind}`,
    );
}

/** The bytes that a data URL holds, or that are at a URL which is allowed. */
async function bytesOf(
  url: string,
  path: string,
  source: MediaSource,
  kind: 'image' | 'video' = 'image',
): Promise<Uint8Array> {
  source.signal.throwIfAborted();
  source.paths.push(path);
  try {
    return await read(url, path, source, kind);
  } catch (error) {
    if (!(error instanceof SparseVilaError)) throw error;
    throw invalidField(path, error.message, error.code);
  }
}

async function read(
  url: string,
  path: string,
  { options, signal }: MediaSource,
  kind: 'image' | 'video',
): Promise<Uint8Array> {
  if (isDataUrl(url)) return dataUrlBytes(url);
  const web = URL.canParse(url) ? new URL(url) : undefined;
  if (web?.protocol !== 'http:' && web?.protocol !== 'https:')
    throw invalidField(
      path,
      `Invalid value for '${path}': expected a data URL or an http(s) URL.`,
      'invalid_image_url',
    );
  const { urls, limits, addresses } = options;
  if (urls.length === 0)
    throw invalidField(path, 'This server fetches no URLs; send the picture as a data URL.', 'url_not_allowed');
  const allow = (target: URL): boolean => urls.some((pattern) => matches(target, pattern));
  if (!allow(web)) throw invalidField(path, `This server fetches nothing from ${web.host}.`, 'url_not_allowed');
  const name = `${kind} of ${web.host}`;
  const check = kind === 'video' ? { check: () => undefined } : {};
  return await fetchImage(url, allow, { name, maxBytes: limits.bodyBytes, addresses, signal, ...check });
}

/** Whether a URL's host is one that a pattern allows. Without a port, a pattern allows the default ports alone. */
export function matches({ hostname, port }: URL, pattern: string): boolean {
  const [, name = '', wanted = ''] = /^(.*?)(?::(\d+))?$/.exec(pattern.toLowerCase()) ?? [];
  if (port !== wanted && !(pattern.startsWith('[') && port === '')) return false;
  const host = hostname.toLowerCase();
  if (name === '*') return true;
  return name.startsWith('*.') ? host.endsWith(name.slice(1)) && host.length > name.length - 1 : host === name;
}
