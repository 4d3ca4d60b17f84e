// The turn's view: per layer, which cache rows its decoding attends. All text rows, the retrieved visual rows, and the
// contiguous rest that grows with the answer. Nothing is copied; dropping the view restores everything.

import type { LayerView } from '../models/decoder';
import { int32 } from '../ops/run';
import type { SparsityMethod } from '../sparsity/method';
import type { Conversation } from './conversation';
import { checkSelection } from './selection';

export interface TurnView {
  readonly layers: readonly LayerView[] | undefined;
  /** Per layer, indices into the conversation's visual rows; undefined when all are attended. */
  readonly retrieved: readonly Int32Array[] | undefined;
  dispose(): void;
}

/** Retrieves for every layer. With no `retrieve`, or nothing visual, everything is attended. */
export function turnView(method: SparsityMethod, c: Conversation, relevance: readonly Float32Array[]): TurnView {
  const last = c.visual.at(-1);
  if (method.retrieve === undefined || last === undefined) {
    return { layers: undefined, retrieved: undefined, dispose: () => undefined };
  }
  const tail = last + 1;
  const isVisual = new Uint8Array(tail);
  for (const row of c.visual) isVisual[row] = 1;
  const retrieved = relevance.map((scores, layer) =>
    checkSelection(method.name, 'retrieve', method.retrieve?.(scores, layer), c.visual.length),
  );
  const layers = retrieved.map((indices) => {
    const attended = isVisual.map((visual) => 1 - visual);
    for (const i of indices) attended[c.visual[i] as number] = 1;
    const rows: number[] = [];
    attended.forEach((yes, row) => {
      if (yes === 1) rows.push(row);
    });
    return { rows: int32(rows), tail };
  });
  return {
    layers,
    retrieved,
    dispose: () => {
      for (const { rows } of layers) rows.dispose();
    },
  };
}
