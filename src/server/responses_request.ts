// The body of POST /v1/responses as a request for the engine.

import type { EngineRequest } from '../engine/types';
import type { ChatMessage } from '../session/history';
import { checkModel, type ServedModel, stopOf } from './chat_request';
import { type MediaSource, partsOf } from './content';
import { type Fields, fieldsOf, missing, wrongType } from './fields';
import { addMessage, finished, type GrowingMessage, roleOf } from './messages';
import { invalidField, unsupportedField } from './request_error';
import { EXTENSIONS, formatOf, given, IGNORED, REFUSED, refuse, samplingOf, sparsityOf } from './request_options';
import type { ResponseStore } from './response_store';

export interface ResponseRequest {
  readonly run: EngineRequest;
  readonly stream: boolean;
  readonly store: boolean;
  readonly hasLogprobs: boolean;
  /** The messages of the conversation so far, without instructions, which do not carry over. */
  readonly dialogue: readonly GrowingMessage[];
  /** Fields that the response repeats. */
  readonly shown: Readonly<Record<string, unknown>>;
}

const KNOWN = [
  ...['model', 'input', 'instructions', 'previous_response_id', 'max_output_tokens', 'temperature', 'top_p', 'text'],
  ...[
    'stream',
    'stream_options',
    'include',
    'top_logprobs',
    'truncation',
    'tool_choice',
    'reasoning',
    'seed',
    'stop',
    'background',
  ],
];
const OTHERS: Readonly<Record<string, string>> = {
  ...REFUSED,
  conversation: 'conversations; use previous_response_id',
  prompt: 'stored prompts',
  context_management: 'context management',
  max_tool_calls: 'tools',
};
const LOGPROBS = 'message.output_text.logprobs';

/** @throws RequestError */
export async function responseRequest(
  value: unknown,
  model: ServedModel,
  source: MediaSource,
  store: ResponseStore,
): Promise<ResponseRequest> {
  const body = fieldsOf(value);
  body.only(KNOWN, IGNORED, EXTENSIONS, Object.keys(OTHERS));
  checkModel(body, model.name);
  refuse(body, OTHERS);
  checkUnsupported(body);
  const { limits, sparsity } = source.options;
  const include = body.list('include', 32) ?? [];
  const hasLogprobs = include.includes(LOGPROBS);
  const maxTokens = body.integer('max_output_tokens', 1, 2 ** 31);
  const instructions = body.text('instructions');
  const previous = body.text('previous_response_id', 100);
  const text = body.object('text');
  text?.only(['format', 'verbosity']);
  const metadata = metadataOf(body);
  const request: Omit<EngineRequest, 'messages'> = {
    ...samplingOf(body),
    sparsity: sparsityOf(body, sparsity),
    maxTokens: Math.min(maxTokens ?? model.maxNewTokens, limits.tokens),
    ...given({
      stop: stopOf(body),
      logprobs: hasLogprobs ? (body.integer('top_logprobs', 0, 20) ?? 0) : undefined,
      format: formatOf(text?.object('format')),
      cells: body.flag('cells'),
    }),
  };
  const dialogue = store.dialogue(previous);
  await addInput(dialogue, body, source);
  return {
    run: { ...request, messages: withInstructions(dialogue, instructions) },
    ...{ stream: body.flag('stream') ?? false, store: body.flag('store') ?? true, hasLogprobs, dialogue },
    shown: {
      ...{ instructions: instructions ?? null, max_output_tokens: maxTokens ?? null },
      ...{ previous_response_id: previous ?? null, metadata },
      ...{ temperature: body.value('temperature') ?? null, top_p: body.value('top_p') ?? null },
      // Without a schema nothing but the type has an effect.
      text: {
        format:
          request.format?.type === 'schema' ? text?.value('format') : { type: request.format ? 'json_object' : 'text' },
      },
    },
  };
}

const [MOST_METADATA, NAME_LENGTH, VALUE_LENGTH] = [16, 64, 512];

/** Metadata that a response repeats, within the limits of OpenAI's API. */
function metadataOf(body: Fields): Readonly<Record<string, string>> {
  const metadata = body.object('metadata');
  const names = metadata?.names() ?? [];
  if (metadata === undefined) return {};
  if (names.length > MOST_METADATA || names.some((name) => name.length > NAME_LENGTH))
    throw wrongType('metadata', `at most ${MOST_METADATA} names of at most ${NAME_LENGTH} characters`, names);
  return Object.fromEntries(names.map((name) => [name, metadata.text(name, VALUE_LENGTH) ?? '']));
}

function checkUnsupported(body: Fields): void {
  if (body.value('background') === true) throw unsupportedField('background', 'background responses');
  if (body.value('truncation') !== undefined && body.oneOf('truncation', ['disabled', 'auto']) === 'auto')
    throw unsupportedField('truncation', "'auto', which would leave out messages");
  const effort = body.object('reasoning')?.value('effort');
  if (effort !== undefined && effort !== 'none') throw unsupportedField('reasoning', 'reasoning effort');
}

/** Appends the new messages: a text of the user, or a list of messages. */
async function addInput(dialogue: GrowingMessage[], body: Fields, source: MediaSource): Promise<void> {
  const input = body.value('input');
  if (input === undefined) throw missing('input');
  if (typeof input === 'string') return addMessage(dialogue, 'user', [input], 'input');
  if (!Array.isArray(input)) throw wrongType('input', 'a string or a list of messages', input);
  for (const [i, value] of input.entries()) {
    const path = `input[${i}]`;
    const item = fieldsOf(value, path);
    const type = item.text('type', 64) ?? 'message';
    if (type !== 'message') throw unsupportedField(`${path}.type`, `items of type '${type}'`);
    item.only(['type', 'role', 'content', 'id', 'status', 'phase']);
    const content = item.value('content');
    if (content === undefined) throw missing(item.at('content'));
    addMessage(dialogue, roleOf(item.text('role', 64), path), await partsOf(content, item.at('content'), source), path);
  }
}

function withInstructions(dialogue: readonly GrowingMessage[], instructions: string | undefined): ChatMessage[] {
  if (instructions === undefined) return finished(dialogue, 'input');
  if (dialogue[0]?.role === 'system')
    throw invalidField('instructions', "Expected either 'instructions' or a system message in 'input', received both.");
  return finished([{ role: 'system', content: [instructions] }, ...dialogue], 'input');
}
