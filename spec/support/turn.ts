// One turn of a new session with all intermediate results, in the layout of the reference fixtures.

import type { ImageInput } from '../../src/image/input';
import type { VideoInput } from '../../src/models/media';
import type { VisionLanguageModel } from '../../src/models/model';
import type { KvType } from '../../src/ops/kv_cache';
import type { Position } from '../../src/ops/rope';
import { float32 } from '../../src/ops/run';
import { createSession, type TurnStats } from '../../src/session/session';
import type { SparsityMethod } from '../../src/sparsity/method';
import { sparseVila } from '../../src/sparsity/sparse_vila';
import type { Tokenizer } from '../../src/text/tokenizer';
import { watch } from './watch';

/** A method that drops nothing but computes salience and relevance. */
export const keepAll = (): SparsityMethod => sparseVila({ prefillSparsity: 0, decodeSparsity: 0 });

export interface TurnRequest {
  readonly images: readonly ImageInput[];
  readonly videos?: readonly VideoInput[];
  readonly question: string;
  readonly kv: KvType;
  readonly maxTokens: number;
  readonly method?: SparsityMethod;
}

export interface TurnRecord {
  readonly text: string;
  readonly stats: TurnStats;
  /** The prompt's ids, one image marker per image, without the end tokens. */
  readonly promptIds: readonly number[];
  /** The positions of all prompt rows. */
  readonly positions: readonly Position[];
  /** What is added to all prompt rows after the first layers, flat [t, d] each. */
  readonly added: readonly Float32Array[];
  /** Per layer what enters it, and last the final norm of what leaves them, each flat [t, d]. */
  readonly hidden: readonly Float32Array[];
  /** Logits of every prompt row, flat [t, v]. */
  readonly promptLogits: Float32Array;
  /** Per layer, relevance of the visual rows. */
  readonly relevance: readonly Float32Array[];
  /** Highest logit of each step. */
  readonly greedy: readonly number[];
}

export async function recordTurn(model: VisionLanguageModel, request: TurnRequest): Promise<TurnRecord> {
  const { images, videos = [], question, kv, maxTokens, method = keepAll() } = request;
  // The prompt is the longest text that the session tokenizes.
  let ids: number[] = [];
  const encode: Tokenizer['encode'] = (text, ...options) => {
    const found = model.tokenizer.encode(text, ...options);
    if (found.length > ids.length) ids = found;
    return found;
  };
  const tokenizer = { ...model.tokenizer, encode };
  const watched = watch({ ...model, tokenizer, stopIds: [] }, { hidden: true });
  using session = createSession(watched.model, { method, kv });
  const answer = session.ask(question, { images, videos, maxTokens });
  const text = await answer.text();
  const { stats } = answer;
  const [opening, second] = watched.calls;
  // A prompt that attends to itself is one call.
  const isWhole = model.decoder.config.bidirectional === 'prompt';
  const asked = isWhole && opening ? { ...opening, positions: [], hidden: [] } : second;
  if (stats === undefined || opening === undefined || asked === undefined)
    throw new Error('a turn of two forward calls');
  const before = watched.embedded[0] ?? [];
  const around = (text: string | undefined): number[] => (text === undefined ? [] : model.tokenizer.encode(text));
  const visual: number[] = [];
  let row = before.length;
  for (const { kept, layout } of stats.media)
    for (const { from, to, before: lead, after, newlines = 0 } of layout.runs) {
      row += around(lead).length;
      for (const token of kept) if (token >= from && token < to) visual.push(row++);
      row += around(after).length + newlines;
    }
  const leaving = joined([opening.hidden.at(-1), asked.hidden.at(-1)]);
  const width = model.decoder.config.hiddenSize;
  return {
    text,
    stats,
    promptIds: model.tokenizer.prefixIds[0] === ids[0] ? ids : [...model.tokenizer.prefixIds, ...ids],
    positions: [...opening.positions, ...asked.positions],
    added: opening.added.map((rows) => joined([rows, new Float32Array(asked.positions.length * width)])),
    hidden: [
      ...opening.hidden.slice(0, -1).map((state, layer) => joined([state, asked.hidden[layer]])),
      onTensor(leaving, width, (x) => {
        const y = model.decoder.norm(x);
        const values = y.dataSync<'float32'>().slice();
        y.dispose();
        return values;
      }),
    ],
    promptLogits: onTensor(leaving, width, (x) => model.decoder.logits(x, true).slice()),
    relevance: asked.columns.map((columns) => Float32Array.from(visual, (at) => columns[at] ?? Number.NaN)),
    greedy: watched.logits.map(argmax),
  };
}

function onTensor<T>(values: Float32Array, width: number, work: (x: ReturnType<typeof float32>) => T): T {
  const x = float32(values, [values.length / width, width]);
  try {
    return work(x);
  } finally {
    x.dispose();
  }
}

export function joined(arrays: readonly (Float32Array | undefined)[]): Float32Array {
  return Float32Array.from(arrays.flatMap((array) => Array.from(array ?? [])));
}

export function argmax(values: Float32Array): number {
  return values.reduce((best, value, i) => (value > (values[best] ?? Number.NaN) ? i : best), 0);
}
