// A seeded film: frames with a few glyphs each, and questions about all of them together with true answers. Knows no model.

import { SparseVilaError } from '../errors';
import { checkScene, type SceneConversation, type SceneOptions, sceneOf } from './conversation';
import { filmQuestions } from './questions';
import { sampleFrame } from './scene';

export interface FilmOptions extends SceneOptions {
  /** The fewest and the most things of a frame; default 1 to 5. */
  readonly things?: readonly [fewest: number, most: number];
}

/** At most so many things are in a frame: more would leave few glyphs that a film shows once. */
const MOST_THINGS = 36;

/** @throws SparseVilaError `ERR_OPTION_INVALID` */
export function sceneFilm({ things = [1, 5], ...options }: FilmOptions): SceneConversation {
  checkScene(options);
  const [fewest, most] = things;
  if (![fewest, most].every(Number.isInteger) || fewest < 1 || most < fewest || most > MOST_THINGS)
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected the fewest and the most things of a frame, integers from 1 to ${MOST_THINGS}, received ${fewest} and ${most}.`,
    );
  const { seed, index, frames = 16, turns = 6 } = options;
  return sceneOf(
    { seed, index, frames },
    (random) => sampleFrame(random, fewest, most),
    (random, drawn) => filmQuestions(random, drawn, turns),
  );
}
