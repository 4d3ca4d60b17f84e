// Calls that ops must refuse, and their messages. Used on every device.

import { attention, gatheredSparseAttention } from '../../src/ops/attention';
import { type DecoderLayerWeights, decoderLayer } from '../../src/ops/decoder_layer';
import { allocState, copyState, deltaRule } from '../../src/ops/delta';
import { allocKv, appendKv, readKv } from '../../src/ops/kv_cache';
import { embed, gatedMlp, linear } from '../../src/ops/linear';
import { layerNorm, rmsNorm } from '../../src/ops/norm';
import { rope } from '../../src/ops/rope';
import { float32, int32 } from '../../src/ops/run';
import { sample } from '../../src/ops/sample';
import { VISION_VECTORS, type VisionBlockWeights, visionBlock } from '../../src/ops/vision_block';
import { loadTensor, packArrays, packMatrix } from '../../src/ops/weights';
import { start } from '../../src/runtime/start';
import type { Tensor } from '../../src/runtime/tensor';
import { MOST_LOGITS } from '../../src/text/draw';
import { keeper } from '../../testing/ops/cases/case';
import { noise } from '../../testing/ops/cases/data';
import {
  decoderLayerData,
  decoderLayerWeights,
  SMALL_LAYER,
  weightTensors,
} from '../../testing/ops/cases/decoder_layer';
import {
  type DeltaLayerSizes,
  deltaLayerData,
  deltaLayerWeights,
  SMALL_DELTA,
} from '../../testing/ops/cases/delta_layer';
import { filledCache } from '../../testing/ops/cases/kv_cache';
import { SMALL_BLOCK, visionBlockData, visionBlockWeights } from '../../testing/ops/cases/vision_block';

/** The tensors of the calls. */
export const keep = keeper();

export const zeros = (...shape: number[]): Tensor =>
  keep.tensor(float32(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape));
const indices = (...values: number[]): Tensor => keep.tensor(int32(values));

export const W = keep.matrix(packArrays([noise('w', 7 * 5)], 5));
const GATED = keep.matrix(packArrays([noise('g', 7 * 5), noise('u', 7 * 5)], 5, { gated: true }));
const DOWN = keep.matrix(packArrays([noise('d', 5 * 7)], 7));
export const DRAW = { temperature: 1, topK: 0, topP: 1, uniform: 0.5 };
export const NONE = zeros(0);
const EPS = keep.tensor(float32([1e-6], [1]));
/** A cache of 11 rows, of which 8 are filled. */
const KV = keep.tensor(
  filledCache(noise('k', 8 * 2 * 6), noise('v', 8 * 2 * 6), { kvHeads: 2, c: 6, type: 'bf16', spare: 3 }),
);
const view = (rows: number[], tail: number, length: number, q = zeros(1, 4, 6), span?: number[]) =>
  gatheredSparseAttention(q, KV, indices(...rows), { tail, length }, span && keep.tensor(int32(span, [1, 2])));
/** Two queries over three keys. */
const masked = (spans: number[], options: { causal?: boolean } = {}) => {
  const tensor = keep.tensor(int32(spans, spans.length % 2 ? [3] : [spans.length / 2, 2]));
  return attention(zeros(2, 2, 6), zeros(3, 2, 6), zeros(3, 2, 6), { ...options, spans: tensor });
};

const LAYER = { ...SMALL_LAYER, t: 2 };
const DATA = decoderLayerData(LAYER);
const WEIGHTS = decoderLayerWeights(DATA, LAYER);
for (const tensor of weightTensors(WEIGHTS)) keep.tensor(tensor);
const CACHE = { kvHeads: LAYER.kvHeads, c: LAYER.c, type: LAYER.kvType, spare: 2 };
const LAYER_KV = keep.tensor(filledCache(DATA.k, DATA.v, CACHE));
const SECOND = indices(0, 4, 0, 1, ...new Array<number>(9).fill(0));
const OTHER_TABLE = indices(...WEIGHTS.options.dataSync<'int32'>().slice(0, 5), 1, ...new Array<number>(7).fill(0));
interface LayerCall {
  readonly x?: Tensor;
  readonly table?: Tensor;
  readonly rows?: readonly number[];
  readonly range?: readonly number[];
  readonly weights?: Partial<DecoderLayerWeights>;
  readonly spans?: Tensor;
}
const layer = ({ x, table, rows = [], range = [0, 150, 0], weights = {}, spans }: LayerCall) =>
  decoderLayer(
    x ?? zeros(2, LAYER.d),
    LAYER_KV,
    table ?? zeros(2, 2, LAYER.c / 2),
    indices(...rows),
    indices(...range),
    { ...WEIGHTS, ...weights },
    spans,
  );

/** Rows of two value heads of width 4 with one key head of width 3, over two rows. */
const DELTA = { keyHeads: 1, valueHeads: 2, keyWidth: 3, valueWidth: 4, taps: 2 };
const STATE = keep.tensor(allocState(DELTA));
const DELTA_VECTORS = zeros(64);
interface RuleCall {
  readonly x?: Tensor;
  readonly gates?: Tensor;
  readonly state?: Tensor;
  readonly vectors?: Tensor;
}
const rule = ({ x, gates, state = STATE, vectors = DELTA_VECTORS }: RuleCall, sizes = DELTA) =>
  deltaRule(x ?? zeros(2, 14), gates ?? zeros(2, 4), state, vectors, sizes);
const DELTA_LAYER: DeltaLayerSizes = { ...SMALL_DELTA, t: 2, before: 0 };
const DELTA_WEIGHTS = deltaLayerWeights(deltaLayerData(DELTA_LAYER), DELTA_LAYER);
for (const tensor of weightTensors(DELTA_WEIGHTS)) keep.tensor(tensor);
const LAYER_STATE = keep.tensor(allocState(DELTA_LAYER));
const deltaLayer = (weights: Partial<DecoderLayerWeights>, state = LAYER_STATE, range = [0, 0, 0]) =>
  decoderLayer(zeros(2, DELTA_LAYER.d), state, zeros(2, 2, 1), indices(), indices(...range), {
    ...DELTA_WEIGHTS,
    ...weights,
  });

const BLOCK = visionBlockWeights(visionBlockData(SMALL_BLOCK), SMALL_BLOCK, keep);
const TOO_MANY = { ...BLOCK.vectors, present: BLOCK.vectors.present | (1 << VISION_VECTORS.indexOf('scale1')) };
const NO_VECTORS = { tensor: NONE, present: 0 };
const block = (x: Tensor, weights: Partial<VisionBlockWeights>) =>
  visionBlock(x, { ...BLOCK, ...weights }, { features: true, columns: false });

const withSource = <T>(body: (source: number) => T): T => {
  const { native } = start();
  const source = native.openMemory(new Float32Array(12));
  try {
    return body(source);
  } finally {
    native.release(source);
  }
};
const part = (source: number, offset: number, rows: number) => ({ source, offset, type: 'f32' as const, rows });

export const REFUSED: readonly (readonly [string, () => unknown, RegExp])[] = [
  ['linear: x of the wrong rank', () => linear(zeros(5), W, NONE), /expected rank 2, received 1/],
  ['linear: other k', () => linear(zeros(2, 6), W, NONE), /expected 6 inputs, the matrix has 5/],
  ['linear: bias of another length', () => linear(zeros(2, 5), W, zeros(6)), /bias: expected 7 elements, received 6/],
  ['linear: a gated matrix with half a bias', () => linear(zeros(2, 5), GATED, zeros(7)), /bias: expected 14 elements/],
  [
    'linear: weights that are not packed',
    () => linear(zeros(2, 5), { ...W, tensor: KV }, NONE),
    /not a packed matrix|shorter than the header/,
  ],
  ['gatedMlp: a plain gate', () => gatedMlp(zeros(2, 5), W, DOWN), /gate_up: expected a gated matrix/],
  ['gatedMlp: other k', () => gatedMlp(zeros(2, 4), GATED, DOWN), /gate_up: expected 4 inputs/],
  ['gatedMlp: down of other inputs', () => gatedMlp(zeros(2, 5), GATED, W), /down: expected 7 inputs/],
  ['embed: an id outside the table', () => embed(W, [0, 7]), /token id 7 is outside the vocabulary of 7/],
  ['embed: a negative id', () => embed(W, [-1]), /token id -1 is outside/],
  ['embed: a gated table', () => embed(GATED, [0]), /not gated/],
  ['rmsNorm: weight of another width', () => rmsNorm(zeros(2, 5), zeros(4), EPS), /weight: expected 5 elements/],
  ['layerNorm: bias of another width', () => layerNorm(zeros(2, 5), zeros(5), zeros(4), EPS), /bias: expected 5/],
  ['layerNorm: no eps', () => layerNorm(zeros(2, 5), zeros(5), zeros(5), NONE), /eps: expected 1/],
  ['rope: an odd head', () => rope(zeros(2, 3, 5), zeros(2, 2, 2)), /even head width/],
  ['rope: a table for other rows', () => rope(zeros(2, 3, 6), zeros(2, 1, 3)), /table: expected/],
  ['attention: q of the wrong rank', () => attention(zeros(2, 6), zeros(2, 1, 6), zeros(2, 1, 6)), /expected rank 3/],
  [
    'attention: k and v of other shapes',
    () => attention(zeros(2, 4, 6), zeros(3, 2, 6), zeros(2, 2, 6)),
    /k, v: expected equal shapes/,
  ],
  [
    'attention: heads that do not divide',
    () => attention(zeros(1, 3, 6), zeros(2, 2, 6), zeros(2, 2, 6)),
    /multiple of/,
  ],
  ['attention: no keys', () => attention(zeros(1, 2, 6), zeros(0, 2, 6), zeros(0, 2, 6)), /at least one row/],
  [
    'attention: causal with more queries than keys',
    () => attention(zeros(3, 2, 6), zeros(2, 2, 6), zeros(2, 2, 6), { causal: true }),
    /as many keys as queries/,
  ],
  ['attention: spans of another shape', () => masked([0, 1, 2]), /spans: expected \[t, 2\]/],
  ['attention: spans with a causal mask', () => masked([0, 1, 0, 2], { causal: true }), /none with causal attention/],
  ['attention: a span past the keys', () => masked([0, 1, 1, 4]), /0 <= from < to <= 3, received 1 and 4/],
  ['attention: a span before the keys', () => masked([-1, 1, 0, 2]), /received -1 and 1/],
  ['attention: an empty span', () => masked([0, 1, 2, 2]), /received 2 and 2/],
  [
    'gathered: a span past the rows',
    () => view([1, 3], 5, 8, undefined, [0, 6]),
    /0 <= from < to <= 5, received 0 and 6/,
  ],
  [
    'decoderLayer: spans of another shape',
    () => layer({ spans: keep.tensor(int32([0, 1], [1, 1, 2])) }),
    /spans: expected \[layers, t, 2\]/,
  ],
  [
    'decoderLayer: a span past the rows',
    () => layer({ spans: keep.tensor(int32([0, 9, 9, 153], [1, 2, 2])) }),
    /received 9 and 153/,
  ],
  [
    'visionBlock: spans of another shape',
    () => visionBlock(zeros(2, 144), BLOCK, { features: true, columns: false, spans: indices(0, 1, 0, 3) }),
    /spans: expected \[t, 2\]/,
  ],
  ['gathered: rows not ascending', () => view([3, 2], 5, 8), /ascending/],
  ['gathered: a row twice', () => view([2, 2], 5, 8), /ascending/],
  ['gathered: a negative row', () => view([-1], 5, 8), /ascending indices below the tail/],
  ['gathered: a row in the tail', () => view([5], 5, 8), /below the tail/],
  ['gathered: a tail past the cached rows', () => view([], 8, 8), /tail <= length/],
  ['gathered: a negative tail', () => view([], -1, 8), /0 <= tail/],
  ['gathered: more rows than the cache has', () => view([], 0, 12), /kv capacity exceeded: 12 rows needed, 11 there/],
  ['gathered: fewer rows than queries', () => view([], 0, 1, zeros(2, 4, 6)), /tail <= length|kv capacity/],
  ['gathered: another head width', () => view([], 0, 8, zeros(1, 4, 7)), /kv: rows hold neither/],
  ['gathered: heads that do not divide', () => view([], 0, 8, zeros(1, 3, 6)), /multiple of the kv heads/],
  ['allocKv: no rows', () => allocKv(2, 0, 6, 'bf16'), /positive sizes/],
  ['appendKv: past the end', () => appendKv(KV, zeros(2, 2, 6), zeros(2, 2, 6), 10), /kv capacity exceeded/],
  ['appendKv: before the start', () => appendKv(KV, zeros(2, 2, 6), zeros(2, 2, 6), -1), /kv capacity exceeded/],
  ['appendKv: other heads', () => appendKv(KV, zeros(1, 3, 6), zeros(1, 3, 6), 0), /expected \[t, kv heads, c\]/],
  ['appendKv: k without v', () => appendKv(KV, zeros(2, 2, 6), zeros(1, 2, 6), 0), /expected \[t, kv heads, c\]/],
  ['readKv: past the end', () => readKv(KV, 0, 12, 6), /begin <= end <= capacity/],
  ['readKv: backwards', () => readKv(KV, 5, 4, 6), /begin <= end/],
  ['decoderLayer: x of another width', () => layer({ x: zeros(2, LAYER.d + 1) }), /qkv: expected 132 inputs/],
  ['decoderLayer: no rows', () => layer({ x: zeros(0, LAYER.d), table: zeros(2, 0, 36) }), /at least one row/],
  ['decoderLayer: a table for other rows', () => layer({ table: zeros(2, 1, 36) }), /table: expected/],
  ['decoderLayer: capacity', () => layer({ range: [0, 151, 0] }), /kv capacity exceeded: 153 rows needed, 152 there/],
  ['decoderLayer: rows not ascending', () => layer({ rows: [4, 3], range: [9, 150, 0] }), /ascending/],
  ['decoderLayer: a tail past the end', () => layer({ range: [151, 150, 0] }), /tail <= length/],
  ['decoderLayer: o of another width', () => layer({ weights: { o: WEIGHTS.down } }), /o: expected 504 inputs/],
  ['decoderLayer: a plain gate', () => layer({ weights: { gateUp: WEIGHTS.qkv } }), /gated|inputs/],
  ['decoderLayer: no norm', () => layer({ weights: { vectors: NONE } }), /vectors: expected \d+ elements/],
  ['decoderLayer: an index past the ranges', () => layer({ weights: { options: SECOND } }), /an index within ranges/],
  [
    'decoderLayer: a table that is not there',
    () => layer({ weights: { options: OTHER_TABLE } }),
    /number of a rotary table/,
  ],
  ['decoderLayer: columns of an unknown kind', () => layer({ range: [0, 150, 3] }), /columns 0, 1, 2, or less/],
  [
    'decoderLayer: columns of more rows than there are',
    () => layer({ range: [0, 150, -3] }),
    /columns 0, 1, 2, or less/,
  ],
  ['deltaRule: x of another width', () => rule({ x: zeros(2, 15) }), /x: expected query, key and value heads/],
  ['deltaRule: gates of other rows', () => rule({ gates: zeros(1, 4) }), /gates: expected b and a/],
  ['deltaRule: another state', () => rule({ state: LAYER_STATE }), /state: expected \d+ elements/],
  ['deltaRule: vectors too few', () => rule({ vectors: zeros(48) }), /vectors: expected 64 elements, received 48/],
  ['deltaRule: heads that do not divide', () => rule({}, { ...DELTA, keyHeads: 3 }), /divide over the key heads/],
  ['deltaRule: no taps', () => rule({}, { ...DELTA, taps: 0 }), /positive sizes/],
  ['deltaRule: too many taps', () => rule({}, { ...DELTA, taps: 17 }), /at most 16 rows/],
  ['allocState: no heads', () => allocState({ ...DELTA, valueHeads: 0 }), /positive sizes/],
  ['copyState: no state', () => copyState(KV), /expected rank 1/],
  ['delta layer: a cache in the place of a state', () => deltaLayer({}, LAYER_KV), /state: expected \d+ elements/],
  ['delta layer: columns', () => deltaLayer({}, LAYER_STATE, [0, 0, 1]), /no columns of a delta layer/],
  ['delta layer: qkv without z', () => deltaLayer({ qkv: DELTA_WEIGHTS.gateUp }), /gated|queries, keys, values and z/],
  ['delta layer: no matrix of gates', () => deltaLayer({ ba: DELTA_WEIGHTS.o }), /ba: expected/],
  ['delta layer: o of other inputs', () => deltaLayer({ o: DELTA_WEIGHTS.down }), /o: expected 126 inputs/],
  ['visionBlock: heads that do not divide', () => block(zeros(2, 144), { heads: 5 }), /divisor of the width/],
  ['visionBlock: x of another width', () => block(zeros(2, 142), {}), /qkv: expected 142 inputs/],
  [
    'visionBlock: a bias too many',
    () => block(zeros(2, 144), { vectors: TOO_MANY }),
    /vectors: expected 1664 elements/,
  ],
  ['visionBlock: no norm', () => block(zeros(2, 144), { vectors: NO_VECTORS }), /vectors: a required one is absent/],
  [
    'visionBlock: a table for other rows',
    () => visionBlock(zeros(2, 144), BLOCK, { features: true, columns: false, table: zeros(2, 1, 36) }),
    /table: expected \[2, n, c \/ 2\]/,
  ],
  ['visionBlock: no rows', () => block(zeros(0, 144), {}), /heads: expected|at least/],
  ['visionBlock: fc2 of other inputs', () => block(zeros(2, 144), { fc2: BLOCK.out }), /fc2: expected 203 inputs/],
  ['allocKv: more than fits anywhere', () => allocKv(2 ** 30, 2 ** 30, 2 ** 20, 'f32'), /of memory for a KV cache/],
  ['allocKv: more than this machine has', () => allocKv(8, 2 ** 30, 256, 'bf16'), /of memory for a KV cache/],
  ['loadTensor: negative sizes', () => withSource((s) => loadTensor(part(s, 0, 1), [-1, -4])), /sizes of 0 or more/],
  [
    'loadTensor: sizes whose product overflows',
    () => withSource((s) => loadTensor(part(s, 0, 1), [65536, 65536, 65536, 65536])),
    /fits into memory|outside its file/,
  ],
  ['packMatrix: no parts', () => packMatrix([], 4), /at least one part/],
  ['packMatrix: an unknown source', () => packMatrix([part(999999, 0, 1)], 4), /no such source: 999999/],
  [
    'packMatrix: past its source',
    () => withSource((s) => packMatrix([part(s, 16, 3)], 4)),
    /outside its file: bytes 16 to 64 of 48/,
  ],
  ['packMatrix: a negative offset', () => withSource((s) => packMatrix([part(s, -4, 1)], 4)), /outside its file/],
  [
    'packMatrix: gate and up of other rows',
    () => withSource((s) => packMatrix([part(s, 0, 1), part(s, 0, 2)], 4, { gated: true })),
    /two parts of equal rows/,
  ],
  ['packMatrix: k = 0', () => withSource((s) => packMatrix([part(s, 0, 1)], 0)), /bad type or k/],
  [
    'loadTensor: past its source',
    () => withSource((s) => loadTensor({ source: s, offset: 0, type: 'f32' }, [13])),
    /outside its file/,
  ],
  [
    'loadTensor: a released source',
    () => loadTensor({ source: withSource((s) => s), offset: 0, type: 'f32' }, [1]),
    /no such source/,
  ],
  ['sample: a draw too few', () => sample(zeros(2, 5), DRAW), /parameters for each row of logits/],
  ['sample: one bad draw', () => sample(zeros(2, 5), DRAW, { ...DRAW, uniform: 1 }), /a uniform number in/],
  ['sample: three dimensions', () => sample(zeros(1, 1, 5), DRAW), /logits: expected \[v\] or \[rows, v\]/],
  ['sample: too many logits', () => sample(zeros(1, MOST_LOGITS + 1), DRAW), /at most 524288, received 524289/],
  ['sample: no number', () => sample(zeros(5), { ...DRAW, temperature: Number.NaN }), /expected temperature/],
  ['sample: a number of 1', () => sample(zeros(5), { ...DRAW, uniform: 1 }), /a uniform number in \[0, 1\)/],
];

/** Calls that can be refused only by reading the values of rows, which the host cannot do on a GPU: there, kernels read no such row. */
export const HOST_ONLY =
  /^(gathered: rows not|gathered: a row|gathered: a negative row|decoderLayer: rows not|attention: an? (empty )?span|gathered: a span|decoderLayer: a span)/;
