// Stop strings in a stream of text: emits text that certainly precedes every stop string, and holds back text that could begin one. The result
// does not depend on how the text is cut into pieces: the stop string that ends first wins.
// Source: none; the behavior is that of `stop` in the OpenAI API (the stop string itself is not emitted).
import { SparseVilaError } from '../errors';
import type { Tokenizer } from './tokenizer';

export interface StopMatcher {
  /** Adds text; `emit` is final. After `stopped`, nothing more is emitted. */
  push(text: string): { emit: string; stopped: boolean };
  /** The text that was held back at the end of an answer that did not stop. */
  flush(): string;
}

/**
 * A matcher for any of `stopStrings`; without any, text passes through unchanged.
 * @throws SparseVilaError `ERR_OPTION_INVALID` for an empty stop string
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

/** The special tokens among `stopStrings`. They produce no text, so an answer is searched for their ids. */
export function stopTokens(tokenizer: Tokenizer, stopStrings: readonly string[]): Set<number> {
  const ids = stopStrings.map((text) => tokenizer.idOf(text));
  return new Set(ids.filter((id) => id !== undefined && tokenizer.isSpecial(id)) as number[]);
}

/** The start of the stop string that ends first (of several that end there, the longest). */
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

/** Length of the longest suffix of `text` that begins some stop string. */
function possibleStart(text: string, stopStrings: readonly string[]): number {
  let longest = 0;
  for (const stop of stopStrings) {
    for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
      if (text.endsWith(stop.slice(0, length))) longest = length;
    }
  }
  return longest;
}
