// One decode step of several conversations: their rows run through the decoder as one ragged batch, so that the weights are read once. The bits
// of a conversation do not depend on the others. A conversation that fails does not affect the others.

import type { Decoder } from '../models/decoder';
import type { Segment } from '../models/segments';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';

/** The next rows of a conversation: those of a token, or of a short question. */
export interface Step {
  /** f32 [t, d] */
  readonly x: Tensor;
  readonly segment: Segment;
  readonly signal: AbortSignal | undefined;
  /** Whether the scores of its rows are wanted. */
  readonly isScored: boolean;
  /** Receives the hidden states f32 [t, d] and, if they are wanted, the scores f32 [t, v]; owns both. */
  done(y: Tensor, scores: Tensor | undefined): void;
  fail(error: unknown): void;
}

const noPace = async (): Promise<void> => undefined;

/** Runs the steps that are not aborted and whose caches have room. Never throws. */
export async function runSteps(decoder: Decoder, steps: readonly Step[]): Promise<void> {
  const ready = steps.filter((step) => isReady(step));
  if (ready.length === 0) return;
  try {
    await runTogether(decoder, ready);
  } catch (error) {
    if (ready.length === 1) ready[0]?.fail(error);
    // Caches keep their content if a call throws, so the step that is at fault shows alone.
    else for (const step of ready) await runSteps(decoder, [step]);
  }
}

function isReady({ segment, signal, fail }: Step): boolean {
  try {
    signal?.throwIfAborted();
    segment.cache.reserve(segment.positions.length);
    return true;
  } catch (error) {
    fail(error);
    return false;
  }
}

async function runTogether(decoder: Decoder, steps: readonly Step[]): Promise<void> {
  const { tf } = start();
  const x = tf.concat(steps.map((step) => step.x));
  let y: Tensor;
  try {
    const segments = steps.map(({ segment }) => segment);
    y = await decoder.forward(x, segments, { pace: noPace });
  } finally {
    x.dispose();
  }
  // The rows are in the caches now, so that a step cannot be repeated.
  try {
    handOut(decoder, steps, y);
  } catch (error) {
    for (const step of steps) step.fail(error);
  } finally {
    y.dispose();
  }
}

/** Gives each step its rows of the hidden states and of the scores. */
function handOut(decoder: Decoder, steps: readonly Step[], y: Tensor): void {
  const firsts = firstRows(steps);
  const scored = steps.flatMap(({ isScored, x }, i) => (isScored ? rowNumbers(firsts[i] as number, x) : []));
  const scores = scored.length === 0 ? undefined : decoder.scores(y, scored);
  try {
    for (const [i, { x, isScored, done }] of steps.entries()) {
      const first = firsts[i] as number;
      const count = x.shape[0] as number;
      const own = rowsOf(y, first, count);
      try {
        done(own, isScored && scores !== undefined ? rowsOf(scores, scored.indexOf(first), count) : undefined);
      } catch (error) {
        own.dispose();
        throw error;
      }
    }
  } finally {
    scores?.dispose();
  }
}

const rowNumbers = (first: number, x: Tensor): number[] =>
  Array.from({ length: x.shape[0] as number }, (_, i) => first + i);

function firstRows(steps: readonly Step[]): number[] {
  let next = 0;
  return steps.map(({ x }) => {
    const first = next;
    next += x.shape[0] as number;
    return first;
  });
}

function rowsOf(x: Tensor, first: number, count: number): Tensor {
  const [n, width] = x.shape as [number, number];
  return n === count ? x.clone() : start().tf.slice(x, [first, 0], [count, width]);
}
