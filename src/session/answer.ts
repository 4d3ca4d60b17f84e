// An answer that can be read any number of times: the question is asked when it is first read, and its result is stored.

import { whenDropped } from './dropped';
import type { Piece } from './generate';
import type { TurnStats } from './turn_stats';

/**
 * A streamed answer. Nothing runs before it is first read. Every iteration gives the same pieces and every `text()` the same text; an
 * error is thrown again. Leaving the loop early ends the answer, unless it is also read elsewhere, and keeps the text so far.
 *
 * `await answer` gives the whole text, as `answer.text()` does. An answer that is returned from an async function is therefore read to
 * its end: return it in an object or a list to have it streamed.
 */
export interface Answer extends AsyncIterable<string>, PromiseLike<string> {
  /** The answer in pieces with their tokens, for a question with `logprobs`; may be read beside the text. */
  pieces(): AsyncIterable<Piece>;
  /** The whole text of the answer. */
  text(): Promise<string>;
  /** The statistics of the turn; undefined until the answer is complete. */
  readonly stats: TurnStats | undefined;
}

/** A turn that is running or over. `next` produces another piece, or sets `end`. */
export interface Reading {
  readonly pieces: readonly Piece[];
  readonly end: { readonly error?: unknown } | undefined;
  readonly stats: TurnStats | undefined;
  readonly isRunning: boolean;
  next(): Promise<void>;
  /** Ends a turn that has begun. */
  leave(): Promise<void>;
}

/** @param begin starts the turn; if it throws, the answer stays unread and can be read again */
export function readingOf(begin: (done: (stats: TurnStats) => void) => AsyncGenerator<Piece>): Reading {
  const pieces: Piece[] = [];
  let turn: AsyncGenerator<Piece> | undefined;
  let end: Reading['end'];
  let stats: TurnStats | undefined;
  let pending: Promise<void> | undefined;
  const advance = async (running: AsyncGenerator<Piece>): Promise<void> => {
    try {
      const next = await running.next();
      if (next.done === true) end ??= {};
      else pieces.push(next.value);
    } catch (error) {
      end ??= { error };
    }
  };
  return {
    pieces,
    get end() {
      return end;
    },
    get stats() {
      return stats;
    },
    get isRunning() {
      return turn !== undefined && end === undefined;
    },
    async next() {
      turn ??= begin((result) => {
        stats = result;
      });
      pending ??= advance(turn).finally(() => {
        pending = undefined;
      });
      await pending;
    },
    async leave() {
      if (turn === undefined || end !== undefined) return;
      end = {};
      await turn.return(undefined);
    },
  };
}

/** The answer of a turn. Keeps `session` from being dropped as long as the answer, or an iteration of it, can be reached. */
export function answerOf(reading: Reading, session: object): Answer {
  const reached = { session, readers: 0 };
  whenDropped(reached, leaving(reading));
  async function* pieces(): AsyncGenerator<Piece> {
    reached.readers++;
    try {
      for (let at = 0; ; at++) {
        while (at === reading.pieces.length && reading.end === undefined) await reading.next();
        if (at === reading.pieces.length) break;
        yield reading.pieces[at] as Piece;
      }
      if (reading.end !== undefined && 'error' in reading.end) throw reading.end.error;
    } finally {
      reached.readers--;
      if (reached.readers === 0) await reading.leave();
    }
  }
  async function* read(): AsyncGenerator<string> {
    for await (const piece of pieces()) if (piece.text !== '') yield piece.text;
  }
  const text = async (): Promise<string> => {
    let whole = '';
    for await (const piece of read()) whole += piece;
    return whole;
  };
  return {
    [Symbol.asyncIterator]: read,
    pieces,
    text,
    // biome-ignore lint/suspicious/noThenProperty: `await chat.ask(…)` gives the text
    then: (fulfilled, rejected) => text().then(fulfilled, rejected),
    get stats() {
      return reading.stats;
    },
  };
}

/** Ends an answer that can no longer be read. It must hold no reference through which the answer could be reached. */
function leaving(reading: Reading): () => boolean {
  return () => {
    if (!reading.isRunning) return false;
    reading.leave().catch(() => undefined);
    return true;
  };
}
