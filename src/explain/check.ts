// Validates the arguments of `explain` before any picture is decoded.

import { types } from 'node:util';
import { received } from '../errors';
import { IMAGE_CHECKS } from '../image/decode';
import { type Check, checkOptions, invalidOption, isAccepted, OBJECT, SIGNAL, TEXT } from '../options';
import type { ExplainedTurn, ExplainOptions } from './explain';

const CELL: Check = {
  expected: 'an integer',
  accepts: (value) => Number.isSafeInteger(value) && (value as number) >= 0,
};

const ascending = (value: unknown, below: number): boolean =>
  types.isInt32Array(value) && value.every((at, i) => at > (value[i - 1] ?? -1) && at < below);

/** An image or video of a turn's statistics. */
function isSeen(value: unknown): boolean {
  if (!OBJECT.accepts(value)) return false;
  const { layout, kept, salience } = value as ExplainedTurn['stats']['media'][number];
  const { grids } = layout;
  const isGrid = ({ t, h, w }: (typeof grids)[number]): boolean => [t, h, w].every(CELL.accepts);
  if (!Array.isArray(grids) || !grids.every(isGrid)) return false;
  const tokens = grids.reduce((sum, { t, h, w }) => sum + t * h * w, 0);
  return (
    ascending(kept, tokens) &&
    (salience === undefined || (types.isFloat32Array(salience) && salience.length === tokens))
  );
}

const STATS: Check = {
  expected: 'the stats of a complete answer',
  accepts: (value) => {
    if (!OBJECT.accepts(value)) return false;
    const { media, retrieved } = value as ExplainedTurn['stats'];
    const isLayers = (layers: unknown): boolean =>
      Array.isArray(layers) && Array.from(layers).every((layer) => ascending(layer, Number.POSITIVE_INFINITY));
    return Array.isArray(media) && Array.from(media).every(isSeen) && (retrieved === undefined || isLayers(retrieved));
  },
};

const RELEVANCE: Check = {
  expected: 'what takeRelevance() of observed() gave',
  accepts: (value) =>
    Array.isArray(value) &&
    Array.from(value).every(
      ({ scores, places }) =>
        types.isFloat32Array(scores) &&
        Array.isArray(places) &&
        places.length === scores.length &&
        Array.from(places).every((place) =>
          [place.medium, place.grid, place.t, place.row, place.col].every(CELL.accepts),
        ),
    ),
};

function isVideo(video: unknown): boolean {
  if (!OBJECT.accepts(video)) return false;
  const { frames, count, read } = video as { frames?: unknown; count?: unknown; read?: unknown };
  return Array.isArray(frames) || (CELL.accepts(count) && typeof read === 'function');
}

const TURN = {
  question: { ...TEXT, required: true as const },
  answer: { ...TEXT, required: true as const },
  images: { expected: 'a list of images', accepts: Array.isArray },
  videos: {
    expected: 'a list of videos, each { frames: [images] } or what frames() of a model gave',
    accepts: (value: unknown) => Array.isArray(value) && Array.from(value).every(isVideo),
  },
  stats: { ...STATS, required: true as const },
  relevance: RELEVANCE,
};

/** @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_OPTION_MISSING` */
export function checkExplain(turns: unknown, options: ExplainOptions | undefined) {
  if (!isAccepted({ expected: '', accepts: Array.isArray }, turns))
    throw invalidOption('explain', 'a list of turns', received(turns));
  const checked = Array.from(turns as ExplainedTurn[], (turn, i) =>
    checkOptions<ExplainedTurn>(`explain: turn ${i}`, turn ?? (null as never), TURN),
  );
  return {
    turns: checked,
    ...checkOptions<ExplainOptions>('explain', options, {
      title: TEXT,
      signal: SIGNAL,
      ...IMAGE_CHECKS,
    }),
  };
}
