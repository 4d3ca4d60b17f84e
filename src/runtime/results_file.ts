// The results so far of a long run, in a file with which a killed run continues: the first line is the configuration, each further line is one
// finished piece. Does not know what is computed.

import { appendFileSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { SparseVilaError } from '../errors';
import { isPresent, readTextFile } from '../files';
import { isTemporary, replaceFile, writeError } from '../runtime/atomic';
import { takeLock } from '../runtime/lock';

export interface ResultsFile {
  /** Finished pieces by name; of two with the same name the later one counts. */
  readonly pieces: ReadonlyMap<string, unknown>;
  /** Appends a finished piece. */
  append(name: string, value: unknown): void;
  /** Releases the folder's lock. */
  close(): void;
}

/** Results in memory, which end with the process. */
export function inMemory(): ResultsFile {
  const pieces = new Map<string, unknown>();
  return { pieces, append: (name, value) => void pieces.set(name, value), close: () => undefined };
}

/** Maximum bytes of the file: more than a month of answers. */
const LIMIT = 512 * 2 ** 20;

/**
 * Opens `file`, and continues it if its first line equals `configuration`. Locks its folder until `close`.
 * @throws SparseVilaError `ERR_RESUME_MISMATCH` naming the difference; `ERR_BUSY`; `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE`, also from
 *   `append`; `ERR_FILE_UNREADABLE`
 */
export function openResults(file: string, configuration: Readonly<Record<string, unknown>>): ResultsFile {
  const folder = dirname(file);
  const lock = takeLock(folder);
  try {
    for (const name of readdirSync(folder)) if (isTemporary(name)) rmSync(join(folder, name), { force: true });
    const pieces = isPresent(file) ? readPieces(file, configuration) : new Map<string, unknown>();
    replaceFile(file, `${JSON.stringify(configuration)}\n${[...pieces].map(lineOf).join('')}`);
    return {
      pieces,
      append: (name, value) => {
        pieces.set(name, value);
        append(file, lineOf([name, value]));
      },
      close: () => lock.release(),
    };
  } catch (error) {
    lock.release();
    throw error;
  }
}

function lineOf([name, value]: readonly [string, unknown]): string {
  return `${JSON.stringify({ name, value })}\n`;
}

function append(file: string, line: string): void {
  try {
    appendFileSync(file, line);
  } catch (error) {
    throw writeError(error, file);
  }
}

/** The finished pieces of a file. An incomplete line (a killed process, a full disk) is ignored, and its piece is computed again. */
function readPieces(file: string, configuration: Readonly<Record<string, unknown>>): Map<string, unknown> {
  const text = readTextFile(file, { what: 'the results of a run', limit: LIMIT });
  const lines = text.split('\n').slice(0, -1);
  checkConfiguration(file, lines[0], configuration);
  const pieces = new Map<string, unknown>();
  for (const line of lines.slice(1)) {
    const { name, value } = parsed(line);
    if (typeof name === 'string' && value !== undefined) pieces.set(name, value);
  }
  return pieces;
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
    `${file} holds the results of another run: ${differing.join('; ')}. ` +
      'Repeat its command to continue it, give another output, or remove that folder.',
  );
}

/** The object in a line; an empty one if there is none. */
function parsed(line: string): Record<string, unknown> {
  try {
    return Object(JSON.parse(line)) as Record<string, unknown>;
  } catch {
    return {};
  }
}

function short(text: string | undefined): string {
  if (text === undefined) return 'not given';
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
