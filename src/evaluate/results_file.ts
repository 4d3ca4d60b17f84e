// What an evaluation has found so far, as a file that a killed run continues: its first line says of what, every further line is one
// finished piece. Knows nothing of what is evaluated.

import { appendFileSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { SparseVilaError } from '../errors';

export interface ResultsFile {
  /** Pieces by name; of two with one name the later counts. */
  readonly pieces: ReadonlyMap<string, unknown>;
  /** Records a finished piece. */
  append(name: string, value: unknown): void;
}

/**
 * Opens `file`, continuing it where its first line equals `configuration`.
 * @throws SparseVilaError `ERR_RESUME_MISMATCH` saying what differs
 */
export function openResults(file: string, configuration: Readonly<Record<string, unknown>>): ResultsFile {
  mkdirSync(dirname(file), { recursive: true });
  const pieces = new Map<string, unknown>();
  if (existsSync(file)) {
    // A line that a killed process left unfinished has no end: it is dropped, and what it told is found again.
    const lines = readFileSync(file, 'utf8').split('\n').slice(0, -1);
    checkConfiguration(file, lines[0], configuration);
    for (const line of lines.slice(1)) {
      const { name, value } = JSON.parse(line) as { name: string; value: unknown };
      pieces.set(name, value);
    }
  }
  const lineOf = ([name, value]: readonly [string, unknown]): string => `${JSON.stringify({ name, value })}\n`;
  replaceFile(file, `${JSON.stringify(configuration)}\n${[...pieces].map(lineOf).join('')}`);
  return {
    pieces,
    append: (name, value) => {
      pieces.set(name, value);
      appendFileSync(file, lineOf([name, value]));
    },
  };
}

function checkConfiguration(file: string, line: string | undefined, wanted: Readonly<Record<string, unknown>>): void {
  if (line === undefined || line === JSON.stringify(wanted)) return;
  const found = parsed(line);
  const differing = [...new Set([...Object.keys(found), ...Object.keys(wanted)])]
    .map((key) => ({ key, there: JSON.stringify(found[key]), here: JSON.stringify(wanted[key]) }))
    .filter(({ there, here }) => there !== here)
    .map(({ key, there, here }) => `${key} is ${short(there)} there and ${short(here)} here`);
  throw new SparseVilaError(
    'ERR_RESUME_MISMATCH',
    `${file} holds the results of another evaluation: ${differing.join('; ')}. ` +
      'Repeat its command to continue it, give another --out, or remove that folder.',
  );
}

function parsed(line: string): Record<string, unknown> {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return {};
  }
}

function short(text: string | undefined): string {
  if (text === undefined) return 'not given';
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

/** Writes a file aside and gives it its name when it is whole. */
export function replaceFile(file: string, content: string | Uint8Array): void {
  writeFileSync(`${file}.new`, content);
  renameSync(`${file}.new`, file);
}
