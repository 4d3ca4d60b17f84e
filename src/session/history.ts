// Messages of a conversation that was held elsewhere: their validation, and a session's state after `open`.

import { received, SparseVilaError } from '../errors';
import type { MessagePart, Turn } from '../models/transcript';
import { invalidOption, listIn, OBJECT } from '../options';
import { append, type Conversation, commit } from './conversation';
import type { MediaContext } from './encoded_media';
import { prepareMedia } from './media';
import { type Part, questionOf } from './options';

/** One message: text, or text with images and videos in their order. */
export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string | readonly Part[];
}

/** A checked copy of a message, which later changes by the caller do not affect. */
export interface CheckedMessage {
  readonly role: ChatMessage['role'];
  readonly parts: readonly Part[];
}

/**
 * Checks and copies messages: an optional system message first, then user and assistant alternate, and the last message is an answer.
 * @throws SparseVilaError `ERR_OPTION_INVALID`; `ERR_QUESTION` for content that is neither text nor parts
 */
export function checkMessages(messages: unknown): CheckedMessage[] {
  const checked = checkDialogue('open', messages);
  if (checked.at(-1)?.role !== 'user') return checked;
  throw new SparseVilaError(
    'ERR_OPTION_INVALID',
    'Expected messages for open that end with an answer, received a question at their end. Give that question to ask().',
  );
}

/**
 * Checks and copies messages: an optional system message first, then user and assistant alternate.
 * @param what the function they are given to
 * @throws SparseVilaError `ERR_OPTION_INVALID`; `ERR_QUESTION` for content that is neither text nor parts
 */
export function checkDialogue(what: string, messages: unknown): CheckedMessage[] {
  const list = listIn(messages);
  if (list === undefined) throw invalidOption(what, 'a list of messages', received(messages));
  const checked = list.map((message, i) => checkMessage(what, message, i));
  const dialogue = checked[0]?.role === 'system' ? checked.slice(1) : checked;
  const misplaced = dialogue.findIndex(({ role }, i) => role !== (i % 2 === 0 ? 'user' : 'assistant'));
  if (misplaced < 0) return checked;
  throw invalidOption(
    what,
    'user and assistant in turn, after a system message or none,',
    `${dialogue[misplaced]?.role} for message ${misplaced + checked.length - dialogue.length}`,
  );
}

/** Reads each field once, because a getter may return something else the second time. */
function checkMessage(what: string, message: unknown, i: number): CheckedMessage {
  const { role, content } = fieldsOf(message);
  if (role === 'system' || role === 'user' || role === 'assistant')
    return { role, parts: questionOf(content, {}).parts };
  const expected = `{ role: 'system', 'user' or 'assistant', content } for message ${i}`;
  throw invalidOption(what, expected, received(role ?? message));
}

function fieldsOf(message: unknown): { role?: unknown; content?: unknown } {
  try {
    if (!OBJECT.accepts(message)) return {};
    const { role, content } = message as { role?: unknown; content?: unknown };
    return { role, content };
  } catch {
    // The getter of a field threw.
    return {};
  }
}

/** Replaces the messages of a conversation. Pictures are decoded now; the next turn prefills what the cache does not hold. */
export async function openHistory(
  context: MediaContext & { readonly conversation: Conversation },
  system: string | undefined,
  messages: readonly CheckedMessage[],
): Promise<void> {
  const { conversation, pace, signal } = context;
  signal?.throwIfAborted();
  const opening: Turn[] =
    system === undefined || messages[0]?.role === 'system' ? [] : [{ role: 'system', parts: [system] }];
  const turns = [...opening];
  const media: Conversation['media'] = [];
  for (const { role, parts } of messages) {
    const inputs = parts.filter((part) => typeof part !== 'string');
    const prepared = await prepareMedia(context, inputs);
    const first = conversation.media.length + media.length;
    append(
      media,
      prepared.map((medium) => ({ prepared: medium, first })),
    );
    let next = first;
    turns.push({
      role,
      parts: parts.map((part): MessagePart => (typeof part === 'string' ? part : { medium: next++, kind: part.kind })),
    });
    await pace();
  }
  append(conversation.media, media);
  conversation.script = { turns, open: [], text: '', pending: [] };
  commit(conversation);
}
