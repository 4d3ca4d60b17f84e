// Chat templates: rendering conversations, and cutting out the text that one turn adds, so that a session can append a turn to what its
// cache already holds. Knows no tokens and no images beyond what a template prints for them.
// Source: transformers `utils/chat_template_utils.py`; jinja.ts renders.
import { codeOf, SparseVilaError } from '../errors';
import type { Json } from '../json';
import { parseTemplate } from './jinja';
import { strip } from './strip';

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
  /** Whether the model's own code strips a message before it is templated, as VILA's does. */
  readonly strips: boolean;
  /**
   * The prompt text of a conversation, with the assistant's header at its end if `addGenerationPrompt`.
   * @throws SparseVilaError `ERR_TEMPLATE_INVALID` naming the file, with the template's own complaint (`raise_exception`).
   */
  render(messages: readonly Message[], options: { addGenerationPrompt: boolean }): string;
}

/** Characters `begin` to `end` (exclusive) of a text. */
export interface TextRange {
  readonly begin: number;
  readonly end: number;
}

/** What surrounds the user's words. A later turn's whole text is `endOfAnswer + next.before + words + next.after`. */
export interface TurnPieces {
  readonly first: { readonly before: string; readonly after: string };
  readonly next: { readonly before: string; readonly after: string };
  /** What closes an answer (`<|im_end|>\n`). Its first token, where special, is a stop token. */
  readonly endOfAnswer: string;
  /** True if the words lose white space at their ends, so that whoever joins pieces must strip them. */
  readonly trims: boolean;
  /** Where the caller's system text lies in `first.before`: text that has no control tokens, whatever it spells. */
  readonly system?: TextRange;
}

const WORDS = ['sparsevila-words-1', 'sparsevila-words-2', 'sparsevila-words-3'] as const;
const ANSWERS = ['sparsevila-answer-1', 'sparsevila-answer-2'] as const;
const SYSTEM = 'sparsevila-system';

/**
 * A template from its Jinja source. `file` serves messages; `variables` (`bos_token`, …) are visible in the template.
 * @throws SparseVilaError `ERR_TEMPLATE_INVALID` if it does not parse, or prints a user's words in neither form of content;
 *   `ERR_TEMPLATE_LIMIT` if it is too long or takes too much.
 */
export function chatTemplate(
  source: string,
  file: string,
  variables: Json = {},
  { strips = false }: { strips?: boolean } = {},
): ChatTemplate {
  const rendered = parseTemplate(source, file);
  const render: ChatTemplate['render'] = (messages, { addGenerationPrompt }) =>
    rendered({ ...variables, messages, add_generation_prompt: addGenerationPrompt });
  const takes = (['text', 'parts'] as const).find((form) => printsWords(render, form));
  if (takes === undefined) {
    render([{ role: 'user', content: WORDS[0] }], { addGenerationPrompt: true });
    throw new SparseVilaError(
      'ERR_TEMPLATE_INVALID',
      `${file}: expected the user's words in the rendered prompt, but they do not appear`,
    );
  }
  return { file, takes, strips, render };
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
 * The constant pieces around the user's words, verified on a conversation of three turns. The template is rendered with a stand-in for
 * the system text, so that the text can neither end the template's markup nor be taken for it.
 * @throws SparseVilaError `ERR_TEMPLATE_UNSTABLE` if turns are not made of constant pieces; `ERR_OPTION_INVALID` for a system text for
 *   which the template has no place.
 */
export function turnPieces(template: ChatTemplate, { system }: { system?: string } = {}): TurnPieces {
  if (system === undefined || system === '') return piecesWith(template, system);
  const pieces = piecesWith(template, SYSTEM);
  const { before, after } = pieces.first;
  const [start, rest, ...more] = before.split(SYSTEM);
  const others = [after, pieces.next.before, pieces.next.after, pieces.endOfAnswer];
  if (start === undefined || rest === undefined || more.length > 0 || others.some((text) => text.includes(SYSTEM))) {
    const where = [before, ...others].some((text) => text.includes(SYSTEM)) ? 'in other places' : 'nowhere';
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `${template.file}: expected a chat template that prints the system text once before the first question, but it prints it ${where}. ` +
        'Leave out the option "system", or put its text into the question.',
    );
  }
  const spaced = turnText(template, WORDS[0], { first: true, system: ` ${SYSTEM} ` });
  const text = spaced.includes(` ${SYSTEM} `) ? system : strip(system);
  const at = { begin: start.length, end: start.length + text.length };
  return { ...pieces, first: { before: start + text + rest, after }, system: at };
}

function piecesWith(template: ChatTemplate, system: string | undefined): TurnPieces {
  const options = system === undefined ? {} : { system };
  const first = split(template, turnText(template, WORDS[0], { ...options, first: true }), WORDS[0]);
  const later = split(template, turnText(template, WORDS[1], { ...options, first: false }), WORDS[1]);
  const prompt = first.before + WORDS[0] + first.after;
  const closed = template.render(conversation(template, system, [WORDS[0], ANSWERS[0]]), {
    addGenerationPrompt: false,
  });
  const endOfAnswer = commonPrefix(afterAnswer(template, prompt, closed), later.before);
  const turns = [WORDS[0], ANSWERS[0], WORDS[1], ANSWERS[1], WORDS[2]];
  const whole = template.render(conversation(template, system, turns), { addGenerationPrompt: true });
  const gap = whole.slice(prompt.length, whole.indexOf(ANSWERS[0]));
  const turn = (answer: string, words: string): string => gap + answer + later.before + words + later.after;
  if (whole !== prompt + turn(ANSWERS[0], WORDS[1]) + turn(ANSWERS[1], WORDS[2]))
    throw unstable(template, prompt, whole);
  const spaced = turnText(template, ` ${WORDS[0]} `, { ...options, first: true });
  const next = { before: later.before.slice(endOfAnswer.length), after: later.after };
  const trims = template.strips || spaced !== `${first.before} ${WORDS[0]} ${first.after}`;
  return { first, next, endOfAnswer, trims };
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
    if (codeOf(error) === 'ERR_TEMPLATE_INVALID') return false;
    throw error;
  }
}
