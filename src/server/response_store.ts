// Responses that later ones may continue, in memory: the least recently used are forgotten when there are too many or too large ones.

import type { Part } from '../session/options';
import type { GrowingMessage } from './messages';
import { RequestError } from './request_error';

export interface ResponseStore {
  /** A copy of the messages up to a response and its answer; empty without an id. @throws RequestError for an unknown id */
  dialogue(id: string | undefined): GrowingMessage[];
  /** The response of an id. @throws RequestError 404 */
  response(id: string): object;
  remove(id: string): void;
  keep(id: string, response: object, dialogue: readonly GrowingMessage[], answer: string): void;
}

interface Stored {
  readonly response: object;
  readonly dialogue: readonly GrowingMessage[];
  /** Bytes of the whole conversation and of the response. Conversations share pictures, so that the sum is an upper bound. */
  readonly bytes: number;
}

export function responseStore(limits: {
  readonly storedBytes: number;
  readonly storedResponses: number;
}): ResponseStore {
  const stored = new Map<string, Stored>();
  let bytes = 0;
  const remove = (id: string): void => {
    bytes -= stored.get(id)?.bytes ?? 0;
    stored.delete(id);
  };
  const touched = (id: string): Stored | undefined => {
    const found = stored.get(id);
    if (found === undefined) return undefined;
    // The order of a map is that of insertion: the first is the least recently used one.
    stored.delete(id);
    stored.set(id, found);
    return found;
  };
  const unknown = (id: string, status: number, param: string | null): RequestError => {
    const message = `Previous response with id '${id.slice(0, 100)}' not found.`;
    return new RequestError(status, message, { code: 'previous_response_not_found', param });
  };
  return {
    remove,
    dialogue(id) {
      if (id === undefined) return [];
      const found = touched(id);
      if (found === undefined) throw unknown(id, 400, 'previous_response_id');
      return found.dialogue.map(({ role, content }) => ({ role, content: [...content] }));
    },
    response(id) {
      const found = touched(id);
      if (found === undefined) throw unknown(id, 404, null);
      return found.response;
    },
    keep(id, response, dialogue, answer) {
      const whole = [...dialogue, { role: 'assistant' as const, content: [answer] }];
      const spoken = whole.reduce((sum, { content }) => sum + content.reduce((all, part) => all + bytesOf(part), 0), 0);
      // The response repeats instructions and the schema of its format, and may hold log-probabilities and cells.
      const size = spoken + 2 * JSON.stringify(response).length;
      if (size > limits.storedBytes) return;
      stored.set(id, { response, dialogue: whole, bytes: size });
      bytes += size;
      while (bytes > limits.storedBytes || stored.size > limits.storedResponses)
        remove(stored.keys().next().value ?? '');
    },
  };
}

/** Bytes of a part besides its content. */
const PART_BYTES = 64;

function bytesOf(part: Part): number {
  return PART_BYTES + contentBytes(part);
}

function contentBytes(part: Part): number {
  if (typeof part === 'string') return 2 * part.length;
  const size = (input: unknown): number => (input instanceof Uint8Array ? input.byteLength : 0);
  if (part.kind === 'image') return size(part.image);
  if ('file' in part.video) return size(part.video.file);
  const { frames } = part.video;
  return Array.isArray(frames) ? frames.reduce((sum: number, frame: unknown) => sum + size(frame), 0) : 0;
}
