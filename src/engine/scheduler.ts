// Decides what runs next on the one device: a decode step of all conversations that wait for a token, and of those whose short question is all that
// is to be prefilled, then a slice of one longer prefill (or of a vision tower), then the next step. No conversation waits for the whole prefill of another one, and prefills take turns.
//
// A session takes part through its decoder, whose one-row calls wait for the next step, and through `pace`, which long work calls between its
// ops: between decoder layers, between the layers of a tower, and between media.

import type { Decoder, ForwardOptions } from '../models/decoder';
import type { VisionLanguageModel } from '../models/model';
import type { Segment } from '../models/segments';
import type { Tensor } from '../runtime/tensor';
import { runSteps, type Step } from './step';

/** A conversation that takes part. */
export interface Seat {
  /** The model with a decoder that takes part. */
  readonly model: VisionLanguageModel;
  /** Waits until it is this conversation's turn, if its slice is over. @throws the reason of its signal */
  readonly pace: () => Promise<void>;
  /** Called after the prefill: calls of the decoder are decode steps from now on. */
  decode(): void;
  /** Frees what an interrupted step has left. */
  leave(): void;
}

export interface Scheduler {
  seat(signal: AbortSignal | undefined): Seat;
}

/** Least milliseconds of a slice. A slice takes at least as long as a decode step, so that steps take at most half of the time. */
const SLICE_MS = 12;
/** Most rows of a question that waits for the next step instead of a slice, and of a step with such questions. */
const SHORT_ROWS = 24;
const STEP_ROWS = 48;

export function scheduler(model: VisionLanguageModel): Scheduler {
  const steps: Step[] = [];
  const slices: (() => void)[] = [];
  let stepMs = 0;
  let isRunning = false;

  const run = async (): Promise<void> => {
    if (isRunning) return;
    isRunning = true;
    while (steps.length > 0 || slices.length > 0) {
      // Whoever can ask for a step has asked after this, and messages that came in the meantime (aborts, requests) are received.
      await eventLoop();
      if (steps.length > 0) {
        const begin = performance.now();
        await runSteps(model.decoder, nextSteps(steps));
        stepMs = performance.now() - begin;
        await eventLoop();
      }
      slices.shift()?.();
    }
    isRunning = false;
  };

  const seat = (signal: AbortSignal | undefined): Seat => {
    let since = performance.now();
    const pace = async (): Promise<void> => {
      signal?.throwIfAborted();
      const isWaitedFor = steps.length > 0 || slices.length > 0;
      if (performance.now() - since <= (isWaitedFor ? Math.max(SLICE_MS, stepMs) : SLICE_MS)) return;
      await new Promise<void>((resolve) => {
        slices.push(resolve);
        void run();
      });
      since = performance.now();
      signal?.throwIfAborted();
    };
    const { decoder, decode, leave } = steppedDecoder(model.decoder, (step) => {
      steps.push({ ...step, signal });
      void run();
    });
    return { model: { ...model, decoder }, pace, decode, leave };
  };
  return { seat };
}

/** Takes the steps that run together: all tokens, and questions as long as there are few rows. */
function nextSteps(waiting: Step[]): Step[] {
  let rows = waiting.reduce((sum, { isScored, x }) => sum + (isScored ? (x.shape[0] as number) : 0), 0);
  const taken = waiting.filter(({ isScored, x }, i) => {
    if (isScored) return true;
    const isTaken = i === 0 || rows + (x.shape[0] as number) <= STEP_ROWS;
    if (isTaken) rows += x.shape[0] as number;
    return isTaken;
  });
  const left = waiting.filter((step) => !taken.includes(step));
  waiting.splice(0, waiting.length, ...left);
  return taken;
}

const eventLoop = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Whether rows of a prefill are so few that they cost a step little more than a token does: reading the weights takes most of the time. */
function isShort({ config }: Decoder, { positions, added }: Segment, { layers, onHidden }: ForwardOptions): boolean {
  const isWhole = layers === undefined || (layers.from === 0 && layers.to === config.layers);
  return isWhole && onHidden === undefined && added === undefined && positions.length <= SHORT_ROWS;
}

/**
 * A decoder whose calls of `forward` wait for the next step once `decode` was called, and short ones before. The scores of a token come with
 * its step.
 */
function steppedDecoder(
  decoder: Decoder,
  ask: (step: Omit<Step, 'signal'>) => void,
): { readonly decoder: Decoder; decode(): void; leave(): void } {
  let isDecoding = false;
  let known: { readonly of: Tensor; readonly scores: Tensor } | undefined;
  const leave = (): void => {
    known?.scores.dispose();
    known = undefined;
  };
  return {
    decoder: {
      ...decoder,
      forward: (x, batch, options) => {
        const [segment] = batch;
        if (segment === undefined || !(isDecoding || isShort(decoder, segment, options)))
          return decoder.forward(x, batch, options);
        const isScored = isDecoding;
        return new Promise<Tensor>((resolve, reject) => {
          const done: Step['done'] = (y, scores) => {
            leave();
            if (scores !== undefined) known = { of: y, scores };
            resolve(y);
          };
          ask({ x, segment, isScored, done, fail: reject });
        });
      },
      scores: (x, rows) => {
        if (known?.of !== x) return decoder.scores(x, rows);
        const { scores } = known;
        known = undefined;
        return scores;
      },
    },
    decode: () => {
      isDecoding = true;
    },
    leave,
  };
}
