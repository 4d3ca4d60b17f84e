// Blocks of rows that attend each other, in models whose attention is bidirectional inside a picture (Gemma 3) or a prompt (PaliGemma).

import type { DecoderConfig } from '../models/config';
import type { DecoderRows } from './decoder_rows';

/** The block of each row of a turn's prompt, by its number, or -1; undefined for a model whose rows attend none behind them. */
export function blocksOf(
  { positions, visual, places }: Pick<DecoderRows, 'positions' | 'visual' | 'places'>,
  { bidirectional }: DecoderConfig,
): Int32Array | undefined {
  if (bidirectional === undefined) return undefined;
  if (bidirectional === 'prompt') return new Int32Array(positions.length);
  const blocks = new Int32Array(positions.length).fill(-1);
  let block = 0;
  for (const [i, row] of visual.entries()) {
    const [place, last] = [places[i], places[i - 1]];
    const continues = visual[i - 1] === row - 1 && place?.medium === last?.medium && place?.grid === last?.grid;
    blocks[row] = continues ? block : ++block;
  }
  return blocks;
}

/** For each of the kept rows, the number of kept rows that it attends among them: all of its block's, or those up to itself. */
export function blockEnds(kept: Int32Array, blocks: Int32Array): Int32Array {
  const ends = new Int32Array(kept.length);
  const blockAt = (i: number): number => blocks[kept[i] as number] ?? -1;
  for (let i = kept.length - 1; i >= 0; i--)
    ends[i] = blockAt(i) >= 0 && blockAt(i) === blockAt(i + 1) ? (ends[i + 1] as number) : i + 1;
  return ends;
}
