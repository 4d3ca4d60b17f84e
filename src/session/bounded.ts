// Films in a cache of bounded size: after every block of frames, a method chooses the rows of the film that stay in each layer that attends everything, and the
// others are removed from the cache. Rows from before the film do not change, so that marks stay valid. Source: InfiniPot-V, arXiv 2506.15745.

import { attendsAll } from '../models/config';
import { readKv } from '../ops/kv_cache';
import { floats } from '../ops/run';
import type { Bound, Matrix } from '../sparsity/method';
import { type CacheLayer, placesOf, type VisualToken } from './conversation';
import { addRows, framePieces, openingOf, runPiece } from './local';
import { keepVisual } from './permanent';
import type { PrefillContext } from './prefill';
import type { Run } from './prefill_run';
import { checkSelection } from './selection';

/** How a method bounds films; undefined where it does not, and where all of a prompt attends to itself. */
export function boundOf({ method, model }: Pick<PrefillContext, 'method' | 'model'>): Bound | undefined {
  return model.decoder.config.bidirectional === 'prompt' ? undefined : method.bound;
}

/** Runs the rows of an opening frame by frame, and adds them to the conversation; before a block's next frame the block's rows shrink. */
export async function runBounded(context: PrefillContext, run: Run): Promise<void> {
  const { conversation } = context;
  const opening = openingOf(run, conversation);
  for (const { begin, end } of framePieces(run, opening)) {
    const [last, next] = [conversation.places.at(-1), run.rows.places[conversation.places.length - opening.shown]];
    if (next !== undefined && !isSameFrame(last, next)) shrinkFilm(context);
    await runPiece(context, opening, { begin, end });
    addRows(conversation, opening, begin, end);
  }
}

const isSameFrame = (a: VisualToken | undefined, b: VisualToken): boolean =>
  a?.medium === b.medium && a.grid === b.grid && a.t === b.t;

/** Shrinks the rows of the last film, if its last frame ends a block and there are more rows than the budget. */
export function shrinkFilm(context: PrefillContext): void {
  const { conversation, model, method } = context;
  const bound = boundOf(context);
  const last = conversation.places.at(-1);
  if (bound === undefined || last === undefined || (last.t + 1) % bound.every !== 0) return;
  const first = conversation.places.findIndex(({ medium, grid }) => medium === last.medium && grid === last.grid);
  const ofFrame = conversation.places.filter((place) => isSameFrame(place, last)).length;
  const budget = bound.frames * ofFrame;
  const { kvHeads: heads } = model.decoder.config;
  for (const [layer, { tokens }] of conversation.layers.entries()) {
    const old = tokens.findIndex((token) => token >= first);
    if (!attendsAll(model.decoder.config, layer) || old < 0 || tokens.length - old <= budget) continue;
    const rows = readFilm(context, layer, old);
    const places = placesOf(conversation, layer, old);
    const view = { layer, places, budget, heads, keys: () => rows(0), values: () => rows(1) };
    const kept = checkSelection(method.name, 'bound', bound.select(view), places.length);
    keepVisual(conversation, layer, { old, kept: kept.slice(0, budget) });
  }
}

/** Reads keys (0) or values (1) of a layer's visual rows from the old-th on: f32 [rows, kvHeads, c]. */
function readFilm({ conversation, model }: PrefillContext, layer: number, old: number): (half: 0 | 1) => Matrix {
  const { headDim: c, kvHeads: g } = model.decoder.config;
  const { visual, length } = conversation.layers[layer] as CacheLayer;
  const own = visual.slice(old);
  const begin = own[0] as number;
  const tensor = readKv(conversation.cache.tensor(layer), begin, length, c);
  const values = floats(tensor).slice();
  tensor.dispose();
  return (half) => {
    const data = new Float32Array(own.length * g * c);
    for (let head = 0; head < g; head++)
      for (const [i, row] of own.entries()) {
        const from = ((half * g + head) * (length - begin) + row - begin) * c;
        data.set(values.subarray(from, from + c), (i * g + head) * c);
      }
    return { data, width: g * c };
  };
}
