// A seeded conversation: scenes as pictures, and turns about them with true answers. The default questions of evaluation. Knows no model.

import { SparseVilaError } from '../errors';
import { type Question, questionsAbout } from './questions';
import { type Random, randomFrom } from './random';
import { renderFrame, type ScenePixels } from './render';
import { type Frame, sampleFrame } from './scene';

export interface SceneOptions {
  /** Integer in [0, 2^31). */
  readonly seed: number;
  /** Number of the conversation for that seed, in [0, 2^20). */
  readonly index: number;
  /** Number of pictures; default 1. */
  readonly frames?: number;
  /** Number of questions; default 6. */
  readonly turns?: number;
}

export interface SceneConversation {
  readonly frames: readonly Frame[];
  readonly turns: readonly Question[];
  /** Draws the pictures; equal options give equal pixels, for any value of `turns`. */
  render(): ScenePixels[];
}

const LIMITS = { seed: 2 ** 31, index: 2 ** 20, frames: 1000, turns: 1000 } as const;

/** @throws SparseVilaError `ERR_OPTION_INVALID` */
export function sceneConversation(options: SceneOptions): SceneConversation {
  checkScene(options);
  const { seed, index, frames = 1, turns = 6 } = options;
  return sceneOf({ seed, index, frames }, sampleFrame, (random, drawn) => questionsAbout(random, drawn, turns));
}

/** @throws SparseVilaError `ERR_OPTION_INVALID` */
export function checkScene({ seed, index, frames = 1, turns = 1 }: SceneOptions): void {
  for (const [name, value] of Object.entries({ seed, index, frames, turns })) {
    const [least, limit] = [name === 'seed' || name === 'index' ? 0 : 1, LIMITS[name as keyof typeof LIMITS]];
    if (Number.isInteger(value) && value >= least && value < limit) continue;
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected an integer from ${least} to ${limit - 1} for ${name}, received ${value}.`,
    );
  }
}

/** The frames that `sample` draws from the stream of a seed and an index, what `ask` asks about them, and their pixels from a second stream. */
export function sceneOf(
  { seed, index, frames }: { readonly seed: number; readonly index: number; readonly frames: number },
  sample: (random: Random) => Frame,
  ask: (random: Random, frames: readonly Frame[]) => Question[],
): SceneConversation {
  const stream = (seed * LIMITS.index + index) * 2;
  const random = randomFrom(stream);
  const drawn = Array.from({ length: frames }, () => sample(random));
  return {
    frames: drawn,
    turns: ask(random, drawn),
    render: () => {
      const pixels = randomFrom(stream + 1);
      return drawn.map((frame) => renderFrame(frame, pixels));
    },
  };
}
