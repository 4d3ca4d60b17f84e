// The lines typed in earlier chats, for the arrow keys: a file in the user's state folder that only the user can read.

import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { makeFolder, readTextFile } from '../files';
import { replaceFile } from '../runtime/atomic';
import type { Environment } from '../runtime/paths';

/** Maximum number of lines, and of bytes of the file that are read. */
const LINES = 1000;
const BYTES = 4e6;
const LINE_LENGTH = 2000;

/** `$XDG_STATE_HOME/sparsevila/chat_history`, by default under `~/.local/state`. */
export function historyFile(env: Environment = process.env): string {
  // The XDG specification requires that a relative path is ignored.
  const state = env.XDG_STATE_HOME?.startsWith('/') ? env.XDG_STATE_HOME : join(homedir(), '.local', 'state');
  return join(state, 'sparsevila', 'chat_history');
}

/** The lines of earlier chats, oldest first; empty if the file cannot be read. */
export function readHistory(file: string): string[] {
  try {
    return readTextFile(file, { what: 'a chat history', limit: BYTES })
      .split('\n')
      .filter((line) => line !== '')
      .slice(-LINES);
  } catch {
    return [];
  }
}

/**
 * Appends `lines` to the file, keeping lines that another chat has added. Written to a temporary file and renamed, mode 0600. A history that
 * cannot be written (a read-only home, a full disk) is not an error.
 */
export function addToHistory(file: string, lines: readonly string[]): void {
  const added = lines.map((line) => line.replaceAll('\n', ' ').slice(0, LINE_LENGTH)).filter((line) => line !== '');
  if (added.length === 0) return;
  try {
    makeFolder(dirname(file), 0o700);
    const all = [...readHistory(file), ...added].slice(-LINES);
    replaceFile(file, `${all.join('\n')}\n`, 0o600);
  } catch {
    // The chat has ended; the lines are lost.
  }
}
