// What a film costs by count: the least seconds of each stage, from the sizes of a model and the rates of the machine. Measures nothing.

import type { Machine } from './machine';

export interface FilmShape {
  /** hidden, layers, ffn, heads, kv heads, vocabulary. */
  readonly decoder: readonly [number, number, number, number, number, number];
  /** hidden, layers, ffn, matrices of the MLP, patches of a frame, patches that a patch attends. */
  readonly tower: readonly [number, number, number, number, number, number];
}

/** Frames of 1,024 patches and 256 visual tokens. */
export const FILM_SHAPES = {
  /** Qwen2-0.5B's layers with a vocabulary of 32k, and InternViT-300M. */
  'tiny-0.39b': { decoder: [896, 24, 4864, 14, 2, 32000], tower: [1024, 24, 4096, 2, 1024, 1024] },
  /** Qwen2-7B and SigLIP-so400m. */
  'longvila-7b': { decoder: [3584, 28, 18944, 28, 4, 152064], tower: [1152, 27, 4304, 2, 1024, 1024] },
  /** Qwen2.5-7B; its tower attends within windows of 64 patches, in four of 32 layers to the whole frame. */
  'qwen2.5-vl-7b': { decoder: [3584, 28, 18944, 28, 4, 152064], tower: [1280, 32, 3420, 3, 1024, 184] },
} as const satisfies Record<string, FilmShape>;
export type FilmShapeName = keyof typeof FILM_SHAPES;

export interface FilmWork {
  readonly frames: number;
  /** Visual rows that the prefill reads, and those that a decoding step attends in each layer. */
  readonly kept: number;
  readonly attended: number;
  /** Rows of text in the prompt, and tokens of the answer. */
  readonly text: number;
  readonly answer: number;
  readonly weights: 'bf16' | 'awq';
  readonly precision: 'exact' | 'fast';
}

/** Seconds. */
export interface FilmTimes {
  readonly tower: number;
  readonly prefill: number;
  /** Of the whole answer. */
  readonly decode: number;
}

/** Weights of a decoder layer. */
export function layerWeights({ decoder: [d, , ffn, heads, kvHeads] }: FilmShape): number {
  return d * (d / heads) * (2 * heads + 2 * kvHeads) + 3 * d * ffn;
}

/**
 * The least seconds of each stage: operations over the peak of their arithmetic in the tower and the prefill; in decoding the bytes of
 * weights, keys and values over the bandwidth. Products with 4-bit weights take one or two planes of bytes, others bf16, or f32 where the
 * processor has no bf16; attention is in f32.
 */
export function leastTimes(shape: FilmShape, work: FilmWork, machine: Machine): FilmTimes {
  const [d, layers, , heads, kvHeads, vocabulary] = shape.decoder;
  const planes = work.precision === 'exact' ? 2 : 1;
  const products = work.weights === 'awq' ? Math.max(machine.int8, machine.f32) / planes : plainPeak(machine);
  const rows = work.kept + work.text;
  const prefill = layers * ((2 * rows * layerWeights(shape)) / products + (2 * rows * rows * d) / machine.f32);
  const bytes = work.weights === 'awq' ? 0.5 + 2 / 128 : 2;
  const kv = 4 * layers * kvHeads * (d / heads);
  const step = (layers * layerWeights(shape) + vocabulary * d) * bytes + kv * (work.attended + work.text);
  return { tower: work.frames * towerSeconds(shape, machine), prefill, decode: (work.answer * step) / machine.read };
}

const plainPeak = ({ bf16, f32 }: Machine): number => Math.max(bf16, f32);

function towerSeconds({ tower: [e, layers, ffn, matrices, patches, seen] }: FilmShape, machine: Machine): number {
  const products = (2 * (4 * e * e + matrices * e * ffn)) / plainPeak(machine);
  return layers * patches * (products + (4 * seen * e) / machine.f32);
}
