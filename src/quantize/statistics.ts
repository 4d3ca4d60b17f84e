// What a search needs to know of a layer's activations: each input channel's mean magnitude and how channels move together over
// all calibration rows, and the inputs themselves of a bounded number of rows, visual and text rows counting alike, because in most conversations
// pictures have many more rows than words and would otherwise be all that counts.

import type { DecoderConfig } from '../models/config';
import { floats } from '../ops/run';
import type { Tensor } from '../runtime/tensor';
import type { Sequence } from './calibration';
import { addToGram, emptyGram, type Gram } from './gram';
import { linearShapes, SITES, type Site } from './layer';

const { abs, floor, max, min } = Math;

/** Rows of one site, f32 [rows, width], each with its share of the loss. */
export interface Rows {
  readonly values: Float32Array;
  readonly rows: number;
  readonly width: number;
  /** Sums to 1. */
  readonly weights: Float32Array;
}

export interface LayerStatistics {
  /** Mean |x| per channel. */
  readonly meanAbs: Readonly<Record<Site, Float64Array>>;
  /** Rows of `sampled`, in order. */
  readonly rows: Readonly<Record<Site, Rows>>;
  /** Of all rows. */
  readonly grams: Readonly<Record<Site, Gram>>;
  /** The inputs of q, k and v of whole sequences: attention needs all rows. */
  readonly whole: readonly { readonly sequence: number; readonly rows: Rows }[];
}

/** Which rows of the calibration set are kept. The same for all layers. */
export interface Sampling {
  /** Per sequence, ascending. */
  readonly sampled: readonly Int32Array[];
  readonly whole: ReadonlySet<number>;
  readonly counts: { readonly visual: number; readonly text: number };
  readonly sampledCounts: { readonly visual: number; readonly text: number };
}

/** Draws at most `budget` rows, half visual and half text where there are enough, and whole sequences of that many rows. */
export function drawSampling(sequences: readonly Sequence[], budget: number): Sampling {
  const counts = { visual: 0, text: 0 };
  for (const { visual } of sequences) for (const kind of visual) counts[kind === 1 ? 'visual' : 'text']++;
  const half = floor(budget / 2);
  const visualDraw = min(counts.visual, max(half, budget - counts.text));
  const textDraw = min(counts.text, budget - visualDraw);
  const take = { visual: strided(counts.visual, visualDraw), text: strided(counts.text, textDraw) };
  const sampled = sequences.map(({ visual }) =>
    Int32Array.from([...visual.keys()].filter((row) => take[visual[row] === 1 ? 'visual' : 'text']())),
  );
  return {
    sampled,
    whole: wholeSequences(sequences, budget),
    counts,
    sampledCounts: { visual: visualDraw, text: textDraw },
  };
}

/** A function that says yes `draw` times in `total` calls, evenly spread. */
function strided(total: number, draw: number): () => boolean {
  let i = 0;
  return () => {
    const yes = floor(((i + 1) * draw) / total) > floor((i * draw) / total);
    i++;
    return yes;
  };
}

/** Sequences, evenly spread, of about `budget` rows together; at least one. */
function wholeSequences(sequences: readonly Sequence[], budget: number): Set<number> {
  const total = sequences.reduce((sum, { visual }) => sum + visual.length, 0);
  const count = max(1, min(sequences.length, floor((sequences.length * budget) / total)));
  return new Set(Array.from({ length: count }, (_, i) => floor((i * sequences.length) / count)));
}

/** Each row's share of all rows of the set: visual rows share one half, text rows the other. */
function rowShares(visual: Uint8Array, { counts }: Sampling): Float32Array {
  const parts = (counts.visual > 0 ? 1 : 0) + (counts.text > 0 ? 1 : 0);
  return Float32Array.from(visual, (kind) => 1 / (parts * (kind === 1 ? counts.visual : counts.text)));
}

/** The same among the given rows. */
function shares(kinds: readonly number[]): Float32Array {
  const visual = kinds.filter((kind) => kind === 1).length;
  const text = kinds.length - visual;
  const parts = (visual > 0 ? 1 : 0) + (text > 0 ? 1 : 0);
  return Float32Array.from(kinds, (kind) => 1 / (parts * (kind === 1 ? visual : text)));
}

export interface StatisticsCollector {
  see(sequence: number, site: Site, input: Tensor): void;
  finish(): LayerStatistics;
}

/** Collects one layer's statistics while its sequences run. Holds sampled rows only. */
export function collectStatistics(
  sequences: readonly Sequence[],
  sampling: Sampling,
  config: DecoderConfig,
  group: number,
): StatisticsCollector {
  const shapes = linearShapes(config);
  const widths = { qkv: shapes.q[1], o: shapes.o[1], mlp: shapes.gate[1], down: shapes.down[1] };
  const total = sampling.sampled.reduce((sum, { length }) => sum + length, 0);
  const make = <T>(value: (site: Site) => T) =>
    Object.fromEntries(SITES.map((site) => [site, value(site)])) as Record<Site, T>;
  const sums = make((site) => ({ visual: new Float64Array(widths[site]), text: new Float64Array(widths[site]) }));
  const grams = make((site) => emptyGram(widths[site], group));
  const values = make((site) => new Float32Array(total * widths[site]));
  let sampledSoFar = 0;
  const starts = sampling.sampled.map(({ length }) => {
    sampledSoFar += length;
    return sampledSoFar - length;
  });
  const whole: { sequence: number; rows: Rows }[] = [];
  const kinds = sampling.sampled.flatMap((rows, s) => [...rows].map((row) => sequences[s]?.visual[row] ?? 0));
  return {
    see: (s, site, input) => {
      const x = floats(input);
      const { visual } = sequences[s] as Sequence;
      const width = widths[site];
      addMagnitudes(x, width, visual, sums[site]);
      addToGram(grams[site], x, rowShares(visual, sampling));
      for (const [i, row] of (sampling.sampled[s] as Int32Array).entries())
        values[site].set(x.subarray(row * width, (row + 1) * width), ((starts[s] as number) + i) * width);
      if (site === 'qkv' && sampling.whole.has(s)) {
        const rows = { values: x.slice(), rows: visual.length, width, weights: shares([...visual]) };
        whole.push({ sequence: s, rows });
      }
    },
    finish: () => ({
      meanAbs: make((site) => meanMagnitude(sums[site], sampling)),
      rows: make((site) => ({ values: values[site], rows: total, width: widths[site], weights: shares(kinds) })),
      grams,
      whole,
    }),
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
function meanMagnitude(sums: { visual: Float64Array; text: Float64Array }, { counts }: Sampling): Float64Array {
  const parts = (counts.visual > 0 ? 1 : 0) + (counts.text > 0 ? 1 : 0);
  return sums.visual.map(
    (visual, c) => (visual / max(1, counts.visual) + (sums.text[c] as number) / max(1, counts.text)) / parts,
  );
}
