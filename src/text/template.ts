// Chat templates: rendering of conversations. Knows no tokens, and of images only what a template prints for them.
// Source: transformers `utils/chat_template_utils.py`; jinja.ts renders.
import { codeOf, SparseVilaError } from '../errors';
import type { Json } from '../json';
import { parseTemplate } from './jinja';

export type ContentPart = { readonly type: string; readonly text?: string } & Readonly<Record<string, unknown>>;
export type MessageContent = string | readonly ContentPart[];

export interface Message {
  readonly role: string;
  readonly content: MessageContent;
}

export interface ChatTemplate {
  /** The file or name from which the template came. */
  readonly file: string;
  /** Whether plain text is passed as a string or as `[{ type: 'text', text }]`; found by rendering both. */
  readonly takes: 'text' | 'parts';
  /** Whether the model's code strips a message before it is templated, as VILA's does. */
  readonly strips: boolean;
  /**
   * The prompt text of a conversation, with the assistant's header at its end if `addGenerationPrompt` is set.
   * @throws SparseVilaError `ERR_TEMPLATE_INVALID` naming the file, with the template's own message (`raise_exception`)
   */
  render(messages: readonly Message[], options: { addGenerationPrompt: boolean }): string;
}

/** Characters `begin` to `end` (exclusive) of a text. */
export interface TextRange {
  readonly begin: number;
  readonly end: number;
}

const WORDS = 'sparsevila-words';

/**
 * A template from its Jinja source. `file` is its name in messages; `variables` (`bos_token`, …) are visible in the template.
 * @throws SparseVilaError `ERR_TEMPLATE_INVALID` if it does not parse, or does not print a user's text in either form of content;
 *   `ERR_TEMPLATE_LIMIT` if it is too long or takes too much
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
    render([{ role: 'user', content: WORDS }], { addGenerationPrompt: true });
    throw new SparseVilaError(
      'ERR_TEMPLATE_INVALID',
      `${file}: expected the user's words in the rendered prompt, but they do not appear`,
    );
  }
  return { file, takes, strips, render };
}

function wrap(takes: ChatTemplate['takes'], text: string): MessageContent {
  return takes === 'text' ? text : [{ type: 'text', text }];
}

function printsWords(render: ChatTemplate['render'], takes: ChatTemplate['takes']): boolean {
  try {
    return render([{ role: 'user', content: wrap(takes, WORDS) }], { addGenerationPrompt: true }).includes(WORDS);
  } catch (error) {
    if (codeOf(error) === 'ERR_TEMPLATE_INVALID') return false;
    throw error;
  }
}
