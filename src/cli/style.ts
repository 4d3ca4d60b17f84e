// Colors where a terminal shows them, text that is safe to print, and where it goes: answers and results to stdout, everything else
// beside them on a terminal and to stderr otherwise. Respects NO_COLOR; plain where output is no terminal.

import { styleText } from 'node:util';

export type Format = Parameters<typeof styleText>[0];
export type Style = (format: Format, text: string) => string;

/** Columns where the output is no terminal, and the width for which tables and help are made. */
const DEFAULT_COLUMNS = 80;

/** Columns of the terminal, at least 20. */
export function columns(stream: NodeJS.WriteStream = process.stdout): number {
  return Math.max(20, stream.columns || DEFAULT_COLUMNS);
}

/** Styles text for `stream`: as it is unless that is a terminal with colors (NO_COLOR, TERM=dumb: none). */
export function styleFor(stream: NodeJS.WriteStream): Style {
  const colors = stream.isTTY === true && stream.hasColors();
  return (format, text) => (colors ? styleText(format, text) : text);
}

/** Control characters but tab and line feed, and the marks that change the direction of text. */
const UNSAFE = /(?![\n\t])\p{Cc}|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu;

/** `text` without control characters other than tab and newline: what a model writes must not drive the terminal. */
export function printable(text: string): string {
  return text.replace(UNSAFE, '');
}

/** Writes a result to stdout. */
export function print(text: string): void {
  process.stdout.write(printable(text));
}

/** Where what is not a result goes: the terminal that shows the result too, or stderr where a program reads stdout. */
export function notes(): NodeJS.WriteStream {
  return process.stdout.isTTY ? process.stdout : process.stderr;
}

/** Writes what is not a result. */
export function note(text: string, format?: Format): void {
  const stream = notes();
  const safe = printable(text);
  stream.write(format === undefined ? safe : styleFor(stream)(format, safe));
}

/** One JSON value on stdout. Escapes what JSON lets through and a terminal obeys (U+007F to U+009F). */
export function printJson(value: unknown, indent?: number): void {
  const escaped = JSON.stringify(value, null, indent).replace(UNSAFE, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
  process.stdout.write(`${escaped}\n`);
}

/** Joins `parts` with ` · `, a new line where the next one would pass `width` columns. */
export function wrapped(parts: readonly string[], width: number): string {
  return parts.reduce((text, part) => {
    const line = text.slice(text.lastIndexOf('\n') + 1);
    if (text === '') return part;
    return line.length + part.length + 3 <= width ? `${text} · ${part}` : `${text}\n${part}`;
  }, '');
}
