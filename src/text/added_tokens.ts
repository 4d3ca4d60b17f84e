// Added tokens (`<|im_end|>`, `<image>`) in a text: they are cut out of it before anything else is encoded, the longest at each place.
// Source: tokenizers 0.23 (Rust) `added_vocabulary.rs`.
import type { TextRange } from './template';
import type { AddedToken } from './tokenizer_check';

/** A stretch of text without added tokens, or the id of one. */
export type Section = string | number;

export interface Splitter {
  /** Sections of `text`, none of them empty. Special tokens that reach into one of the `plain` ranges are text. */
  split(text: string, plain: readonly TextRange[]): Section[];
}

interface Node {
  readonly next: Map<string, Node>;
  token?: AddedToken;
}

/** @param content of a token as it stands in the texts to be split: its own, or normalised */
export function splitter(tokens: readonly AddedToken[], content: (token: AddedToken) => string): Splitter {
  const root: Node = { next: new Map() };
  for (const token of tokens) {
    let node = root;
    for (const unit of content(token).split('')) {
      const next = node.next.get(unit) ?? { next: new Map<string, Node>() };
      node.next.set(unit, next);
      node = next;
    }
    if (node !== root) node.token ??= token;
  }
  return { split: (text, plain) => (tokens.length === 0 ? whole(text) : split(root, text, plain)) };
}

const whole = (text: string): Section[] => (text === '' ? [] : [text]);

function split(root: Node, text: string, plain: readonly TextRange[]): Section[] {
  const sections: Section[] = [];
  let start = 0;
  for (let at = 0; at < text.length; ) {
    const found = longest(root, text, at, plain);
    if (found === undefined) {
      at++;
      continue;
    }
    const { token, end } = found;
    let before = text.slice(start, at);
    if (token.lstrip) before = before.trimEnd();
    for (const section of [...whole(before), token.id]) sections.push(section);
    at = token.rstrip ? afterSpaces(text, end) : end;
    start = at;
  }
  for (const section of whole(text.slice(start))) sections.push(section);
  return sections;
}

function longest(
  root: Node,
  text: string,
  at: number,
  plain: readonly TextRange[],
): { token: AddedToken; end: number } | undefined {
  let best: { token: AddedToken; end: number } | undefined;
  let node: Node | undefined = root;
  for (let end = at; node !== undefined; end++) {
    const token: AddedToken | undefined = node.token;
    if (token !== undefined && stands(token, text, at, end) && !(token.special && touches(plain, at, end)))
      best = { token, end };
    node = end < text.length ? node.next.get(text.charAt(end)) : undefined;
  }
  return best;
}

const touches = (ranges: readonly TextRange[], from: number, to: number): boolean =>
  ranges.some(({ begin, end }) => from < end && to > begin);

/** A token that is a word of its own has no letter or digit beside it. */
function stands({ singleWord }: AddedToken, text: string, begin: number, end: number): boolean {
  const isWord = (character: string): boolean => /[\p{L}\p{N}_]/u.test(character);
  return !singleWord || !(isWord(text.charAt(begin - 1)) || isWord(text.charAt(end)));
}

function afterSpaces(text: string, from: number): number {
  let at = from;
  while (at < text.length && /\s/.test(text.charAt(at))) at++;
  return at;
}
