// Splits added tokens (`<|im_end|>`, `<image>`) off a text before the rest is encoded; at each place the longest one wins.
// Source: tokenizers 0.23 (Rust) `added_vocabulary.rs`.
import type { TextRange } from './template';
import type { AddedToken } from './tokenizer_check';

/** A stretch of text without added tokens, or the id of one. */
export type Section = string | number;

export interface Splitter {
  /** Sections of `text`, none of them empty. Special tokens that overlap one of the `plain` ranges are text. */
  split(text: string, plain: readonly TextRange[]): Section[];
}

/** Tokens by their text, and for each first character the lengths of the tokens that begin with it, longest first. */
interface Dictionary {
  readonly tokens: ReadonlyMap<string, AddedToken>;
  readonly lengths: ReadonlyMap<string, readonly number[]>;
}

/** @param content maps a token to its form in the texts to be split: its own, or normalized */
export function splitter(added: readonly AddedToken[], content: (token: AddedToken) => string): Splitter {
  const tokens = new Map<string, AddedToken>();
  const found = new Map<string, Set<number>>();
  for (const token of added) {
    const text = content(token);
    if (text === '' || tokens.has(text)) continue;
    tokens.set(text, token);
    found.set(text.charAt(0), (found.get(text.charAt(0)) ?? new Set()).add(text.length));
  }
  const lengths = new Map([...found].map(([first, sizes]) => [first, [...sizes].sort((a, b) => b - a)]));
  return { split: (text, plain) => (tokens.size === 0 ? whole(text) : split({ tokens, lengths }, text, plain)) };
}

const whole = (text: string): Section[] => (text === '' ? [] : [text]);

function split(dictionary: Dictionary, text: string, plain: readonly TextRange[]): Section[] {
  const sections: Section[] = [];
  let start = 0;
  for (let at = 0; at < text.length; ) {
    const found = longest(dictionary, text, at, plain);
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
  { tokens, lengths }: Dictionary,
  text: string,
  at: number,
  plain: readonly TextRange[],
): { token: AddedToken; end: number } | undefined {
  for (const length of lengths.get(text.charAt(at)) ?? []) {
    const end = at + length;
    const token = end > text.length ? undefined : tokens.get(text.slice(at, end));
    if (token !== undefined && stands(token, text, at, end) && !(token.special && touches(plain, at, end)))
      return { token, end };
  }
  return undefined;
}

const touches = (ranges: readonly TextRange[], from: number, to: number): boolean =>
  ranges.some(({ begin, end }) => from < end && to > begin);

/** Whether a token that must be a word of its own has no letter or digit beside it. */
function stands({ singleWord }: AddedToken, text: string, begin: number, end: number): boolean {
  const isWord = (character: string): boolean => /[\p{L}\p{N}_]/u.test(character);
  return !singleWord || !(isWord(text.charAt(begin - 1)) || isWord(text.charAt(end)));
}

function afterSpaces(text: string, from: number): number {
  let at = from;
  while (at < text.length && /\s/.test(text.charAt(at))) at++;
  return at;
}
