// Reads a file of jobs: JSON lines, each a question with pictures, or the messages of a conversation that ends with a question.

import { createHash } from 'node:crypto';
import { dirname, resolve } from 'node:path';
import type { EngineRequest } from '../engine/types';
import { received } from '../errors';
import { type JsonLine, readJsonLines } from '../json';
import type { MediaInput } from '../models/media';
import { checkValue, NAME } from '../options';
import type { ChatMessage, Part } from '../session/session';
import type { Job } from './job';

export interface JobFile {
  /** The sha256 of the file's text, in hexadecimal. */
  readonly hash: string;
  readonly jobs: readonly Job[];
  /** The file and line of each job, by its id. */
  readonly places: ReadonlyMap<string, string>;
}

/** Largest file of jobs, in bytes: JavaScript holds no longer text. */
const MOST_BYTES = 500e6;

/** Fields of a line that are passed on as fields of the request; the engine checks their values. */
const SETTINGS = [
  ...['maxTokens', 'stop', 'temperature', 'topK', 'topP', 'repetitionPenalty', 'seed'],
  ...['logprobs', 'logitBias', 'format', 'sparsity'],
] as const;
const KEYS: readonly string[] = ['id', 'question', 'images', 'videos', 'system', 'messages', ...SETTINGS];

/**
 * Reads JSON lines `{"id", "question", "images": [paths], "videos": [paths], "system"}` or `{"id", "messages": [{"role", "content"}]}`, with the settings of
 * a request (`maxTokens`, `temperature`, `sparsity`, …) beside them. Without an id, a line has its number. Content is a text or a list of texts,
 * `{"image": path}` and `{"video": {"frames": [paths], "fps"}}` or `{"video": {"file": path}}`; paths are relative to the file, and data URLs are taken as they are.
 * @throws SparseVilaError `ERR_OPTION_INVALID` for no path; `ERR_JOBS`, naming the line
 */
export function readJobs(file: string): JobFile {
  checkValue('readJobs', 'file', file, NAME);
  const set = { what: 'JSON lines of jobs', code: 'ERR_JOBS', limit: MOST_BYTES } as const;
  const seen = new Map<string, string>();
  let number = 0;
  const { text, values } = readJsonLines(file, set, (line) => {
    number++;
    const job = jobOf(line, String(number), resolve(dirname(file)));
    const earlier = seen.get(job.id);
    if (earlier !== undefined) throw line.wrong(`an id that no other line has (${earlier} has it)`, received(job.id));
    seen.set(job.id, line.place);
    return job;
  });
  return { hash: createHash('sha256').update(text).digest('hex'), jobs: values, places: seen };
}

function jobOf(line: JsonLine, number: string, folder: string): Job {
  const fields = objectOf(line.json, 'a JSON object', line);
  const stray = Object.keys(fields).find((key) => !KEYS.includes(key));
  if (stray !== undefined) throw line.wrong(`only ${KEYS.join(', ')} as keys`, received(stray));
  const { id = number } = fields;
  if (typeof id !== 'string' || id === '') throw line.wrong('a text of at least one character for "id"', received(id));
  const settings = SETTINGS.flatMap((key) => (fields[key] === undefined ? [] : [[key, fields[key]] as const]));
  const request = { ...Object.fromEntries(settings), messages: messagesOf(fields, line, folder) };
  return { id, request: request as EngineRequest };
}

function messagesOf(fields: Readonly<Record<string, unknown>>, line: JsonLine, folder: string): ChatMessage[] {
  const { question, images = [], videos = [], system, messages } = fields;
  if (messages !== undefined) {
    const stray = ['question', 'images', 'videos', 'system'].find((key) => fields[key] !== undefined);
    if (stray !== undefined) throw line.wrong('either "messages" or "question"', `"messages" and "${stray}"`);
    if (!Array.isArray(messages)) throw line.wrong('a list for "messages"', received(messages));
    return messages.map((message) => messageOf(message, line, folder));
  }
  if (typeof question !== 'string') throw line.wrong('a text for "question"', received(question));
  if (!Array.isArray(images)) throw line.wrong('a list of paths for "images"', received(images));
  if (!Array.isArray(videos)) throw line.wrong('a list of paths for "videos"', received(videos));
  if (system !== undefined && typeof system !== 'string') throw line.wrong('a text for "system"', received(system));
  const media: Part[] = [
    ...images.map((image): Part => ({ kind: 'image', image: placeOf(image, line, folder) })),
    ...videos.map((file): Part => ({ kind: 'video', video: { file: placeOf(file, line, folder) } })),
  ];
  return [
    ...(system === undefined ? [] : [{ role: 'system', content: system } as const]),
    { role: 'user', content: [...media, question] },
  ];
}

function messageOf(message: unknown, line: JsonLine, folder: string): ChatMessage {
  const { role, content } = objectOf(message, '{"role", "content"} for each message', line);
  if (role !== 'system' && role !== 'user' && role !== 'assistant')
    throw line.wrong('"system", "user" or "assistant" for "role"', received(role));
  if (typeof content === 'string') return { role, content };
  if (!Array.isArray(content)) throw line.wrong('a text or a list for "content"', received(content));
  return { role, content: content.map((part) => (typeof part === 'string' ? part : mediumOf(part, line, folder))) };
}

function mediumOf(part: unknown, line: JsonLine, folder: string): MediaInput {
  const { image, video } = objectOf(part, 'a text, {"image": path} or {"video": {"frames", "fps"}}', line);
  if (image !== undefined) return { kind: 'image', image: placeOf(image, line, folder) };
  const { file, frames, ...rest } = objectOf(video, '{"frames": [paths], "fps"} or {"file": path} for "video"', line);
  if (file !== undefined) return { kind: 'video', video: { ...rest, file: placeOf(file, line, folder) } };
  if (!Array.isArray(frames)) throw line.wrong('a list of paths for "frames"', received(frames));
  return { kind: 'video', video: { ...rest, frames: frames.map((frame) => placeOf(frame, line, folder)) } };
}

/** A path relative to the file made absolute; URLs stay as they are. */
function placeOf(value: unknown, line: JsonLine, folder: string): string {
  if (typeof value !== 'string' || value === '') throw line.wrong('a path or a URL', received(value));
  return /^(data:|[a-z][a-z0-9+.-]*:\/\/)/i.test(value) ? value : resolve(folder, value);
}

function objectOf(value: unknown, expected: string, line: JsonLine): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw line.wrong(expected, received(value));
}
