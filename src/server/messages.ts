// Messages of chat completions as the engine's: an optional system message first, then user and assistant in turn.

import type { ChatMessage } from '../session/history';
import type { Part } from '../session/options';
import { type MediaSource, partsOf } from './content';
import { fieldsOf, missing, wrongType } from './fields';
import { invalidField, unsupportedField } from './request_error';

type Role = ChatMessage['role'];

/** A message whose parts can still grow. */
export interface GrowingMessage {
  readonly role: Role;
  readonly content: Part[];
}

const MOST_MESSAGES = 2000;
/** What separates texts of messages that are joined because the same role speaks twice. */
const SEPARATOR = '\n\n';

/** @throws RequestError */
export async function messagesOf(value: readonly unknown[], source: MediaSource): Promise<ChatMessage[]> {
  if (value.length === 0 || value.length > MOST_MESSAGES)
    throw wrongType('messages', `a list of 1 to ${MOST_MESSAGES} messages`, value);
  const messages: GrowingMessage[] = [];
  for (const [i, one] of value.entries()) {
    const path = `messages[${i}]`;
    const message = fieldsOf(one, path);
    message.only(
      ['role', 'content', 'name', 'refusal', 'audio', 'tool_calls', 'function_call', 'tool_call_id', 'annotations'],
      ['reasoning_content', 'reasoning'],
    );
    const role = roleOf(message.text('role', 64), path);
    for (const name of ['tool_calls', 'function_call', 'audio'])
      if (message.value(name) !== undefined && !isEmptyList(message.value(name)))
        throw unsupportedField(message.at(name), name === 'audio' ? 'audio' : 'tools');
    const content = message.value('content') ?? message.value('refusal');
    if (content === undefined) throw missing(message.at('content'));
    addMessage(messages, role, await partsOf(content, message.at('content'), source), path);
  }
  return finished(messages, 'messages');
}

/** Appends a message; joins it to the last one if the same role speaks again. @throws RequestError for a system message after another role */
export function addMessage(messages: GrowingMessage[], role: Role, parts: readonly Part[], path: string): void {
  const last = messages.at(-1);
  if (last?.role === role) {
    last.content.push(SEPARATOR);
    for (const part of parts) last.content.push(part);
    return;
  }
  if (role === 'system' && last !== undefined)
    throw invalidField(`${path}.role`, 'Expected system messages before all others, received one after them.');
  messages.push({ role, content: [...parts] });
}

/** @throws RequestError unless the first message after the system's and the last one are the user's */
export function finished(messages: readonly GrowingMessage[], path: string): ChatMessage[] {
  const first = messages.find(({ role }) => role !== 'system');
  if (first?.role === 'assistant')
    throw invalidField(path, 'Expected a user message before the first assistant message.');
  if (messages.at(-1)?.role !== 'user') throw invalidField(path, 'Expected a user message as the last one.');
  const hasMedia = messages.some(
    ({ role, content }) => role !== 'user' && content.some((part) => typeof part !== 'string'),
  );
  if (hasMedia) throw invalidField(path, 'Expected pictures and videos in user messages only.');
  return messages.map(({ role, content }) => ({ role, content: content.every(isText) ? content.join('') : content }));
}

const isText = (part: Part): part is string => typeof part === 'string';
const isEmptyList = (value: unknown): boolean => Array.isArray(value) && value.length === 0;

/** The engine's role of an OpenAI role. */
export function roleOf(role: string | undefined, path: string): Role {
  if (role === undefined) throw missing(`${path}.role`);
  if (role === 'developer') return 'system';
  if (role === 'system' || role === 'user' || role === 'assistant') return role;
  if (role === 'tool' || role === 'function') throw unsupportedField(`${path}.role`, 'tools');
  throw wrongType(`${path}.role`, `'system', 'developer', 'user' or 'assistant'`, role);
}
