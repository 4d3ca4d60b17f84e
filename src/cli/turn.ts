// Output of a turn: streamed text, a few lines of statistics, or a record for programs.

import type { Answer, TurnStats } from '../session/session';
import { printable, wrapped } from './style';

/** One turn in the output of `ask --json`. */
export interface TurnRecord {
  readonly question: string;
  readonly answer: string;
  /** Why the answer ended: 'stop' (a stop token), 'length' (a limit) or 'stopString'. */
  readonly finish: TurnStats['finish'];
  readonly tokens: TurnStats['tokens'];
  /** Milliseconds, rounded to microseconds. */
  readonly ms: TurnStats['ms'];
  /** Decoded tokens per second, rounded to a tenth; null if no token was decoded after the prefill. */
  readonly tokensPerSecond: number | null;
}

/**
 * Writes an answer while it is generated, and a line break at its end, even if it fails midway. After `leave` is aborted, stops at the next
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

export function turnRecord(question: string, answer: string, stats: TurnStats): TurnRecord {
  const { tokens, ms, finish } = stats;
  const rounded = Object.entries(ms).map(([stage, time]) => [stage, Math.round(time * 1000) / 1000]);
  const speed = tokensPerSecond(stats);
  return {
    ...{ question, answer, finish, tokens: { ...tokens } },
    ms: Object.fromEntries(rounded) as TurnStats['ms'],
    tokensPerSecond: speed === undefined ? null : Math.round(speed * 10) / 10,
  };
}

/** Decoder steps per second. The first token of an answer comes from the prefill, so an answer of one token has no speed. */
function tokensPerSecond({ ms: { perToken } }: TurnStats): number | undefined {
  return perToken > 0 ? 1000 / perToken : undefined;
}

/** The statistics of a turn, in lines of at most `width` columns. */
export function summaryLines(stats: TurnStats, width: number): string {
  const { tokens, ms, finish } = stats;
  const speed = tokensPerSecond(stats);
  const limit = finish === 'length' ? ' (cut off by the limit)' : '';
  return wrapped(
    [
      `visual tokens: ${tokens.visualSeen} seen, ${tokens.visualKept} kept, ${tokens.visualRetrieved} retrieved`,
      `prompt ${tokens.prompt}, answer ${tokens.generated} tokens${limit}`,
      ...(tokens.drafted === 0 ? [] : [`${tokens.drafted} drafted, ${tokens.accepted} accepted`]),
      ...(speed === undefined ? [] : [`${speed.toFixed(speed < 100 ? 1 : 0)} tokens/s`]),
      `ms: image ${time(ms.image)}, tower ${time(ms.tower)}, projector ${time(ms.project)}`,
      `prefill ${time(ms.prefill)}, retrieval ${time(ms.retrieve)}, total ${time(ms.total)}`,
    ],
    width,
  );
}

/** Milliseconds with about three digits. */
export function time(ms: number): string {
  return ms.toFixed(ms < 10 ? 2 : ms < 100 ? 1 : 0);
}
