// Which cells of its pictures and videos a turn could attend: kept ones, and for each of them in how many layers it was attended. Plain data.

import type { CellGeometry } from '../image/cells';
import type { Conversation } from '../session/conversation';

/** One plane of a medium: an image, a tile, a thumbnail or a frame. */
export interface PlaneCells {
  /** The frame of a video that it shows; 0 for a picture. */
  readonly frame: number;
  readonly rows: number;
  readonly cols: number;
  /** Where the cells lie on the picture, in pixels. */
  readonly geometry: CellGeometry;
  /** Raster indices of the cells that the decoder has, and in how many layers the answer attends each of them. */
  readonly kept: readonly number[];
  readonly attended: readonly number[];
}

export interface TurnCells {
  /** Number of decoder layers. */
  readonly layers: number;
  /** For each picture and video of the conversation, in its order, the planes. */
  readonly media: readonly { readonly kind: 'image' | 'video'; readonly planes: readonly PlaneCells[] }[];
}

/** @param retrieved per layer the attended visual tokens, as `TurnStats.retrieved` */
export function turnCells(
  { media, places, layers }: Pick<Conversation, 'media' | 'places' | 'layers'>,
  retrieved: readonly Int32Array[] | undefined,
): TurnCells {
  const counts = new Int32Array(places.length).fill(retrieved === undefined ? layers.length : 0);
  for (const layer of retrieved ?? []) for (const token of layer) counts[token] = (counts[token] ?? 0) + 1;
  const found = new Map<string, { kept: number[]; attended: number[] }>();
  for (const [i, { medium, grid, t, row, col }] of places.entries()) {
    const key = `${medium} ${grid} ${t}`;
    const plane = found.get(key) ?? { kept: [], attended: [] };
    found.set(key, plane);
    const width = media[medium]?.prepared.layout.grids[grid]?.w ?? 0;
    plane.kept.push(row * width + col);
    plane.attended.push(counts[i] ?? 0);
  }
  return {
    layers: layers.length,
    media: media.map(({ prepared: { layout } }, medium) => ({
      kind: layout.kind,
      planes: layout.grids.flatMap(({ t, h, w, cells: geometry, frames }, grid) =>
        Array.from({ length: t }, (_, plane) => ({
          ...{ frame: frames[plane] ?? 0, rows: h, cols: w, geometry },
          ...(found.get(`${medium} ${grid} ${plane}`) ?? { kept: [], attended: [] }),
        })),
      ),
    })),
  };
}
