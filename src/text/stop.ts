// Stop strings in a stream of text: emits what certainly precedes any of them and holds back what could still begin one.
// The result does not depend on how the text was cut into pieces: the stop string that ends first wins.
// Source: our own; the behavior is that of `stop` in the OpenAI API (the stop string itself is not emitted).
import { SparseVilaError } from '../errors';
import type { Tokenizer } from './tokenizer';

export interface StopMatcher {
  /** Adds text; `emit` is safe to show. Once `stopped`, nothing more is emitted. */
  push(text: string): { emit: string; stopped: boolean };
  /** The text held back at the end of an answer that did not stop. */
  flush(): string;
}

/**
 * A matcher for any of `stopStrings`; with none, text passes straight through.
 * @throws SparseVilaError `ERR_OPTION_INVALID` for an empty stop string.
 */
export function stopMatcher(stopStrings: readonly string[]): StopMatcher {
  if (stopStrings.includes('')) {
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      'Expected stop strings of at least one character, received an empty one',
    );
  }
  let held = '';
  let stopped = false;
  return {
    push: (text) => {
      if (stopped) return { emit: '', stopped };
      held += text;
      const start = firstStop(held, stopStrings);
      stopped = start !== undefined;
      const end = start ?? held.length - possibleStart(held, stopStrings);
      const emit = held.slice(0, end);
      held = stopped ? '' : held.slice(end);
      return { emit, stopped };
    },
    flush: () => {
      const rest = held;
      held = '';
      return rest;
    },
  };
}

/** Special tokens among `stopStrings`. They give no text, so that only their ids can be found in an answer. */
export function stopTokens(tokenizer: Tokenizer, stopStrings: readonly string[]): Set<number> {
  const ids = stopStrings.map((text) => tokenizer.idOf(text));
  return new Set(ids.filter((id) => id !== undefined && tokenizer.isSpecial(id)) as number[]);
}

/** Start of the stop string whose end comes first (the longest of those that end there). */
function firstStop(text: string, stopStrings: readonly string[]): number | undefined {
  let best: { start: number; end: number } | undefined;
  for (const stop of stopStrings) {
    const start = text.indexOf(stop);
    if (start < 0) continue;
    const end = start + stop.length;
    if (best === undefined || end < best.end || (end === best.end && start < best.start)) best = { start, end };
  }
  return best?.start;
}

/** Length of the longest end of `text` that begins some stop string. */
function possibleStart(text: string, stopStrings: readonly string[]): number {
  let longest = 0;
  for (const stop of stopStrings) {
    for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
      if (text.endsWith(stop.slice(0, length))) longest = length;
    }
  }
  return longest;
}
