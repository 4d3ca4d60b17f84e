// The first level of a retrieval in two levels: frames are scored by the mean of their keys or by some of them, and the question is prefilled over the frames that
// each layer has chosen. The cost of a question grows with the number of frames and the rows of the chosen ones, not with all rows.
// Source: ReKV, arXiv 2503.00540, section 3.2; Becomebright/ReKV.

import { attendsAll, type DecoderConfig } from '../models/config';
import type { VisionLanguageModel } from '../models/model';
import type { Position } from '../ops/rope';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { FramePlace, Matrix, SparsityMethod } from '../sparsity/method';
import { topK } from '../sparsity/top_k';
import { frameMeans, product, squaredDistance, takeRows } from '../sparsity/vectors';
import { chunks } from './chunks';
import type { CacheLayer, Conversation, FrameKey, VisualToken } from './conversation';
import { checkSelection } from './selection';
import { attendedRows, type Relevance, viewIn } from './view';

/** A frame of a conversation: consecutive visual tokens. */
export interface Frame extends FramePlace {
  /** Its first token, as an index into the conversation's places. */
  readonly first: number;
}

/** Whether a question of this turn attends chosen frames. Not where all of a prompt attends to itself. */
export function scoresFrames(
  { retrieve }: SparsityMethod,
  { decoder: { config } }: VisionLanguageModel,
  hasVisual: boolean,
): boolean {
  return retrieve?.frames !== undefined && hasVisual && config.bidirectional !== 'prompt';
}

/** The frames of a conversation from a token on, in their order: runs of tokens of one plane. */
export function framesOf({ places }: Conversation, from = 0): Frame[] {
  const frames: (Frame & { rows: number })[] = [];
  for (let i = from; i < places.length; i++) {
    const { medium, grid, t } = places[i] as VisualToken;
    const last = frames.at(-1);
    if (last?.medium === medium && last.grid === grid && last.t === t) last.rows++;
    else frames.push({ medium, grid, t, first: i, rows: 1 });
  }
  return frames;
}

/** Tokens whose keys are read in one call. */
const READ = 4096;

/** Makes the keys by which frames are scored where they are missing, in all layers that attend everything. The rows of these are in the tensors of the cache. */
export function indexFrames(
  context: Pick<QuestionContext, 'model' | 'method' | 'conversation'>,
  frames: readonly Frame[],
): void {
  const { conversation } = context;
  const { decoder } = context.model;
  const layers = [...conversation.layers.keys()].filter((layer) => attendsAll(decoder.config, layer));
  const keys = conversation.frameKeys[layers[0] ?? 0] as Map<number, FrameKey>;
  const missing = frames.filter(({ first, rows }) => keys.get(first)?.rows !== rows);
  for (let from = 0; from < missing.length; ) {
    let to = from + 1;
    const begin = (missing[from] as Frame).first;
    while (to < missing.length && endOf(missing[to]) - begin <= READ && missing[to]?.first === endOf(missing[to - 1]))
      to++;
    indexRun(context, layers, missing.slice(from, to));
    from = to;
  }
}

const endOf = (frame: Frame | undefined): number => (frame?.first ?? 0) + (frame?.rows ?? 0);

/** Consecutive frames. Their rows are the same in all layers; there may be text between them. */
function indexRun(
  { model: { decoder }, method, conversation }: Pick<QuestionContext, 'model' | 'method' | 'conversation'>,
  layers: readonly number[],
  frames: readonly Frame[],
): void {
  const { layers: cached, places, cache, frameKeys } = conversation;
  const { visual } = cached[layers[0] as number] as CacheLayer;
  const [begin, end] = [(frames[0] as Frame).first, endOf(frames.at(-1))];
  const firstRow = visual[begin] as number;
  const positions = new Array<Position>((visual[end - 1] as number) + 1 - firstRow).fill(0);
  for (let token = begin; token < end; token++)
    positions[(visual[token] as number) - firstRow] = places[token]?.position ?? 0;
  for (const [i, keys] of decoder.keys(layers, cache, firstRow, positions).entries()) {
    const width = keys.length / positions.length;
    for (const { first, rows } of frames) {
      const own = new Float32Array(rows * width);
      for (const [at, row] of visual.slice(first, first + rows).entries())
        own.set(keys.subarray((row - firstRow) * width, (row - firstRow + 1) * width), at * width);
      const known = { keys: frameKeysOf({ data: own, width }, method.retrieve?.frameKeys), rows };
      frameKeys[layers[i] as number]?.set(first, known);
    }
  }
}

/** Of a frame's keys, f32 [rows, width], the mean; or the `count` ones that differ most from it. */
export function frameKeysOf(keys: Matrix, count: number | undefined): Float32Array {
  const mean = frameMeans(keys, 1);
  if (count === undefined) return mean.data;
  const rows = keys.data.length / keys.width;
  return takeRows(
    keys,
    topK(
      Float32Array.from({ length: rows }, (_, i) => squaredDistance(keys, i, mean, 0)),
      count,
    ),
  );
}

/** The sum over heads of the largest product of a query f32 [heads, c] and some keys f32 [n, kvHeads, c], whose heads are repeated as attention repeats them. */
export function largestProducts(
  query: Float32Array,
  keys: Float32Array,
  { headDim: c, kvHeads }: Pick<DecoderConfig, 'headDim' | 'kvHeads'>,
): number {
  const share = query.length / c / kvHeads;
  const [queries, rows] = [
    { data: query, width: c },
    { data: keys, width: c },
  ];
  let sum = 0;
  for (let head = 0; head < query.length / c; head++) {
    let largest = Number.NEGATIVE_INFINITY;
    for (let row = Math.floor(head / share); row < keys.length / c; row += kvHeads)
      largest = Math.max(largest, product(queries, head, rows, row));
    sum += largest;
  }
  return sum;
}

/** The cosine of a query f32 [heads, c] and keys f32 [kvHeads, c] whose heads are repeated as attention repeats them, heads side by side; 0 for zeros. */
export function frameScores(query: Float32Array, means: readonly Float32Array[], headDim: number): Float32Array {
  const width = means[0]?.length ?? 0;
  const share = query.length / Math.max(1, width);
  // The keys of a head are repeated for the queries that share it, whose sum therefore gives the dot product.
  const sums = new Float64Array(width);
  for (const [i, value] of query.entries()) {
    const head = Math.floor(i / headDim / share);
    sums[head * headDim + (i % headDim)] = (sums[head * headDim + (i % headDim)] as number) + value;
  }
  const length = lengthOf(query) * Math.sqrt(share);
  return Float32Array.from(means, (mean) => {
    const dot = mean.reduce((sum, value, j) => sum + value * (sums[j] as number), 0);
    const norm = length * lengthOf(mean);
    return norm === 0 ? 0 : dot / norm;
  });
}

const lengthOf = (values: Float32Array): number => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));

interface QuestionContext {
  readonly model: VisionLanguageModel;
  readonly method: SparsityMethod;
  readonly conversation: Conversation;
  readonly pace: () => Promise<void>;
}

/**
 * Runs the rows from `question` on, which follow the cached ones, through all layers: each first scores the frames with its own queries, and then
 * attends all text and the chosen frames.
 */
export async function runOverFrames(
  context: QuestionContext,
  { x, positions }: { readonly x: Tensor; readonly positions: readonly Position[] },
  question: number,
): Promise<Relevance & { scores: Tensor }> {
  const { model, conversation } = context;
  const { config } = model.decoder;
  const frames = framesOf(conversation);
  indexFrames(context, frames);
  const asked = positions.slice(question);
  const [relevance, candidates]: [Float32Array[], Int32Array[]] = [[], []];
  let h = start().tf.slice(x, [question, 0], [asked.length, x.shape[1] as number]);
  try {
    for (const [layer, { visual }] of conversation.layers.entries()) {
      const isFull = attendsAll(config, layer);
      const chosen = isFull ? chooseFrames(context, h, layer, frames) : Int32Array.from(visual.keys());
      const { y, columns } = await runLayer(context, h, asked, { layer, chosen });
      h.dispose();
      h = y;
      relevance.push(columns);
      candidates.push(chosen);
    }
    return { scores: model.decoder.scores(h, [asked.length - 1]), relevance, candidates };
  } finally {
    h.dispose();
  }
}

/** The visual rows of the frames that a layer chooses, as indices among its visual rows. */
function chooseFrames(
  { model, method, conversation: { frameKeys } }: QuestionContext,
  h: Tensor,
  layer: number,
  frames: readonly Frame[],
): Int32Array {
  const keys = frameKeys[layer] as Map<number, FrameKey>;
  const known = frames.map(({ first }) => (keys.get(first) as FrameKey).keys);
  const query = model.decoder.meanQuery(layer, h);
  const { config } = model.decoder;
  const scores =
    method.retrieve?.frameKeys === undefined
      ? frameScores(query, known, config.headDim)
      : Float32Array.from(known, (own) => largestProducts(query, own, config));
  const places = frames.map(({ medium, grid, t, rows }) => ({ medium, grid, t, rows }));
  const given = method.retrieve?.frames?.(scores, layer, places);
  const chosen = checkSelection(method.name, 'retrieve.frames', given, frames.length);
  const rows: number[] = [];
  for (const at of chosen) {
    const { first, rows: n } = frames[at] as Frame;
    for (let token = first; token < first + n; token++) rows.push(token);
  }
  return Int32Array.from(rows);
}

/**
 * Runs the question's rows h through a layer over the chosen visual rows, in a layer that attends all rows. `columns`: the relevance of the chosen
 * ones; 0 in other layers.
 */
async function runLayer(
  { model, method, conversation, pace }: QuestionContext,
  h: Tensor,
  positions: readonly Position[],
  { layer, chosen }: { readonly layer: number; readonly chosen: Int32Array },
): Promise<{ y: Tensor; columns: Float32Array }> {
  const { tf } = start();
  const t = positions.length;
  const own = conversation.layers[layer] as CacheLayer;
  const attended = attendsAll(model.decoder.config, layer) ? attendedRows(own, chosen) : undefined;
  const view = attended && viewIn(conversation, layer, attended, t);
  const views = Array.from(conversation.layers, (_, i) => (i === layer ? view : undefined));
  const isChosen = new Set(Array.from(chosen, (at) => own.visual[at] as number));
  const places = (attended?.rows ?? []).flatMap((row, i) => (isChosen.has(row) ? [i] : []));
  const columns = new Float32Array(chosen.length);
  const first = t - Math.min(t, method.retrieve?.window ?? t);
  const outputs: Tensor[] = [];
  try {
    for (const { begin, end } of chunks(t, [first])) {
      const add = (_: number, values: Float32Array): void => {
        for (const [i, at] of places.entries())
          columns[i] = (columns[i] as number) + ((values[at] as number) * (end - begin)) / (t - first);
      };
      const onColumns = view !== undefined && begin >= first ? add : undefined;
      const segment = { cache: conversation.cache, positions: positions.slice(begin, end), views, onColumns };
      const part = tf.slice(h, [begin, 0], [end - begin, h.shape[1] as number]);
      try {
        outputs.push(await model.decoder.forward(part, [segment], { layers: { from: layer, to: layer + 1 }, pace }));
      } finally {
        part.dispose();
      }
    }
    return { y: outputs.length === 1 ? (outputs[0] as Tensor).clone() : tf.concat(outputs), columns };
  } finally {
    for (const tensor of [...(view ? [view.rows] : []), ...outputs]) tensor.dispose();
  }
}
