// Statistics of a block's activations for a search: each input channel's mean magnitude and the channels' correlations over
// all calibration rows, and the inputs themselves for a bounded number of rows. Visual and text rows have equal weight, because in most
// conversations pictures have many more rows than text and would otherwise dominate.

import type { BlockSite } from '../models/blocks';
import { floats } from '../ops/run';
import type { Tensor } from '../runtime/tensor';
import type { Sequence } from './calibration';
import { addToGram, emptyGram, type Gram } from './gram';

const { abs, floor, max, min } = Math;

/** Whether each row of a sequence is visual. */
type Kinds = Pick<Sequence, 'visual'>;

/** Rows of one site, f32 [rows, width], each with its share of the loss. */
export interface Rows {
  readonly values: Float32Array;
  readonly rows: number;
  readonly width: number;
  /** Sums to 1. */
  readonly weights: Float32Array;
  /** The sequence of these rows, if they are a whole one. */
  readonly sequence?: number;
}

export interface SiteStatistics {
  /** Mean |x| per channel. */
  readonly meanAbs: Float64Array;
  /** The Gram matrix of all rows. */
  readonly gram: Gram;
  /** The held inputs: whole sequences if the module mixes rows, else the sampled rows together. */
  readonly held: readonly Rows[];
}

export type BlockStatistics = Readonly<Record<string, SiteStatistics>>;

/** The rows of the calibration set that are kept, equal for all blocks. */
export interface Sampling {
  /** Per sequence, ascending. */
  readonly sampled: readonly Int32Array[];
  readonly whole: ReadonlySet<number>;
  readonly counts: { readonly visual: number; readonly text: number };
}

function countKinds(sequences: readonly Kinds[]): { visual: number; text: number } {
  const counts = { visual: 0, text: 0 };
  for (const { visual } of sequences) for (const kind of visual) counts[kind === 1 ? 'visual' : 'text']++;
  return counts;
}

/** Draws at most `budget` rows, half visual and half text if there are enough, and whole sequences of that many rows. */
export function drawSampling(sequences: readonly Kinds[], budget: number): Sampling {
  const counts = countKinds(sequences);
  const half = floor(budget / 2);
  const visualDraw = min(counts.visual, max(half, budget - counts.text));
  const textDraw = min(counts.text, budget - visualDraw);
  const take = { visual: strided(counts.visual, visualDraw), text: strided(counts.text, textDraw) };
  const sampled = sequences.map(({ visual }) =>
    Int32Array.from([...visual.keys()].filter((row) => take[visual[row] === 1 ? 'visual' : 'text']())),
  );
  return { sampled, whole: wholeSequences(sequences, budget), counts };
}

/** All rows of as many sequences as have about `budget` rows together. */
export function drawSequences(sequences: readonly Kinds[], budget: number): Sampling {
  const whole = wholeSequences(sequences, budget);
  const sampled = sequences.map(({ visual }, s) => Int32Array.from(whole.has(s) ? visual.keys() : []));
  return { sampled, whole, counts: countKinds(sequences) };
}

/** A function that returns true `draw` times in `total` calls, evenly spread. */
function strided(total: number, draw: number): () => boolean {
  let i = 0;
  return () => {
    const yes = floor(((i + 1) * draw) / total) > floor((i * draw) / total);
    i++;
    return yes;
  };
}

/** Sequences, evenly spread, of about `budget` rows together; at least one. */
function wholeSequences(sequences: readonly Kinds[], budget: number): Set<number> {
  const total = sequences.reduce((sum, { visual }) => sum + visual.length, 0);
  const count = max(1, min(sequences.length, floor((sequences.length * budget) / total)));
  return new Set(Array.from({ length: count }, (_, i) => floor((i * sequences.length) / count)));
}

/** Each row's share of a set with `counts` rows: visual rows share one half, text rows the other. */
function shares(kinds: ArrayLike<number>, { visual, text }: Sampling['counts']): Float32Array {
  const parts = (visual > 0 ? 1 : 0) + (text > 0 ? 1 : 0);
  return Float32Array.from(kinds, (kind) => 1 / (parts * (kind === 1 ? visual : text)));
}

export interface StatisticsCollector {
  see(sequence: number, site: string, input: Tensor): void;
  finish(): BlockStatistics;
}

/** Collects one block's statistics while its sequences run. Holds sampled rows only. */
export function collectStatistics(
  sequences: readonly Kinds[],
  sampling: Sampling,
  sites: readonly BlockSite[],
  group: number,
): StatisticsCollector {
  const collectors = new Map(sites.map((site) => [site.name, collectSite(sequences, sampling, site, group)]));
  return {
    see: (sequence, site, input) => collectors.get(site)?.see(sequence, floats(input)),
    finish: () => Object.fromEntries([...collectors].map(([site, { finish }]) => [site, finish()])),
  };
}

function collectSite(
  sequences: readonly Kinds[],
  { sampled, whole, counts }: Sampling,
  { width, mixesRows }: BlockSite,
  group: number,
) {
  const sums = { visual: new Float64Array(width), text: new Float64Array(width) };
  const gram = emptyGram(width, group);
  const total = mixesRows ? 0 : sampled.reduce((sum, { length }) => sum + length, 0);
  const values = new Float32Array(total * width);
  const starts: number[] = [];
  sampled.reduce((sum, { length }, s) => {
    starts[s] = sum;
    return sum + length;
  }, 0);
  const kinds = sampled.map((rows, s) => ({ visual: Uint8Array.from(rows, (row) => sequences[s]?.visual[row] ?? 0) }));
  const sequencesHeld: Rows[] = [];
  return {
    see(s: number, x: Float32Array): void {
      const { visual } = sequences[s] as Kinds;
      addMagnitudes(x, width, visual, sums);
      addToGram(gram, x, shares(visual, counts));
      if (!mixesRows) {
        for (const [i, row] of (sampled[s] as Int32Array).entries())
          values.set(x.subarray(row * width, (row + 1) * width), ((starts[s] as number) + i) * width);
      } else if (whole.has(s)) {
        const weights = shares(visual, countKinds([{ visual }]));
        sequencesHeld.push({ values: x.slice(), rows: visual.length, width, weights, sequence: s });
      }
    },
    finish(): SiteStatistics {
      const weights = kinds.flatMap(({ visual }) => [...shares(visual, countKinds(kinds))]);
      const sample = { values, rows: total, width, weights: Float32Array.from(weights) };
      return { meanAbs: meanMagnitude(sums, counts), gram, held: mixesRows ? sequencesHeld : [sample] };
    },
  };
}

function addMagnitudes(
  x: Float32Array,
  width: number,
  visual: Uint8Array,
  sums: { visual: Float64Array; text: Float64Array },
): void {
  for (let row = 0; row < visual.length; row++) {
    const sum = visual[row] === 1 ? sums.visual : sums.text;
    for (let c = 0; c < width; c++) sum[c] = (sum[c] as number) + abs(x[row * width + c] as number);
  }
}

/** The mean of the visual rows' mean and the text rows' mean. */
function meanMagnitude(sums: { visual: Float64Array; text: Float64Array }, counts: Sampling['counts']): Float64Array {
  const parts = (counts.visual > 0 ? 1 : 0) + (counts.text > 0 ? 1 : 0);
  return sums.visual.map(
    (visual, c) => (visual / max(1, counts.visual) + (sums.text[c] as number) / max(1, counts.text)) / parts,
  );
}
