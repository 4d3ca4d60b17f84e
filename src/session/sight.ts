// What a turn sees: the kept tokens of its media, run by run in the order in which the prompt asks for them. Media are seen no further than the
// prompt has come, so that a film is decoded, encoded and prefilled frame by frame.

import { SparseVilaError } from '../errors';
import type { MediumLayout, PreparedMedium, Run } from '../models/media';
import { tokensOf } from '../models/media';
import { joinNumbers } from '../ops/run';
import type { Tensor } from '../runtime/tensor';
import type { MediaContext } from './encoded_media';
import { type PrunedTokens, seeMedia } from './media';
import type { RunPlace } from './prompt';
import { sliceRows } from './tensor_rows';

/** A medium after pruning. */
export interface PrunedMedium {
  readonly layout: MediumLayout;
  /** Number of tokens before pruning. */
  readonly tokens: number;
  /** Indices of the kept tokens, ascending. */
  readonly kept: Int32Array;
  /** f32 [tokens], of the first layer of `taps.salience`. */
  readonly salience: Float32Array | undefined;
}

/** Kept tokens of a run: their indices in the medium, ascending, and f32 [kept, d], of which the caller disposes. */
export interface KeptRows {
  readonly kept: Int32Array;
  readonly rows: Tensor;
}

/** Media of a conversation, by their numbers, that are pruned together. */
export type SeenTogether = ReadonlyMap<number, PreparedMedium>;

export interface Sight {
  layoutOf(medium: number): MediumLayout | undefined;
  /** The kept tokens of a run, piece by piece. Of a video every run is asked for once, in the order of its tokens. */
  rowsOf(place: RunPlace): AsyncGenerator<KeptRows>;
  /** The media that were seen to their end, by number. */
  media(): Map<number, PrunedMedium>;
  /** Frees the rows that no run has asked for, and ends the decoding of films. */
  close(): Promise<void>;
}

/** @param question the ids of the turn's question */
export function sightOf(context: MediaContext, groups: readonly SeenTogether[], question: readonly number[]): Sight {
  const layouts = new Map(
    groups.flatMap((group) => [...group].map(([medium, { layout }]) => [medium, layout] as const)),
  );
  const source = allTokens(context, groups, question);
  const held = new Map<number, PrunedTokens[]>();
  const facts = new Map<number, Omit<PrunedTokens, 'rows'>[]>();
  const see = async (place: RunPlace): Promise<void> => {
    const { done, value } = await source.next();
    if (done === true) throw noRun(place);
    const { medium, tokens } = value;
    const { rows: _, ...fact } = tokens;
    listOf(held, medium).push(tokens);
    listOf(facts, medium).push(fact);
  };
  return {
    layoutOf: (medium) => layouts.get(medium),
    async *rowsOf(place) {
      const { medium } = place;
      const layout = layouts.get(medium);
      const run = layout?.runs[place.run];
      if (layout === undefined || run === undefined) throw noRun(place);
      for (let at = run.from; at < run.to; ) {
        const own = listOf(held, medium).find(({ from, to }) => from <= at && at < to);
        if (own === undefined) {
          await see(place);
          continue;
        }
        const rows = rowsIn(own, run);
        at = own.to;
        // The runs of a picture may come in any order.
        if (layout.kind === 'video' && own.to <= run.to) {
          own.rows?.dispose();
          held.set(
            medium,
            listOf(held, medium).filter((one) => one !== own),
          );
        }
        if (rows !== undefined) yield rows;
      }
    },
    media: () =>
      new Map([...facts].map(([medium, list]) => [medium, prunedMedium(layouts.get(medium) as MediumLayout, list)])),
    async close() {
      for (const tokens of [...held.values()].flat()) tokens.rows?.dispose();
      held.clear();
      await source.return(undefined);
    },
  };
}

function listOf<T>(lists: Map<number, T[]>, medium: number): T[] {
  const list = lists.get(medium) ?? [];
  lists.set(medium, list);
  return list;
}

async function* allTokens(context: MediaContext, groups: readonly SeenTogether[], question: readonly number[]) {
  for (const group of groups) {
    const numbers = [...group.keys()];
    for await (const { medium, tokens } of seeMedia(context, [...group.values()], question))
      yield { medium: numbers[medium] as number, tokens };
  }
}

/** The kept tokens that belong to a run; undefined if there are none. */
function rowsIn({ kept, rows }: PrunedTokens, run: Run): KeptRows | undefined {
  const begin = countBelow(kept, run.from);
  const end = countBelow(kept, run.to);
  if (rows === undefined || begin === end) return undefined;
  return { kept: kept.subarray(begin, end), rows: sliceRows(rows, begin, end - begin) };
}

function countBelow(kept: Int32Array, bound: number): number {
  const at = kept.findIndex((token) => token >= bound);
  return at < 0 ? kept.length : at;
}

function prunedMedium(layout: MediumLayout, list: readonly Omit<PrunedTokens, 'rows'>[]): PrunedMedium {
  const pieces = list.toSorted((a, b) => a.from - b.from);
  const kept = new Int32Array(pieces.reduce((sum, piece) => sum + piece.kept.length, 0));
  let at = 0;
  for (const piece of pieces) {
    kept.set(piece.kept, at);
    at += piece.kept.length;
  }
  const hasSalience = pieces[0]?.salience !== undefined;
  const salience = hasSalience ? joinNumbers(pieces.map((piece) => piece.salience as Float32Array)) : undefined;
  return { layout, tokens: tokensOf(layout), kept, salience };
}

function noRun({ medium, run }: RunPlace): SparseVilaError {
  return new SparseVilaError(
    'ERR_TEMPLATE_INVALID',
    `Expected a run of visual tokens for every place in the prompt, found none for run ${run} of medium ${medium}.`,
  );
}
