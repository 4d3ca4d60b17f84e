// From logits to the next token id: repetition penalty → temperature → top-k → top-p → draw, in the order of transformers. ops/sample defines
// the last four bit for bit; this file does the same for logits that JavaScript holds, which the penalty needs. Knows no model and no text.
// It never sorts the whole vocabulary, and allocates nothing of its size after the first call.
// Source: transformers `generation/logits_process.py` (RepetitionPenalty, Temperature, TopK, TopP warpers); nucleus: arXiv 1904.09751;
// penalty: arXiv 1909.05858, §4.1.
import { randomInt } from 'node:crypto';
import { SparseVilaError } from '../errors';
import { type Checks, checkOptions, invalidOption, NATURAL, SEED } from '../options';
import { type Draw, MOST_LOGITS, roundedDown, sampleWeight } from './draw';
import { replayable, uniform } from './random';

export interface SamplingOptions {
  /** Divides the logits; absent or 0 means greedy: the highest logit, the lowest id on ties. */
  temperature?: number;
  /** Keep the k highest logits, and all that equal the k-th; 0 keeps all. */
  topK?: number;
  /** Keep the fewest, most probable tokens that together have at least this probability, in (0, 1]. */
  topP?: number;
  /** Logits of ids that are already in the history are divided by this if positive, multiplied if negative; 1 has no effect. */
  repetitionPenalty?: number;
  /** Integer in [0, 2^53). The same seed, options and logits give the same ids; without a seed, a random one is used. */
  seed?: number;
}

export interface Sampler {
  /**
   * The next id from `logits`, f32 [vocabulary], which are not changed. `history`: prompt and generated ids, image placeholders included;
   * used only under a repetition penalty.
   * @throws SparseVilaError `ERR_LOGITS_INVALID` (NaN, +∞, all −∞, none) or `ERR_OPTION_INVALID` (a history id outside the logits)
   */
  sample(logits: Float32Array, history: readonly number[] | Int32Array): number;
  /** The parameters for ops/sample, instead of a call of `sample`; undefined under a repetition penalty, which needs the logits. */
  draw(): Draw | undefined;
  /** A sampler that draws what this one is going to draw, without taking it. Valid until this one draws. */
  ahead(): Sampler;
  /** The seed in use, with which the answer can be reproduced. */
  readonly seed: number;
}

/** The sampling defaults of a checkpoint. */
export interface SamplingDefaults extends SamplingOptions {
  /** Why the checkpoint's own sampling is unsupported; thrown only when it is requested, because greedy decoding does not need it. */
  readonly unusable?: SparseVilaError;
}

/** The smallest normal number of f32. As top-p it keeps only the most probable token, as do smaller values, including 0. */
export const LEAST_TOP_P: number = 2 ** -126;

const isF32 = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(Math.fround(value));

const RULES: Checks<SamplingOptions> = {
  temperature: { expected: 'a finite number of at least 0', accepts: (value) => isF32(value) && value >= 0 },
  topK: NATURAL,
  topP: { expected: 'a number above 0 and at most 1', accepts: (value) => isF32(value) && value > 0 && value <= 1 },
  repetitionPenalty: {
    expected: 'a finite number above 0',
    accepts: (value) => isF32(value) && Math.fround(value) > 0,
  },
  seed: SEED,
};

/**
 * A sampler with its own random stream; options that are not given are the checkpoint's.
 * @throws SparseVilaError `ERR_OPTION_INVALID` for an unknown option, a value out of range, or topK/topP without a temperature;
 *   `ERR_CONFIG_INVALID` if the checkpoint's own sampling is requested and unsupported
 */
export function createSampler(options: SamplingOptions, { unusable, ...defaults }: SamplingDefaults = {}): Sampler {
  const {
    temperature = 0,
    repetitionPenalty = 1,
    seed = randomInt(2 ** 47),
    ...given
  } = checkSampling({ ...defaults, ...options });
  if (unusable !== undefined && options.temperature === undefined) throw unusable;
  const topK = Math.min(given.topK ?? 0, MOST_LOGITS); // The op reads an int32.
  const topP = Math.max(Math.fround(given.topP ?? 1), LEAST_TOP_P); // The op reads an f32.
  const penalize =
    repetitionPenalty === 1 ? (logits: Float32Array): Float32Array => logits : penalizer(repetitionPenalty);
  const isGreedy = Math.fround(temperature) === 0;
  const stream = replayable(uniform(seed));
  const drawn = drawer(Math.fround(temperature), topK, topP);
  const over = (random: () => number): Sampler => ({
    seed,
    sample: (logits, history) => {
      const scores = penalize(logits, history);
      const best = argmax(scores);
      return isGreedy ? best : drawn(scores, best, random());
    },
    draw: () => (repetitionPenalty === 1 ? { temperature, topK, topP, uniform: isGreedy ? 0 : random() } : undefined),
    ahead: () => over(stream.ahead()),
  });
  return over(stream.next);
}

/** Checks the options. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function checkSampling(options: SamplingOptions): SamplingOptions {
  const given = checkOptions('sampling', options, RULES);
  const { temperature, topK, topP } = given;
  if (temperature === undefined && (topK !== undefined || topP !== undefined)) {
    const why = 'because topK and topP do nothing in greedy decoding: 1, or 0 to decode greedily all the same';
    throw invalidOption('sampling', `a temperature (${why})`, 'none');
  }
  return given;
}

/** The lowest index of the highest score, f32 [v], in one pass. */
function argmax(scores: Float32Array): number {
  let best = Number.NEGATIVE_INFINITY;
  let at = -1;
  for (let i = 0; i < scores.length; i++) {
    const score = scores[i] ?? Number.NaN;
    if (score > best) {
      best = score;
      at = i;
    } else if (!(score <= best)) {
      throw invalidLogits(`finite logits or -Infinity, received NaN at id ${i}`);
    }
  }
  if (at < 0) throw invalidLogits(`a logit above -Infinity, received none among ${scores.length}`);
  if (best === Number.POSITIVE_INFINITY)
    throw invalidLogits(`finite logits or -Infinity, received +Infinity at id ${at}`);
  return at;
}

function invalidLogits(what: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_LOGITS_INVALID',
    `Expected ${what}. The weights or a kernel are broken, not the sampling options`,
  );
}

/** Scores with the penalty applied once for each distinct id of the history, f32 [v], in a reused buffer. */
function penalizer(penalty: number): (logits: Float32Array, history: readonly number[] | Int32Array) => Float32Array {
  let scores = new Float32Array(0);
  return (logits, history) => {
    if (scores.length !== logits.length) scores = new Float32Array(logits.length);
    scores.set(logits);
    for (const id of history) {
      const logit = logits[id];
      if (logit === undefined)
        throw invalidOption('sampling', `ids from 0 to ${logits.length - 1} in the history`, `${id}`);
      const score = Math.fround(logit < 0 ? logit * penalty : logit / penalty);
      if (Number.isFinite(logit) && !Number.isFinite(score))
        throw invalidOption('sampling', 'a repetitionPenalty closer to 1 that keeps logits finite', `${penalty}`);
      scores[id] = score;
    }
    return scores;
  };
}

/** Temperature, top-k, top-p and the draw by a random number. `best` is the index of the highest score. */
function drawer(
  temperature: number,
  topK: number,
  topP: number,
): (scores: Float32Array, best: number, random: number) => number {
  let ids = new Int32Array(0);
  let weights = new Float64Array(0);
  const kth = kthHighest(topK);
  return (scores, best, random) => {
    if (scores.length > MOST_LOGITS) throw invalidLogits(`at most ${MOST_LOGITS} logits, received ${scores.length}`);
    if (ids.length !== scores.length) {
      ids = new Int32Array(scores.length);
      weights = new Float64Array(scores.length);
    }
    const highest = scores[best] ?? 0;
    const floor = topK > 0 && topK < scores.length ? kth(scores) : Number.NEGATIVE_INFINITY;
    let count = 0;
    let mass = 0;
    for (let id = 0; id < scores.length; id++) {
      const score = scores[id] ?? 0;
      if (score < floor) continue;
      const weight = sampleWeight(score, highest, temperature);
      if (weight === 0) continue;
      weights[id] = weight;
      ids[count++] = id;
      mass += weight;
    }
    const kept = topP < 1 ? nucleus(ids.subarray(0, count), scores, weights, topP * mass) : ids.subarray(0, count);
    return drawFrom(kept, weights, roundedDown(random));
  };
}

/** The id whose interval of the kept mass contains `u` ∈ [0, 1). */
function drawFrom(kept: Int32Array, weights: Float64Array, u: number): number {
  let mass = 0;
  for (const id of kept) mass += weights[id] ?? 0;
  let left = u * mass;
  let last = 0;
  for (const id of kept) {
    last = id;
    left -= weights[id] ?? 0;
    if (left < 0) break;
  }
  return last;
}

/** The k-th highest score, by a min-heap of size k: one comparison for most scores. The heap is reused. */
function kthHighest(k: number): (scores: Float32Array) => number {
  let heap = new Float32Array(0);
  const sink = (value: number): void => {
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= k) break;
      if (child + 1 < k && (heap[child + 1] ?? 0) < (heap[child] ?? 0)) child++;
      const smaller = heap[child] ?? 0;
      if (smaller >= value) break;
      heap[at] = smaller;
      at = child;
    }
    heap[at] = value;
  };
  return (scores) => {
    if (heap.length !== k) heap = new Float32Array(k);
    heap.fill(Number.NEGATIVE_INFINITY);
    let lowest = Number.NEGATIVE_INFINITY;
    for (let i = 0; i < scores.length; i++) {
      const score = scores[i] ?? 0;
      if (score <= lowest) continue;
      sink(score);
      lowest = heap[0] ?? 0;
    }
    return lowest;
  };
}

/**
 * The shortest prefix of `ids`, in descending order of score (lower id first on ties), whose weights sum to at least `mass`; at least one id.
 * Quickselect, expected linear time. Reorders `ids` and returns the kept part in ascending order, so that the draw does not depend on pivots.
 */
function nucleus(ids: Int32Array, scores: Float32Array, weights: Float64Array, mass: number): Int32Array {
  let low = 0;
  let high = ids.length;
  let missing = mass;
  while (low < high) {
    const { at, sum } = partition(ids, scores, weights, low, high);
    const withPivot = sum + (weights[ids[at] ?? 0] ?? 0);
    if (sum >= missing) high = at;
    else if (withPivot >= missing) return ids.subarray(0, at + 1).sort();
    else {
      missing -= withPivot;
      low = at + 1;
    }
  }
  return ids.subarray(0, high).sort();
}

/** Moves the ids that precede a pivot to the front of [low, high); returns the pivot's new index and the weight before it. */
function partition(
  ids: Int32Array,
  scores: Float32Array,
  weights: Float64Array,
  low: number,
  high: number,
): { at: number; sum: number } {
  const swap = (i: number, j: number): void => {
    const id = ids[i] ?? 0;
    ids[i] = ids[j] ?? 0;
    ids[j] = id;
  };
  swap((low + high) >> 1, high - 1);
  const pivot = ids[high - 1] ?? 0;
  const pivotScore = scores[pivot] ?? 0;
  let at = low;
  let sum = 0;
  for (let i = low; i < high - 1; i++) {
    const id = ids[i] ?? 0;
    const score = scores[id] ?? 0;
    if (score < pivotScore || (score === pivotScore && id > pivot)) continue;
    sum += weights[id] ?? 0;
    swap(i, at++);
  }
  swap(at, high - 1);
  return { at, sum };
}
