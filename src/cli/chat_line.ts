// Parses a line of `sparsevila chat`: words with quotation marks and backslashes, pictures that were dropped on the terminal (which pastes
// their paths, quoted, escaped or as file:// URLs), and completions for the Tab key. Prints nothing.

import { readdirSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Quoted parts and escaped characters as in a shell, for words that are paths. */
const WORD = /(?:"[^"]*"|'[^']*'|\\.|[^\s\\"'])+/g;
const PART = /"([^"]*)"|'([^']*)'|\\(.)|([^\\"']+)/g;
/** Beginnings of paths that a terminal pastes. */
const PATH_BEGIN = /^["']?(?:\/|~\/|\.\.?\/|file:\/\/)/;
const PICTURE_NAME = /\.(?:avif|gif|jpe?g|png|tiff?|webp)["']?$/i;

/** Words between spaces; quotation marks and backslashes keep a path together, as in paths that a terminal pastes. */
export function splitWords(line: string): string[] {
  return (line.match(WORD) ?? []).map(unquoted);
}

function unquoted(word: string): string {
  return [...word.matchAll(PART)]
    .map(([, double, single, escaped, bare]) => double ?? single ?? escaped ?? bare ?? '')
    .join('');
}

/**
 * The pictures that `line` names, and the rest of it. A picture is a word that begins like a path or ends like the name of a picture, and
 * that is an existing file; all other words, apostrophes included, belong to the question. A `file://` URL is always a picture.
 */
export function droppedPictures(line: string): { readonly question: string; readonly pictures: string[] } {
  const pictures: string[] = [];
  let question = '';
  for (let rest = line; rest !== ''; ) {
    const [blank = ''] = /^\s*/.exec(rest) ?? [];
    rest = rest.slice(blank.length);
    const word = wordAt(rest);
    const path = pathOf(word);
    if (path === undefined) question += blank + word;
    else pictures.push(path);
    rest = rest.slice(word.length);
  }
  return { question: question.trim(), pictures };
}

/** The word at the beginning of `text`: by a shell's rules if that gives a picture, else up to the next space. */
function wordAt(text: string): string {
  const [url] = /^file:\/\/\S*/.exec(text) ?? [];
  if (url !== undefined) return url;
  const [shell = ''] = new RegExp(`^${WORD.source}`).exec(text) ?? [];
  const isWhole = /^(?:\s|$)/.test(text.slice(shell.length));
  if (shell !== '' && isWhole && pathOf(shell) !== undefined) return shell;
  return /^\S*/.exec(text)?.[0] ?? '';
}

/** The path that a word names, if it is a picture. */
function pathOf(word: string): string | undefined {
  if (!PATH_BEGIN.test(word) && !PICTURE_NAME.test(word)) return undefined;
  // Escapes in a URL are the URL's own: an apostrophe in it does not quote.
  const url = /^(["']?)(file:\/\/.*)\1$/.exec(word)?.[2];
  if (url !== undefined) return expanded(url);
  const path = expanded(unquoted(word));
  return isFile(path) ? path : undefined;
}

/** Converts `file://` URLs and `~/` to paths. A malformed URL is returned unchanged, so that the error of reading it names it. */
function expanded(path: string): string {
  if (path.startsWith('~/')) return join(homedir(), path.slice(2));
  if (!path.startsWith('file://')) return path;
  try {
    return fileURLToPath(path);
  } catch {
    return path;
  }
}

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** Completions in readline's form (candidates and the completed text): commands that begin like the line; after `/image`, files. */
export function complete(line: string, commands: readonly string[]): [string[], string] {
  if (!line.startsWith('/')) return [[], line];
  const [, typed = ''] = /^\/image\s+(?:.*\s)?(\S*)$/.exec(line) ?? [];
  if (/^\/image\s/.test(line)) return [filesBeginning(typed), typed];
  const found = commands.filter((command) => command.startsWith(line));
  return [found.map((command) => `${command} `), line];
}

function filesBeginning(typed: string): string[] {
  const folder = typed.endsWith('/') ? typed : dirname(typed);
  const beginning = typed.endsWith('/') || typed === '' ? '' : basename(typed);
  const shown = typed.slice(0, typed.length - beginning.length);
  try {
    return readdirSync(expanded(folder), { withFileTypes: true })
      .filter((entry) => entry.name.startsWith(beginning) && (entry.isDirectory() || PICTURE_NAME.test(entry.name)))
      .map((entry) => `${shown}${entry.name.replace(/(["'\\\s])/g, '\\$1')}${entry.isDirectory() ? '/' : ''}`)
      .sort();
  } catch {
    return [];
  }
}
