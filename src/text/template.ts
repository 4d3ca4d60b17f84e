// Chat templates: finding a checkpoint's Jinja template, rendering conversations, and cutting out the text that one turn adds, so that a
// session can append a turn to what its cache already holds. Knows no tokens and no images beyond what a template prints for them.
// Source: transformers `utils/chat_template_utils.py` (environment, search order); @huggingface/jinja renders.
import { join } from 'node:path';
import { SparseVilaError } from '../errors';
import { isPresent, readTextFile } from '../files';
import { configReader, type Json, readJson } from '../json';

export type ContentPart = { readonly type: string; readonly text?: string } & Readonly<Record<string, unknown>>;
export type MessageContent = string | readonly ContentPart[];

export interface Message {
  readonly role: string;
  readonly content: MessageContent;
}

export interface ChatTemplate {
  /** Where the template came from. */
  readonly file: string;
  /** Whether plain text is passed as a string or as `[{ type: 'text', text }]`; found by trying. */
  readonly takes: 'text' | 'parts';
  /**
   * The prompt text of a conversation, with the assistant's header at its end if `addGenerationPrompt`.
   * @throws SparseVilaError `ERR_TEMPLATE_INVALID` naming the file, with the template's own complaint (`raise_exception`).
   */
  render(messages: readonly Message[], options: { addGenerationPrompt: boolean }): string;
}

/** What surrounds the user's words. A later turn's whole text is `endOfAnswer + next.before + words + next.after`. */
export interface TurnPieces {
  readonly first: { readonly before: string; readonly after: string };
  readonly next: { readonly before: string; readonly after: string };
  /** What closes an answer (`<|im_end|>\n`). Its first token, where special, is a stop token. */
  readonly endOfAnswer: string;
  /** True if the template trims the words, so that whoever joins pieces must, too. */
  readonly trims: boolean;
}

interface JinjaTemplate {
  render(variables: Json): string;
}
// The package's own declarations cannot be imported from CommonJS.
const jinja = require('@huggingface/jinja') as { Template: new (source: string) => JinjaTemplate };

/** The most bytes of a template file: published ones have at most 20 kB. */
const JINJA = { what: 'a Jinja template', limit: 2 ** 20 } as const;

const WORDS = ['sparsevila-words-1', 'sparsevila-words-2', 'sparsevila-words-3'] as const;
const ANSWERS = ['sparsevila-answer-1', 'sparsevila-answer-2'] as const;

/**
 * The chat template of a folder, looked for in `chat_template.jinja`, `chat_template.json`, `tokenizer_config.json`, `processor_config.json`.
 * Special tokens (`bos_token`, `eos_token`, …) come from `tokenizer_config.json` and `special_tokens_map.json`.
 * @throws SparseVilaError `ERR_TEMPLATE_MISSING` with the places looked at, `ERR_TEMPLATE_INVALID` or `ERR_CONFIG_INVALID` naming the file.
 */
export function loadChatTemplate(folder: string): ChatTemplate {
  const tokens = specialTokens(folder);
  const jinjaFile = join(folder, 'chat_template.jinja');
  if (isPresent(jinjaFile)) return chatTemplate(readTextFile(jinjaFile, JINJA), jinjaFile, tokens);
  const places = ['chat_template.json', 'tokenizer_config.json', 'processor_config.json'];
  for (const file of places.map((name) => join(folder, name)).filter(isPresent)) {
    const source = templateIn(readJson(file), file);
    if (source !== undefined) return chatTemplate(source, file, tokens);
  }
  throw new SparseVilaError(
    'ERR_TEMPLATE_MISSING',
    `${folder}: expected a chat template in chat_template.jinja or under "chat_template" of ${places.join(', ')}, found none. ` +
      'Copy chat_template.jinja from the original model, or give a template.',
  );
}

/**
 * A template from its Jinja source. `file` serves messages; `variables` (`bos_token`, …) are visible in the template.
 * @throws SparseVilaError `ERR_TEMPLATE_INVALID` if it does not parse, or prints a user's words in neither form of content.
 */
export function chatTemplate(source: string, file: string, variables: Json = {}): ChatTemplate {
  const parsed = attempt(file, () => new jinja.Template(source));
  const render: ChatTemplate['render'] = (messages, { addGenerationPrompt }) =>
    attempt(file, () => parsed.render({ ...variables, messages, add_generation_prompt: addGenerationPrompt }));
  const takes = (['text', 'parts'] as const).find((form) => printsWords(render, form));
  if (takes === undefined) {
    render([{ role: 'user', content: WORDS[0] }], { addGenerationPrompt: true });
    throw new SparseVilaError(
      'ERR_TEMPLATE_INVALID',
      `${file}: expected the user's words in the rendered prompt, but they do not appear`,
    );
  }
  return { file, takes, render };
}

/**
 * The exact text that a user's turn appends to the conversation, up to and including the assistant's header. For a later turn it starts with what
 * closes the previous answer. `content` may hold image parts; `system` text belongs to every turn of the conversation alike.
 * @throws SparseVilaError `ERR_TEMPLATE_UNSTABLE` if the template rewrites earlier turns, so that a cache cannot be continued.
 */
export function turnText(
  template: ChatTemplate,
  content: MessageContent,
  options: { first: boolean; system?: string },
): string {
  const opening = conversation(template, options.system, [WORDS[0]]);
  const now: Message = { role: 'user', content: typeof content === 'string' ? wrap(template.takes, content) : content };
  if (options.first) return template.render([...opening.slice(0, -1), now], { addGenerationPrompt: true });
  const answer: Message = { role: 'assistant', content: wrap(template.takes, ANSWERS[0]) };
  const prompt = template.render(opening, { addGenerationPrompt: true });
  return afterAnswer(template, prompt, template.render([...opening, answer, now], { addGenerationPrompt: true }));
}

/**
 * The constant pieces around the user's words, verified on a conversation of three turns.
 * @throws SparseVilaError `ERR_TEMPLATE_UNSTABLE` if turns are not made of constant pieces.
 */
export function turnPieces(template: ChatTemplate, options: { system?: string } = {}): TurnPieces {
  const first = split(template, turnText(template, WORDS[0], { ...options, first: true }), WORDS[0]);
  const later = split(template, turnText(template, WORDS[1], { ...options, first: false }), WORDS[1]);
  const prompt = first.before + WORDS[0] + first.after;
  const closed = template.render(conversation(template, options.system, [WORDS[0], ANSWERS[0]]), {
    addGenerationPrompt: false,
  });
  const endOfAnswer = commonPrefix(afterAnswer(template, prompt, closed), later.before);
  const turns = [WORDS[0], ANSWERS[0], WORDS[1], ANSWERS[1], WORDS[2]];
  const whole = template.render(conversation(template, options.system, turns), { addGenerationPrompt: true });
  const gap = whole.slice(prompt.length, whole.indexOf(ANSWERS[0]));
  const turn = (answer: string, words: string): string => gap + answer + later.before + words + later.after;
  if (whole !== prompt + turn(ANSWERS[0], WORDS[1]) + turn(ANSWERS[1], WORDS[2]))
    throw unstable(template, prompt, whole);
  const spaced = turnText(template, ` ${WORDS[0]} `, { ...options, first: true });
  const next = { before: later.before.slice(endOfAnswer.length), after: later.after };
  return { first, next, endOfAnswer, trims: spaced !== `${first.before} ${WORDS[0]} ${first.after}` };
}

/** Texts in turn: user, assistant, user, …, after the system text if there is one. */
function conversation(template: ChatTemplate, system: string | undefined, texts: readonly string[]): Message[] {
  const said = texts.map((text, i) => ({
    role: i % 2 === 0 ? 'user' : 'assistant',
    content: wrap(template.takes, text),
  }));
  return system === undefined ? said : [{ role: 'system', content: wrap(template.takes, system) }, ...said];
}

function wrap(takes: ChatTemplate['takes'], text: string): MessageContent {
  return takes === 'text' ? text : [{ type: 'text', text }];
}

/**
 * What follows the first answer in `text`, which must continue `prompt`. White space between header and answer is allowed: some templates
 * print "ASSISTANT:" as header and "ASSISTANT: answer" in the history, the space being part of the first generated token.
 */
function afterAnswer(template: ChatTemplate, prompt: string, text: string): string {
  const at = text.indexOf(ANSWERS[0]);
  if (!text.startsWith(prompt) || at < 0 || text.slice(prompt.length, at).trim() !== '')
    throw unstable(template, prompt, text);
  return text.slice(at + ANSWERS[0].length);
}

function split(template: ChatTemplate, text: string, words: string): { before: string; after: string } {
  const [before, after, ...more] = text.split(words);
  if (before === undefined || after === undefined || more.length > 0) throw unstable(template, words, text);
  return { before, after };
}

function commonPrefix(a: string, b: string): string {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return a.slice(0, length);
}

function unstable(template: ChatTemplate, before: string, after: string): SparseVilaError {
  const same = commonPrefix(before, after).length;
  const excerpt = (text: string): string => JSON.stringify(text.slice(Math.max(0, same - 20), same + 40));
  return new SparseVilaError(
    'ERR_TEMPLATE_UNSTABLE',
    `${template.file}: expected a later turn to continue the earlier text, but the template renders ${excerpt(before)} and then ` +
      `${excerpt(after)}. Such a conversation cannot continue from its cache; start a new session for each turn.`,
  );
}

function printsWords(render: ChatTemplate['render'], takes: ChatTemplate['takes']): boolean {
  try {
    return render([{ role: 'user', content: wrap(takes, WORDS[0]) }], { addGenerationPrompt: true }).includes(WORDS[0]);
  } catch (error) {
    if (error instanceof SparseVilaError) return false;
    throw error;
  }
}

function attempt<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new SparseVilaError('ERR_TEMPLATE_INVALID', `${file}: the chat template failed: ${message}`, { cause });
  }
}

/** `chat_template` is the source, or a list of named ones of which "default" is taken. */
function templateIn(json: Json, file: string): string | undefined {
  const found = json.chat_template ?? undefined;
  if (found === undefined || typeof found === 'string') return found;
  const named = (Array.isArray(found) ? found : []) as readonly (Json | null)[];
  const source = (named.find((entry) => entry?.name === 'default') ?? (named.length === 1 ? named[0] : null))?.template;
  if (typeof source === 'string') return source;
  throw configReader(json, file).wrong('chat_template', 'a string, or a list with a template named "default"');
}

/** `*_token` entries: strings, or objects with the string under `content`. */
function specialTokens(folder: string): Json {
  const tokens: Json = {};
  for (const file of ['special_tokens_map.json', 'tokenizer_config.json']
    .map((name) => join(folder, name))
    .filter(isPresent)) {
    for (const [key, value] of Object.entries(readJson(file))) {
      const text = typeof value === 'object' && value !== null && 'content' in value ? value.content : value;
      if (key.endsWith('_token') && typeof text === 'string') tokens[key] = text;
    }
  }
  return tokens;
}
