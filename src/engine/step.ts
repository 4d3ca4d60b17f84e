// One decode step of several conversations: their rows run through the decoder as one ragged batch, so that the weights are read once. The bits
// of a conversation do not depend on the others. A conversation that fails does not affect the others.

import type { Decoder } from '../models/decoder';
import type { Segment } from '../models/segments';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';

/** The next row of a conversation. */
export interface Step {
  /** f32 [1, d] */
  readonly x: Tensor;
  readonly segment: Segment;
  readonly signal: AbortSignal | undefined;
  /** Receives the hidden state f32 [1, d] and the scores f32 [1, v]; owns both. */
  done(y: Tensor, scores: Tensor): void;
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
    segment.cache.reserve(1);
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
    const scores = decoder.scores(
      y,
      steps.map((_, row) => row),
    );
    try {
      for (const [row, step] of steps.entries()) handOut(step, row, y, scores);
    } finally {
      scores.dispose();
    }
  } catch (error) {
    for (const step of steps) step.fail(error);
  } finally {
    y.dispose();
  }
}

/** Gives a step its row of the hidden states and of the scores. */
function handOut({ done }: Step, row: number, y: Tensor, scores: Tensor): void {
  const own = rowOf(y, row);
  try {
    done(own, rowOf(scores, row));
  } catch (error) {
    own.dispose();
    throw error;
  }
}

function rowOf(x: Tensor, row: number): Tensor {
  const [n, width] = x.shape as [number, number];
  return n === 1 ? x.clone() : start().tf.slice(x, [row, 0], [1, width]);
}
