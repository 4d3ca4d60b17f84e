// The state of a saved conversation, and its check: every number that is used as an index, size or id is within its bounds.

import type { SparseVilaError } from '../errors';
import { DEFAULT_MAX_PIXELS, MAX_SIDE } from '../image/limits';
import { hasStates } from '../models/config';
import type { MediumSize, TurnMedia } from '../models/media';
import type { VisionLanguageModel } from '../models/model';
import type { CacheLayer, Item, RunItem, Script, VisualToken } from './conversation';

export interface SavedMedium {
  /** Index of the first medium of the same message. */
  readonly first: number;
  readonly size: MediumSize;
  readonly turn: TurnMedia;
  /** Width and height of each canvas. */
  readonly canvases: readonly (readonly [width: number, height: number])[];
}

export interface Saved {
  readonly nextPosition: number;
  readonly places: readonly VisualToken[];
  readonly ids: readonly number[];
  readonly items: readonly Item[];
  readonly script: Script;
  readonly layers: readonly Readonly<CacheLayer>[];
  readonly media: readonly SavedMedium[];
  /** Per layer, the positions of its rows; empty unless a layer of the model has a window. */
  readonly positions: readonly (readonly number[])[];
  /** The points at which the file has states, ascending; absent unless layers keep states. */
  readonly points?: readonly number[];
}

/** Most points at which a file has states. */
export const MOST_POINTS = 2;
/** Most frames, media and runs of a conversation. */
const MANY = 10_000;
/** Most pixels of a picture: callers may raise the default. */
const MOST_PIXELS = 4 * DEFAULT_MAX_PIXELS;

const isIndex = (value: unknown, end: number): value is number =>
  Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) < end;
const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isListOf = (value: unknown, accepts: (one: unknown, i: number) => boolean): value is unknown[] =>
  Array.isArray(value) && value.every(accepts);
const isAscending = (value: unknown, end: number): value is number[] =>
  isListOf(value, (one, i) => isIndex(one, end) && (i === 0 || one > ((value as number[])[i - 1] as number)));

/** The state, if it is one that a conversation with this model can have. @throws `invalid` */
export function checkSaved(
  given: unknown,
  model: VisionLanguageModel,
  invalid: (why: string) => SparseVilaError,
): Saved {
  const require = (isRight: boolean, what: string): void => {
    if (!isRight) throw invalid(`found one whose ${what} cannot be`);
  };
  const { config } = model.decoder;
  const most = config.maxPositions;
  require(isRecord(given), 'state');
  const saved = given as { readonly [K in keyof Saved]: unknown };
  const { media, places, items, layers } = saved;
  require(isListOf(media, (one, i) => isMedium(one, i)), 'media');
  const count = (media as SavedMedium[]).length;
  require(isListOf(places, (place) => isPlace(place, count)), 'places');
  require(isListOf(items, (item) => isIndex(item, config.vocabSize) || isRun(item, count, most)), 'items');
  require(isListOf(saved.ids, (id) => isIndex(id, config.vocabSize)), 'ids');
  require(isIndex(saved.nextPosition, most + 1), 'next position');
  const [text, visual] = rowsOf(items as Item[]);
  require(visual === (places as unknown[]).length, 'number of visual rows');
  const isLayer = (layer: unknown): boolean => isRecord(layer) && isCacheLayer(layer, { text, visual });
  require(isListOf(layers, isLayer) && layers.length === config.layers, 'layers');
  require(isListOf(saved.positions, (rows) => isListOf(rows, (row) => isIndex(row, most))), 'positions');
  const lengths = (layers as CacheLayer[]).map(({ length }) => length);
  require((saved.positions as unknown[][]).every(
    (rows, i) => rows.length === 0 || rows.length === lengths[i],
  ), 'positions');
  const isPoints = isAscending(saved.points ?? [], (items as Item[]).length + 1);
  const [points, mostPoints] = [(saved.points ?? []) as unknown[], hasStates(config) ? MOST_POINTS : 0];
  require(isPoints && points.length <= mostPoints, 'points');
  require(isScript(saved.script, count, config.vocabSize), 'messages');
  return given as Saved;
}

function isMedium(value: unknown, i: number): boolean {
  if (!isRecord(value) || !isIndex(value.first, i + 1) || !isRecord(value.size) || !isRecord(value.turn)) return false;
  const { kind, width, height, frames, fps, times, duration } = value.size;
  const isSide = (side: unknown): side is number => isIndex(side, MAX_SIDE + 1) && side > 0;
  if (!isSide(width) || !isSide(height) || width * height > MOST_PIXELS) return false;
  const isTime = (one: unknown): boolean => Number.isFinite(one) && (one as number) >= 0;
  const isTimed = [fps, duration].every((one) => one === undefined || isTime(one));
  const { media, images = 0 } = value.turn;
  const canvas = (size: unknown): boolean => isListOf(size, isSide) && size.length === 2;
  return [
    kind === 'image' || kind === 'video',
    isIndex(frames, MANY) && frames > 0,
    isTimed && (times === undefined || (isListOf(times, isTime) && times.length === frames)),
    isIndex(media, MANY) && isIndex(images, MANY),
    isListOf(value.canvases, canvas),
  ].every(Boolean);
}

function isPlace(value: unknown, media: number): boolean {
  if (!isRecord(value)) return false;
  const { medium, grid, t, row, col, position } = value;
  const axes = Array.isArray(position) && position.length === 3 ? position : [position];
  return (
    axes.every((axis) => isIndex(axis, 2 ** 31)) &&
    isIndex(medium, media) &&
    [grid, t, row, col].every((one) => isIndex(one, MAX_SIDE))
  );
}

function isRun(value: unknown, media: number, most: number): boolean {
  if (!isRecord(value)) return false;
  const { medium, run, kept, around, advance } = value;
  return isIndex(medium, media) && isIndex(run, MANY) && [kept, around, advance].every((one) => isIndex(one, most + 1));
}

/** The numbers of text rows and of visual rows of all items. */
function rowsOf(items: readonly Item[]): [text: number, visual: number] {
  const runs = items.filter((item): item is RunItem => typeof item !== 'number');
  const around = runs.reduce((sum, run) => sum + run.around, 0);
  return [items.length - runs.length + around, runs.reduce((sum, { kept }) => sum + kept, 0)];
}

/** Whether a layer has all text rows, and some of the visual ones. */
function isCacheLayer(layer: Record<string, unknown>, { text, visual }: { text: number; visual: number }): boolean {
  const { length, visual: rows, tokens } = layer;
  if (!isAscending(tokens, visual) || !isIndex(length, text + visual + 1)) return false;
  return isAscending(rows, length) && rows.length === tokens.length && length === text + tokens.length;
}

function isScript(value: unknown, media: number, vocabulary: number): boolean {
  if (!isRecord(value)) return false;
  const { turns, open, text, pending } = value;
  const isPart = (part: unknown): boolean =>
    typeof part === 'string' ||
    (isRecord(part) && isIndex(part.medium, media) && [undefined, 'image', 'video'].includes(part.kind as string));
  const isTurn = (turn: unknown): boolean =>
    isRecord(turn) && ['system', 'user', 'assistant'].includes(turn.role as string) && isListOf(turn.parts, isPart);
  const isText = typeof text === 'string' && isListOf(pending, (id) => isIndex(id, vocabulary));
  return isText && isListOf(turns, isTurn) && isListOf(open, isPart);
}
