// Colours where a terminal shows them, and text that is safe to print. Respects NO_COLOR; plain where output is no terminal.

import { styleText } from 'node:util';

export type Format = Parameters<typeof styleText>[0];
export type Style = (format: Format, text: string) => string;

/** Styles text for `stream`: as it is unless that is a terminal with colours (NO_COLOR, TERM=dumb: none). */
export function styleFor(stream: NodeJS.WriteStream): Style {
  const colours = stream.isTTY === true && stream.hasColors();
  return (format, text) => (colours ? styleText(format, text) : text);
}

/** `text` without control characters other than tab and newline: what a model writes must not drive the terminal. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it removes
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '');
}
