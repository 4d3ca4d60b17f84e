// How a turn is shown: streamed, as one line of numbers, or as a record for programs.

import type { Answer, TurnStats } from '../session/session';
import { printable } from './style';

/** One turn in the output of `ask --json`. */
export interface TurnRecord {
  readonly question: string;
  readonly answer: string;
  readonly tokens: TurnStats['tokens'];
  /** Milliseconds, to the microsecond. */
  readonly ms: TurnStats['ms'];
}

/**
 * Writes an answer as it comes, and a line break, also when it fails midway. Once `leave` is aborted it leaves after the next
 * piece; the conversation keeps the text so far.
 */
export async function streamAnswer(answer: Answer, write: (text: string) => void, leave?: AbortSignal): Promise<void> {
  let started = false;
  try {
    for await (const piece of answer) {
      write(printable(piece));
      started = true;
      if (leave?.aborted) break;
    }
  } finally {
    if (started) write('\n');
  }
}

export function turnRecord(question: string, answer: string, { tokens, ms }: TurnStats): TurnRecord {
  const rounded = Object.entries(ms).map(([stage, time]) => [stage, Math.round(time * 1000) / 1000]);
  return { question, answer, tokens: { ...tokens }, ms: Object.fromEntries(rounded) as TurnStats['ms'] };
}

/** What a turn took, in one line. */
export function summaryLine({ tokens, ms, finish }: TurnStats): string {
  const limit = finish === 'length' ? ' (cut off by the limit)' : '';
  return [
    `visual tokens: ${tokens.visualSeen} seen, ${tokens.visualKept} kept, ${tokens.visualRetrieved} retrieved`,
    `prompt ${tokens.prompt}, answer ${tokens.generated} tokens${limit}`,
    `image ${time(ms.image)}, tower ${time(ms.tower)}, projector ${time(ms.project)}, prefill ${time(ms.prefill)}, ` +
      `retrieval ${time(ms.retrieve)}, per token ${time(ms.perToken)}, total ${time(ms.total)} ms`,
  ].join(' · ');
}

/** Milliseconds with about three digits. */
export function time(ms: number): string {
  return ms.toFixed(ms < 10 ? 2 : ms < 100 ? 1 : 0);
}
