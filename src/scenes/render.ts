// A frame as pixels: glyphs with jittered colors over a slanted, blotchy, noisy ground. Knows no model.
// Source: scene.py's render(), in the same f32 arithmetic (products and sums rounded one by one), so that equal draws give
// equal pixels. Draws in order: ground, slant, blotches, noise, glyph variants, color jitter.

import { CELL, glyphBank, VARIANTS } from './glyphs';
import type { Random } from './random';
import { COLOR_NAMES, COLORS, EMPTY, type Frame, GRID } from './scene';

export const SIDE = GRID * CELL;
const PIXELS = SIDE * SIDE;
const BLOTCHES = 12;
const f32 = Math.fround;

/** 8-bit RGB, HWC: what sessions take as an image. */
export interface ScenePixels {
  readonly data: Uint8Array;
  readonly width: number;
  readonly height: number;
  readonly channels: 3;
}

/** Draws a frame of 280 x 280 pixels. */
export function renderFrame({ types, colors }: Frame, random: Random): ScenePixels {
  const image = ground(random);
  const variants = types.map(() => random.below(VARIANTS));
  const bank = glyphBank();
  for (const [cell, type] of types.entries()) {
    const jitter = [0, 1, 2].map(() => spread(random, 24));
    if (type === EMPTY) continue;
    const base = COLORS[COLOR_NAMES[colors[cell] as number] as string] as readonly number[];
    const mask = bank.subarray((type * VARIANTS + (variants[cell] as number)) * CELL * CELL);
    for (let channel = 0; channel < 3; channel++) {
      const color = f32((base[channel] as number) + (jitter[channel] as number));
      blend(image.subarray(channel * PIXELS), cell, mask, color);
    }
  }
  const data = new Uint8Array(PIXELS * 3);
  for (let channel = 0; channel < 3; channel++)
    for (let i = 0; i < PIXELS; i++) data[i * 3 + channel] = byte(image[channel * PIXELS + i] as number);
  return { data, width: SIDE, height: SIDE, channels: 3 };
}

/** Uniform around 0 and `width` wide, in f32. */
function spread(random: Random, width: number): number {
  return f32(f32(f32(random.next()) - 0.5) * width);
}

/** f32 [3, 280, 280]: a random dark to mid plane, low-frequency blotches, pixel noise. */
function ground(random: Random): Float32Array {
  const image = new Float32Array(3 * PIXELS);
  const base = [0, 1, 2].map(() => f32(f32(f32(random.next()) * 70) + 40));
  const slopes = [0, 1, 2].map(() => [spread(random, 50), spread(random, 50)] as const);
  const coarse = Float32Array.from({ length: 3 * BLOTCHES * BLOTCHES }, () => spread(random, 40));
  const axis = linspace();
  const mix = bilinear();
  for (let channel = 0, at = 0; channel < 3; channel++) {
    const [down, right] = slopes[channel] as readonly [number, number];
    const blotches = coarse.subarray(channel * BLOTCHES * BLOTCHES);
    for (let y = 0; y < SIDE; y++) {
      const left = f32((base[channel] as number) + f32(down * (axis[y] as number)));
      for (let x = 0; x < SIDE; x++, at++) {
        const plane = f32(left + f32(right * (axis[x] as number)));
        image[at] = f32(f32(plane + mix(blotches, y, x)) + spread(random, 24));
      }
    }
  }
  return image;
}

/** f32 [280] from -1 to 1, computed from the nearer end as torch.linspace does. */
function linspace(): Float32Array {
  const step = f32(2 / (SIDE - 1));
  return Float32Array.from({ length: SIDE }, (_, i) =>
    i < SIDE / 2 ? f32(-1 + f32(step * i)) : f32(1 - f32(step * (SIDE - 1 - i))),
  );
}

/**
 * Bilinear enlargement of f32 [12, 12] to 280 x 280 with pixel centers aligned, one pixel a call: the four weights first, then the
 * four products in order, as torch's interpolate does without fused multiply-adds.
 */
function bilinear(): (coarse: Float32Array, y: number, x: number) => number {
  const scale = f32(BLOTCHES / SIDE);
  const taps = Array.from({ length: SIDE }, (_, i) => {
    const source = Math.max(0, f32(f32(scale * (i + 0.5)) - 0.5));
    const low = Math.min(Math.floor(source), BLOTCHES - 1);
    const upper = f32(source - low);
    return { low, high: Math.min(low + 1, BLOTCHES - 1), lower: f32(1 - upper), upper };
  });
  return (coarse, y, x) => {
    const [v, h] = [taps[y] as (typeof taps)[number], taps[x] as (typeof taps)[number]];
    const at = (row: number, col: number): number => coarse[row * BLOTCHES + col] as number;
    const a = f32(f32(v.lower * h.lower) * at(v.low, h.low));
    const b = f32(f32(v.lower * h.upper) * at(v.low, h.high));
    const c = f32(f32(v.upper * h.lower) * at(v.high, h.low));
    const d = f32(f32(v.upper * h.upper) * at(v.high, h.high));
    return f32(f32(f32(a + b) + c) + d);
  };
}

/** Lays one glyph over its cell in one channel: image (1 - m) + color m. */
function blend(channel: Float32Array, cell: number, mask: Uint8Array, color: number): void {
  const start = Math.floor(cell / GRID) * CELL * SIDE + (cell % GRID) * CELL;
  for (let y = 0; y < CELL; y++)
    for (let x = 0; x < CELL; x++) {
      const m = f32((mask[y * CELL + x] as number) / 255);
      const at = start + y * SIDE + x;
      channel[at] = f32(f32((channel[at] as number) * f32(1 - m)) + f32(color * m));
    }
}

/** Clamped to 0..255 and rounded, halves to even. */
function byte(value: number): number {
  const clamped = Math.min(255, Math.max(0, value));
  const floor = Math.floor(clamped);
  const rest = clamped - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}
