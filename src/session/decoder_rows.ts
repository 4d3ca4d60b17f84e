// Rows of a turn for the decoder: embeddings of text and media, their positions, and which rows are visual.

import { type Grid, type MediumLayout, planeTokens, type Run } from '../models/media';
import type { RowModel } from '../models/model';
import { rangesOf, type TokenRange } from '../models/parts';
import type { Position } from '../ops/rope';
import { int32 } from '../ops/run';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { SparsityMethod, VisualPlace } from '../sparsity/method';
import { append, type Conversation, type Item, type VisualToken } from './conversation';
import { advanceOf, placeRun, positionRule } from './positions';
import type { Opening, RunPlace } from './prompt';
import type { KeptRows, Sight } from './sight';

/** Rows that enter the decoder, and their positions. */
export interface DecoderRows {
  /** f32 [t, d] */
  readonly x: Tensor;
  /** f32 [t, d] each: the k-th is added to what leaves decoder layer k; 0 for text. Empty without deepstack or visual rows. */
  readonly added: readonly Tensor[];
  readonly positions: Position[];
  /** Indices of the visual rows, ascending, and the place of each in its medium. */
  readonly visual: number[];
  readonly places: VisualToken[];
  readonly ids: number[];
  /** What the rows stand for, in their order. */
  readonly items: Item[];
  /** Number of positions that the rows take, those of pruned tokens included. */
  readonly advance: number;
}

export interface DecoderRowsContext {
  readonly model: RowModel;
  readonly method: SparsityMethod;
  readonly conversation: Conversation;
}

/** Makes the rows that follow the conversation's, which may be taken while more are added. */
export interface RowBuilder {
  /** Number of rows that were added since the last `take`. */
  readonly waiting: number;
  /** Numbers of visual rows so far, and of positions that runs have taken. */
  readonly visual: number;
  readonly advance: number;
  /** Embeds ids of text. */
  text(ids: readonly number[]): void;
  /** Adds the kept rows of a run, piece by piece, with the texts around it; `before` is awaited before each piece. */
  run(place: RunPlace, sight: Sight, before: () => Promise<void>): Promise<void>;
  /** The rows that were added since the last call, at least one. The caller disposes of x and what is added. */
  take(): DecoderRows;
  /** Frees the rows that were not taken. */
  dispose(): void;
}

/** What was added and not taken. */
interface Waiting extends Pick<DecoderRows, 'positions' | 'visual' | 'places' | 'ids' | 'items'> {
  readonly pieces: (Tensor | (() => Tensor))[];
}

export function rowBuilder({ model, method, conversation }: DecoderRowsContext): RowBuilder {
  const rule = positionRule(model, method);
  const isMarked = model.marker.id < model.decoder.config.vocabSize;
  const blank = (): Waiting => ({ pieces: [], positions: [], visual: [], places: [], ids: [], items: [] });
  let waiting = blank();
  let next = conversation.nextPosition;
  let from = next;
  const total = { visual: 0, advance: 0 };
  const addText = (text: readonly number[]): void => {
    if (text.length === 0) return;
    waiting.pieces.push(() => model.decoder.embed(text));
    for (const id of text) {
      waiting.positions.push(next++);
      waiting.ids.push(id);
    }
  };
  const addKept = (
    place: RunPlace,
    layout: MediumLayout,
    { kept, rows }: KeptRows,
    placed: readonly Position[],
  ): void => {
    const run = layout.runs[place.run] as Run;
    const grid = layout.grids[run.grid] as Grid;
    const first = (rangesOf(layout)[run.grid] as TokenRange).from;
    waiting.pieces.push(rows);
    for (const [i, token] of kept.entries()) {
      waiting.visual.push(waiting.positions.length);
      const position = placed[i] as Position;
      waiting.positions.push(position);
      waiting.places.push({ medium: place.medium, grid: run.grid, ...placeOf(grid, token - first), position });
    }
    total.visual += kept.length;
  };
  /** Places each piece of a run; all together where their positions depend on each other. Returns the number of kept tokens, and of positions. */
  const addPieces = async (place: RunPlace, sight: Sight, before: () => Promise<void>) => {
    const layout = sight.layoutOf(place.medium) as MediumLayout;
    const run = layout.runs[place.run] as Run;
    const begin = next;
    let count = 0;
    if (rule.isCompact && rule.hasAxes) {
      const pieces = await piecesOf(sight.rowsOf(place));
      const kept = pieces.flatMap((piece) => Array.from(piece.kept));
      await before();
      const { positions, advance } = placeRun(layout, run, kept, begin, rule);
      for (const piece of pieces) {
        addKept(place, layout, piece, positions.slice(count, count + piece.kept.length));
        count += piece.kept.length;
      }
      return { count, advance };
    }
    for await (const piece of sight.rowsOf(place)) {
      try {
        await before();
      } catch (error) {
        piece.rows.dispose();
        throw error;
      }
      const at = rule.isCompact ? begin + count : begin;
      addKept(place, layout, piece, placeRun(layout, run, piece.kept, at, rule).positions);
      count += piece.kept.length;
    }
    return { count, advance: rule.isCompact ? count : advanceOf(layout, run, rule) };
  };
  return {
    get waiting() {
      return waiting.positions.length;
    },
    get visual() {
      return total.visual;
    },
    get advance() {
      return total.advance;
    },
    text(ids) {
      addText(ids);
      append(waiting.items, ids);
    },
    async run(place, sight, before) {
      const run = sight.layoutOf(place.medium)?.runs[place.run];
      addText(idsAround(model, run?.before));
      const { count, advance } = await addPieces(place, sight, before);
      next += advance;
      total.advance += advance;
      waiting.items.push({ ...place, kept: count, around: run === undefined ? 0 : rowsAround(model, run), advance });
      if (isMarked) waiting.ids.push(model.marker.id);
      addText(idsAround(model, run?.after));
      const newlines = run?.newlines ?? 0;
      if (newlines > 0) waiting.pieces.push(() => newlineRows(model, newlines));
      for (let i = 0; i < newlines; i++) waiting.positions.push(next++);
    },
    take() {
      const { pieces, ...rows } = waiting;
      try {
        const [x, ...added] = joinPieces(pieces, model.decoder.config.hiddenSize);
        return { ...rows, x: x as Tensor, added, advance: next - from };
      } finally {
        freePieces(pieces);
        waiting = blank();
        from = next;
      }
    },
    dispose() {
      freePieces(waiting.pieces);
      waiting = blank();
    },
  };
}

const freePieces = (pieces: Waiting['pieces']): void => {
  for (const piece of pieces) if (typeof piece !== 'function') piece.dispose();
};

async function piecesOf(rows: AsyncIterable<KeptRows>): Promise<KeptRows[]> {
  const pieces: KeptRows[] = [];
  try {
    for await (const piece of rows) pieces.push(piece);
  } catch (error) {
    for (const piece of pieces) piece.rows.dispose();
    throw error;
  }
  return pieces;
}

/** Rows end to end, f32 [n, d]; and where some are wider, their further columns, 0 for the others. */
function joinPieces(pieces: Waiting['pieces'], d: number): Tensor[] {
  // `tidy` also frees the pieces if making one of them fails.
  return start().tf.tidy(() => {
    const made = pieces.map((piece) => (typeof piece === 'function' ? piece() : piece));
    const count = made.reduce((most, { shape }) => Math.max(most, (shape[1] as number) / d), 1);
    return Array.from({ length: count }, (_, i) => joinColumns(made, i * d, d));
  });
}

/** Rows of text that follow the conversation's. The caller disposes of x. */
export function textRows(context: DecoderRowsContext, ids: readonly number[]): DecoderRows {
  const rows = rowBuilder(context);
  rows.text(ids);
  return rows.take();
}

/** Adds the parts of a prompt's opening; `before` is awaited before each of them, and before each piece of a run. */
export async function addOpening(
  rows: RowBuilder,
  opening: Opening,
  sight: Sight,
  before: () => Promise<void> = async () => undefined,
): Promise<void> {
  for (const part of opening) {
    await before();
    if ('medium' in part) await rows.run(part, sight, before);
    else rows.text(part);
  }
}

/** Columns begin … begin + d - 1 of pieces [n, d] or wider, end to end; 0 where a piece does not have them. */
function joinColumns(pieces: readonly Tensor[], begin: number, d: number): Tensor {
  const { tf } = start();
  const parts = pieces.map((piece): Tensor => {
    const [n, width] = piece.shape as [number, number];
    if (begin >= width) return tf.zeros([n, d]);
    return width === d ? piece : tf.slice(piece, [0, begin], [n, d]);
  });
  return parts.length === 1 ? (parts[0] as Tensor) : tf.concat(parts);
}

/** Number of texts of a tokenizer whose ids are kept. */
const KEPT_TEXTS = 1024;
const KNOWN_IDS = new WeakMap<object, Map<string, readonly number[]>>();

/**
 * The ids of a text before or after a run. It is tokenized separately, and so starts as the tokenizer starts every text. The same few texts
 * stand around all runs of all turns, so their ids are kept: each call of a tokenizer costs 0.1 ms however short the text is.
 */
export function idsAround({ tokenizer }: RowModel, text: string | undefined): readonly number[] {
  if (text === undefined) return [];
  const known = KNOWN_IDS.get(tokenizer) ?? new Map<string, readonly number[]>();
  KNOWN_IDS.set(tokenizer, known);
  const ids = known.get(text) ?? [...tokenizer.prefixIds, ...tokenizer.encode(text)];
  if (known.size >= KEPT_TEXTS) known.clear();
  known.set(text, ids);
  return ids;
}

/** The number of rows around a run that are never pruned. */
export function rowsAround(model: RowModel, { before, after, newlines = 0 }: Run): number {
  return idsAround(model, before).length + idsAround(model, after).length + newlines;
}

/** The learned newline row, f32 [count, d]. */
function newlineRows({ newline, decoder }: RowModel, count: number): Tensor {
  const { tf } = start();
  return tf.gather(tf.reshape(newline as Tensor, [1, decoder.config.hiddenSize]), int32(new Array(count).fill(0)));
}

/** Plane, row and column of a token of a grid. */
function placeOf(grid: Grid, token: number): Omit<VisualPlace, 'medium' | 'grid'> {
  const inPlane = token % planeTokens(grid);
  return { t: Math.floor(token / planeTokens(grid)), row: Math.floor(inPlane / grid.w), col: inPlane % grid.w };
}
