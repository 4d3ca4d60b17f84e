// A model that records the calls of its decoder, to show the internals of a session (cache, positions, views,
// relevance, logits). Changes nothing.

import type { Decoder } from '../../src/models/decoder';
import type { KvCache } from '../../src/models/kv_cache';
import type { VisionLanguageModel } from '../../src/models/model';
import { readKv } from '../../src/ops/kv_cache';
import type { Position } from '../../src/ops/rope';
import { floats } from '../../src/ops/run';
import type { Tensor } from '../../src/runtime/tensor';

/** One call of `decoder.forward`. */
export interface Call {
  /** Rows before it in the first layer. */
  readonly length: number;
  readonly positions: readonly Position[];
  /** What is added after the first layers, flat [rows, d] each. */
  readonly added: readonly Float32Array[];
  /** Per layer, gathered rows and where the contiguous rest begins; undefined when everything is attended. */
  readonly views: readonly { readonly rows: readonly number[]; readonly tail: number }[] | undefined;
  /** Per layer, if the caller asked for them. */
  readonly columns: Float32Array[];
  /** What enters each layer and what leaves the last, where `hidden` was asked for. */
  readonly hidden: Float32Array[];
}

export interface Watched {
  readonly model: VisionLanguageModel;
  readonly calls: Call[];
  /** Every result of `decoder.scores`. */
  readonly logits: Float32Array[];
  /** Ids given to `decoder.embed`, call by call. */
  readonly embedded: number[][];
  /** Cache rows begin .. end - 1 of the session opened last, one array [2, g, rows, c] per layer. */
  cacheRows(end: number, begin?: number): Float32Array[];
  /** Forgets calls, logits and ids. */
  clear(): void;
}

export function watch(model: VisionLanguageModel, { hidden = false } = {}): Watched {
  const { decoder } = model;
  const calls: Call[] = [];
  const logits: Float32Array[] = [];
  const embedded: number[][] = [];
  let cache: KvCache | undefined;
  return {
    model: {
      ...model,
      decoder: {
        ...decoder,
        cache: (...given) => {
          cache = decoder.cache(...given);
          return cache;
        },
        embed: (ids) => {
          embedded.push(Array.from(ids));
          return decoder.embed(ids);
        },
        forward: recording(decoder, calls, hidden),
        scores: (x, rows) => {
          const scores = decoder.scores(x, rows);
          logits.push(floats(scores).slice());
          return scores;
        },
      },
    },
    calls,
    logits,
    embedded,
    cacheRows: (end, begin = 0) => (cache === undefined ? [] : readRows(cache, decoder.config.headDim, begin, end)),
    clear: () => {
      calls.length = 0;
      logits.length = 0;
      embedded.length = 0;
    },
  };
}

/** `forward` that writes down each call, of a batch of one. */
function recording(decoder: Decoder, calls: Call[], hidden: boolean): Decoder['forward'] {
  return (x, [segment, ...others], options) => {
    if (segment === undefined || others.length > 0) throw new Error('a batch of one');
    const call: Call = {
      length: segment.cache.lengths[0] ?? 0,
      positions: Array.from(segment.positions),
      added: (segment.added ?? []).map((rows) => floats(rows).slice()),
      views: segment.views?.map((view) =>
        view === undefined ? { rows: [], tail: 0 } : { rows: Array.from(view.rows.dataSync()), tail: view.tail },
      ),
      columns: [],
      hidden: [],
    };
    calls.push(call);
    const onColumns = (layer: number, columns: Float32Array): void => {
      call.columns.push(columns.slice());
      segment.onColumns?.(layer, columns);
    };
    const onHidden = (layer: number, state: Tensor): void => {
      if (hidden) call.hidden.push(floats(state).slice());
      options.onHidden?.(layer, state);
    };
    const wanted = segment.onColumns === undefined ? {} : { onColumns };
    return decoder.forward(x, [{ ...segment, ...wanted }], { ...options, onHidden });
  };
}

/** Rows of every layer's keys and values, as f32 [2, g, rows, c], as far as a layer has memory for them. */
export function readRows(cache: KvCache, headDim: number, begin: number, end: number): Float32Array[] {
  return cache.lengths.map((_, layer) => {
    const kv = cache.tensor(layer);
    const rows = readKv(kv, begin, Math.min(end, kv.shape[2] ?? 0), headDim);
    const values = floats(rows).slice();
    rows.dispose();
    return values;
  });
}
