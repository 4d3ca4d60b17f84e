// The reference films of the packaged film model, drawn again from their seed, with the few bytes that torch rounds to the other side.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { filmQuestions, type Question } from '../../src/scenes/questions';
import { renderFrame, type ScenePixels } from '../../src/scenes/render';
import { sampleFrame } from '../../src/scenes/scene';
import { FIXTURES } from './assets';
import { pythonRandom, torchFrames } from './mersenne';

const SEED = 90210;
/** Ground, slants, blotches and noise of a frame: the uniforms that scene.py draws before the glyphs' variants. */
const UNIFORMS = [3, 6, 3 * 12 * 12, 3 * 280 * 280];

export interface ReferenceFilm {
  readonly frames: number;
  readonly things: number;
  readonly turns: readonly {
    readonly question: string;
    readonly truth: string;
    readonly kind: string;
    readonly greedy: string;
  }[];
  readonly sha256: string;
  readonly patches: readonly (readonly [frame: number, byte: number, value: number])[];
}

export interface DrawnFilm extends ReferenceFilm {
  /** What the port asks of a film with as many questions. */
  readonly asked: readonly Question[];
  readonly pixels: readonly ScenePixels[];
}

export function referenceFilms(): DrawnFilm[] {
  const lines = readFileSync(join(FIXTURES, 'films/films.jsonl'), 'utf8').trim().split('\n');
  const [random, streams] = [pythonRandom(SEED), torchFrames(SEED)];
  return lines.map((line) => {
    const film = JSON.parse(line) as ReferenceFilm;
    const frames = Array.from({ length: film.frames }, () => sampleFrame(random, 1, film.things));
    const asked = filmQuestions(random, frames, film.turns.length);
    const draws = streams(film.frames, UNIFORMS, frames[0]?.types.length ?? 0);
    const pixels = frames.map((frame, i) => renderFrame(frame, draws[i] as (typeof draws)[number]));
    for (const [frame, byte, value] of film.patches) (pixels[frame] as ScenePixels).data[byte] = value;
    return { ...film, asked, pixels };
  });
}
