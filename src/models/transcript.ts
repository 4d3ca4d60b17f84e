// The text of a conversation as its chat template renders it: messages with their media, markers for visual rows, and the ranges that users
// and the model wrote, in which control tokens have no effect. Knows no ids, no cache and no tensors.

import { SparseVilaError } from '../errors';
import { strip, stripEnd } from '../text/strip';
import type { ChatTemplate, ContentPart, Message, TextRange } from '../text/template';
import type { Tokenizer } from '../text/tokenizer';
import { MARKER, type MediaInput } from './media';

/** A part of a message: text, or a medium by its index in the conversation; an image unless its kind is given. */
export type MessagePart = string | { readonly medium: number; readonly kind?: MediaInput['kind'] };

export interface Turn {
  readonly role: 'system' | 'user' | 'assistant';
  readonly parts: readonly MessagePart[];
}

/** A rendered conversation. Each run of visual rows is one MARKER. */
export interface Transcript {
  readonly text: string;
  /** Ranges of user's and model's text that spell special tokens, which are ordinary text there. */
  readonly plain: readonly TextRange[];
}

/** The parts of a model that rendering needs. */
export interface Renderer {
  readonly template: ChatTemplate;
  readonly marker: { readonly text: string };
  /** The text that the template prints for an image part; absent: the marker. */
  readonly imagePlaceholder?: string | undefined;
  /** The text that it prints for a video part; absent: the template receives videos as images. */
  readonly videoPlaceholder?: string | undefined;
  readonly tokenizer: Pick<Tokenizer, 'decode' | 'isSpecial' | 'vocabSize'>;
}

/** Unicode noncharacters that enclose a message's text: a template passes them on, and real text does not contain them. */
const [BEGIN, END] = ['\uFDD0', '\uFDD1'] as const;

/**
 * Renders turns, followed by the assistant's header if `answers` is set.
 * @param layouts the text that replaces each medium, with one MARKER per run
 * @throws SparseVilaError `ERR_TEMPLATE_INVALID` for a template that omits or repeats media; `ERR_QUESTION` for text that the template changes
 *   and that spells something the template itself prints
 */
export function transcript(
  renderer: Renderer,
  turns: readonly Turn[],
  layouts: (medium: number) => string,
  { answers = true }: { answers?: boolean } = {},
): Transcript {
  const { template } = renderer;
  const render = (enclose: (text: string) => string): string =>
    template.render(
      turns.map((turn) => messageOf(renderer, turn, enclose)),
      { addGenerationPrompt: answers },
    );
  const media = turns.flatMap(({ parts }) => parts.flatMap((part) => (typeof part === 'string' ? [] : [part.medium])));
  const text = render((words) => words);
  const isSpelled = turns.some(({ parts }) =>
    parts.some((part) => typeof part === 'string' && spellsMarkup(renderer, part)),
  );
  const plain = isSpelled ? rangesOf(render(enclosed), text) : [];
  return expand(renderer, { text, plain }, media.map(layouts));
}

/** What the template prints for an image. */
const printedImage = ({ marker, imagePlaceholder }: Pick<Renderer, 'marker' | 'imagePlaceholder'>): string =>
  imagePlaceholder ?? marker.text;

const MARKUP = new WeakMap<object, readonly string[]>();

/** Whether a text spells the marker or a special token. */
function spellsMarkup(renderer: Renderer, text: string): boolean {
  const { tokenizer, videoPlaceholder = MARKER } = renderer;
  let markup = MARKUP.get(tokenizer);
  if (markup === undefined) {
    const ids = Array.from({ length: tokenizer.vocabSize }, (_, id) => id).filter((id) => tokenizer.isSpecial(id));
    const spelled = ids.map((id) => tokenizer.decode([id], { skipSpecial: false })).filter((token) => token !== '');
    markup = [printedImage(renderer), videoPlaceholder, MARKER, ...spelled];
    MARKUP.set(tokenizer, markup);
  }
  return markup.some((token) => text.includes(token));
}

/** Puts the text between BEGIN and END, with white space at its ends outside, where a template may trim it. */
function enclosed(words: string): string {
  const core = strip(words);
  if (core === '') return words;
  const at = words.indexOf(core);
  return words.slice(0, at) + BEGIN + core + END + words.slice(at + core.length);
}

function messageOf(renderer: Renderer, { role, parts }: Turn, enclose: (text: string) => string): Message {
  const { template, videoPlaceholder } = renderer;
  const own: MessagePart[] = template.strips ? stripped(parts) : [...parts];
  const hasMedia = parts.some((part) => typeof part !== 'string');
  if ((hasMedia || template.takes === 'parts') && printsImages(template, printedImage(renderer))) {
    const content = own.map((part): ContentPart => {
      if (typeof part === 'string') return { type: 'text', text: enclose(part) };
      if (videoPlaceholder === undefined || part.kind !== 'video') return { type: 'image' };
      return printsVideos(template, videoPlaceholder) ? { type: 'video' } : { type: 'text', text: videoPlaceholder };
    });
    return { role, content };
  }
  const text = own.map((part) => (typeof part === 'string' ? enclose(part) : MARKER)).join('');
  return { role, content: template.takes === 'text' ? text : [{ type: 'text', text }] };
}

/** Strips a message as VILA does: its end, and its start unless that is a medium. */
function stripped(parts: readonly MessagePart[]): MessagePart[] {
  return parts.map((part, i) => {
    if (typeof part !== 'string') return part;
    const first = i === 0 ? stripStart(part) : part;
    return i === parts.length - 1 ? stripEnd(first) : first;
  });
}

function stripStart(text: string): string {
  const core = strip(text);
  return core === '' ? '' : text.slice(text.indexOf(core));
}

const PRINTS = new WeakMap<ChatTemplate, boolean>();

/**
 * Whether a template prints the marker for an image part and the text beside it; tested once by rendering.
 * @throws SparseVilaError `ERR_CONFIG_INVALID` for a template that prints something else for an image
 */
function printsImages(template: ChatTemplate, marker: string): boolean {
  let prints = PRINTS.get(template);
  if (prints === undefined) {
    prints = tryParts(template, marker);
    PRINTS.set(template, prints);
  }
  return prints;
}

function tryParts(template: ChatTemplate, marker: string): boolean {
  const words = { type: 'text', text: 'sparsevila-words' } as const;
  const render = (content: ContentPart[]): string =>
    template.render([{ role: 'user', content }], { addGenerationPrompt: true });
  try {
    const text = render([{ type: 'image' }, words]);
    const takesParts = text.includes(words.text) && !/['"]type['"]/.test(text);
    if (takesParts && !text.includes(marker) && text.length > render([words]).length)
      throw otherMarker(template, marker, text);
    return takesParts && text.includes(marker);
  } catch (error) {
    if (error instanceof SparseVilaError && error.code === 'ERR_TEMPLATE_INVALID') return false;
    throw error;
  }
}

const PRINTS_VIDEOS = new WeakMap<ChatTemplate, boolean>();

/** Whether a template prints the placeholder for a video part. The templates published with SmolVLM2 print nothing, and receive it as text. */
function printsVideos(template: ChatTemplate, placeholder: string): boolean {
  const known = PRINTS_VIDEOS.get(template);
  if (known !== undefined) return known;
  const content: ContentPart[] = [{ type: 'video' }, { type: 'text', text: 'sparsevila-words' }];
  const prints = template.render([{ role: 'user', content }], { addGenerationPrompt: true }).includes(placeholder);
  PRINTS_VIDEOS.set(template, prints);
  return prints;
}

/** The config's image token is not the one that the template prints: pictures would lie at the wrong places. */
function otherMarker({ file }: ChatTemplate, marker: string, text: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_CONFIG_INVALID',
    `${file}: expected a chat template that prints the config's image token ${JSON.stringify(marker)} for an image, but a message with an image ` +
      `is printed as ${JSON.stringify(text)}. Check image_token_id (or image_token_index) of config.json.`,
  );
}

/** The ranges of enclosed texts after removing their enclosures; empty if the template changed an enclosure. */
function rangesOf(marked: string, text: string): TextRange[] {
  const plain: TextRange[] = [];
  let [at, begin] = [0, -1];
  for (const piece of marked.split(/([\uFDD0\uFDD1])/)) {
    if (piece === BEGIN) begin = at;
    else if (piece === END) {
      if (begin >= 0) plain.push({ begin, end: at });
      begin = -1;
    } else at += piece.length;
  }
  return marked.replace(/[\uFDD0\uFDD1]/g, '') === text ? plain : [];
}

/** Replaces the template's output for each medium by the medium's own text. */
function expand(renderer: Renderer, { text, plain }: Transcript, layouts: readonly string[]): Transcript {
  const isWritten = (at: number): boolean => plain.some(({ begin, end }) => at >= begin && at < end);
  const places: { at: number; length: number }[] = [];
  const { videoPlaceholder = MARKER } = renderer;
  for (const printed of new Set([printedImage(renderer), videoPlaceholder, MARKER]))
    for (let at = text.indexOf(printed); at >= 0; at = text.indexOf(printed, at + printed.length))
      if (!isWritten(at)) places.push({ at, length: printed.length });
  places.sort((a, b) => a.at - b.at);
  if (places.length !== layouts.length) throw misplaced(renderer, places.length, layouts.length);
  let [from, shift] = [0, 0];
  const pieces: string[] = [];
  const shifts: { at: number; shift: number }[] = [];
  for (const [i, { at, length }] of places.entries()) {
    const layout = layouts[i] as string;
    pieces.push(text.slice(from, at), layout);
    from = at + length;
    shift += layout.length - length;
    shifts.push({ at: from, shift });
  }
  const moved = (at: number): number => at + (shifts.findLast((one) => one.at <= at)?.shift ?? 0);
  return {
    text: pieces.join('') + text.slice(from),
    plain: plain.map(({ begin, end }) => ({ begin: moved(begin), end: moved(end) })),
  };
}

function misplaced(renderer: Renderer, found: number, given: number): SparseVilaError {
  const { template } = renderer;
  const printed = JSON.stringify(printedImage(renderer));
  return new SparseVilaError(
    'ERR_TEMPLATE_INVALID',
    `${template.file}: expected a chat template that prints one image marker ${printed} for each of ${given} images, found ${found} in the rendered prompt.`,
  );
}

const PROBE = { question: 'sparsevila-words-1', answer: 'sparsevila-answer-1', next: 'sparsevila-words-2' };

/**
 * The text that a template prints after an answer, before the next turn begins (`<|im_end|>\n`). Its first token, if special, is a stop token.
 * Empty for a template that prints nothing there, or that does not print answers verbatim.
 */
export function endOfAnswer(renderer: Renderer): string {
  const answered: Turn[] = [
    { role: 'user', parts: [PROBE.question] },
    { role: 'assistant', parts: [PROBE.answer] },
  ];
  const none = (): string => MARKER;
  const closed = transcript(renderer, answered, none, { answers: false }).text;
  const later = transcript(renderer, [...answered, { role: 'user', parts: [PROBE.next] }], none).text;
  const rest = (text: string): string => {
    const at = text.indexOf(PROBE.answer);
    return at < 0 ? '' : text.slice(at + PROBE.answer.length);
  };
  return commonPrefix(rest(closed), rest(later).split(PROBE.next)[0] ?? '');
}

/** The longest common prefix. */
export function commonPrefix(a: string, b: string): string {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return a.slice(0, length);
}

/**
 * Requires that a template prints a system message once, before the first question.
 * @throws SparseVilaError `ERR_OPTION_INVALID`
 */
export function checkSystem(renderer: Renderer, system: string): void {
  if (system === '') return;
  const { template } = renderer;
  const turns: Turn[] = [
    { role: 'system', parts: ['sparsevila-system'] },
    { role: 'user', parts: [PROBE.question] },
  ];
  const parts = transcript(renderer, turns, () => MARKER).text.split('sparsevila-system');
  if (parts.length === 2 && !parts[0]?.includes(PROBE.question)) return;
  throw new SparseVilaError(
    'ERR_OPTION_INVALID',
    `${template.file}: expected a chat template that prints the system text once before the first question, but it prints it ` +
      `${parts.length === 1 ? 'nowhere' : 'in other places'}. Leave out the option "system", or put its text into the question.`,
  );
}
