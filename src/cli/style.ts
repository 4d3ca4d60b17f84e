// Terminal output: colors if the terminal supports them, text without control characters, and its stream: answers and results go to stdout;
// notes go to the terminal, or to stderr if a program reads stdout. Respects NO_COLOR.

import { styleText } from 'node:util';

export type Format = Parameters<typeof styleText>[0];
export type Style = (format: Format, text: string) => string;

/** Columns if the output is not a terminal; tables and help are made for this width. */
const DEFAULT_COLUMNS = 80;

/** Columns of the terminal, at least 20. */
export function columns(stream: NodeJS.WriteStream = process.stdout): number {
  return Math.max(20, stream.columns || DEFAULT_COLUMNS);
}

/** A function that styles text for `stream`: unchanged unless it is a terminal with colors (not with NO_COLOR or TERM=dumb). */
export function styleFor(stream: NodeJS.WriteStream): Style {
  const colors = stream.isTTY === true && stream.hasColors();
  return (format, text) => (colors ? styleText(format, text) : text);
}

/** Control characters other than tab and line feed, and characters that change the direction of text. */
const UNSAFE = /(?![\n\t])\p{Cc}|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu;

/** `text` without control characters other than tab and newline, because a model's output must not control the terminal. */
export function printable(text: string): string {
  return text.replace(UNSAFE, '');
}

/** Writes a result to stdout. */
export function print(text: string): void {
  process.stdout.write(printable(text));
}

/** The stream for notes: stdout if it is a terminal, stderr if a program reads stdout. */
export function notes(): NodeJS.WriteStream {
  return process.stdout.isTTY ? process.stdout : process.stderr;
}

/** Writes a note. */
export function printNote(text: string, format?: Format): void {
  const stream = notes();
  const safe = printable(text);
  stream.write(format === undefined ? safe : styleFor(stream)(format, safe));
}

/** Prints one JSON value on stdout. Escapes characters that JSON allows and terminals interpret (U+007F to U+009F). */
export function printJson(value: unknown, indent?: number): void {
  const escaped = JSON.stringify(value, null, indent).replace(UNSAFE, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
  process.stdout.write(`${escaped}\n`);
}

/** Joins `parts` with ` · `, starting a new line where the next part would exceed `width` columns. */
export function wrapped(parts: readonly string[], width: number): string {
  return parts.reduce((text, part) => {
    const line = text.slice(text.lastIndexOf('\n') + 1);
    if (text === '') return part;
    return line.length + part.length + 3 <= width ? `${text} · ${part}` : `${text}\n${part}`;
  }, '');
}
