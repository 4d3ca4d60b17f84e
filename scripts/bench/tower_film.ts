// `npm run bench -- tower-film`: the vision tower over a film with and without STC-Cacher, and its share of the time to the first token, at real shapes
// with random weights. The prefill is dense, through a session, of a question about random features of as many tokens.

import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { loadModel } from '../../src/models/load';
import type { Patches } from '../../src/models/media';
import { squarePatches } from '../../src/models/patches';
import { buildTower, type Tower, type TowerConfig } from '../../src/models/tower';
import { PLAIN_VIT } from '../../src/models/tower_config';
import { frameMemory, type ReusedKeys } from '../../src/models/tower_reuse';
import { packageFolder } from '../../src/runtime/paths';
import { createSession } from '../../src/session/session';
import { dense } from '../../src/sparsity/dense';
import { stcCacher } from '../../src/sparsity/stc_cacher';
import { uniform } from '../../src/text/random';
import { FILM_SHAPES, type FilmShapeName } from './film_counts';
import { filmModel } from './film_model';
import { randomWeights } from './random_weights';
import { median } from './timing';

const PATCH = 14;
const TOKENS = 256;
const pace = async (): Promise<void> => undefined;

interface Options {
  readonly shape: FilmShapeName;
  readonly frames: number;
  readonly every: number;
  readonly computed: number;
  readonly rounds: number;
}

export const TOWER_FILM: CommandModule<object, Options> = {
  command: 'tower-film',
  describe: 'The vision tower over a film with and without STC-Cacher, and its share of the time to the first token',
  builder: (yargs) =>
    yargs
      .option('shape', {
        choices: Object.keys(FILM_SHAPES) as FilmShapeName[],
        default: 'tiny-0.39b' as FilmShapeName,
        describe: 'Tower and decoder',
      })
      .option('frames', { type: 'number', default: 16, describe: `Frames of ${TOKENS} visual tokens` })
      .option('every', { type: 'number', default: 2, describe: 'Of so many frames one is computed whole' })
      .option('computed', { type: 'number', default: 0.25, describe: 'Share of the patches computed in the others' })
      .option('rounds', { type: 'number', default: 1, describe: 'Interleaved rounds, of which the medians are taken' }),
  handler: run,
};

async function run(o: Options): Promise<void> {
  const config = configOf(o.shape);
  const weights = randomWeights('bf16', config.hiddenSize * config.intermediateSize, 'exact');
  const tower = await buildTower(config, weights, pace);
  weights.close();
  const film = filmOf(o.frames, config);
  await towerMs(tower, { ...film, patches: squarePatches(2, Math.sqrt(film.each), PATCH) }, o);
  const times: { plain: number; reused: number }[] = [];
  for (let round = 0; round < o.rounds; round++)
    times.push({ plain: await towerMs(tower, film), reused: await towerMs(tower, film, o) });
  weights.dispose();
  const [plain, reused] = [median(times.map((one) => one.plain)), median(times.map((one) => one.reused))];
  const ratio = median(times.map((one) => one.plain / one.reused));
  const prefill = await prefillMs(o);
  const shareOf = (ms: number): string => `${((100 * ms) / (ms + prefill)).toFixed(1)} %`;
  process.stdout.write(
    `${o.shape}, ${o.frames} frames of ${film.each} patches: tower ${plain.toFixed(0)} -> ${reused.toFixed(0)} ms, ${ratio.toFixed(2)}x; ` +
      `dense prefill ${prefill.toFixed(0)} ms: the tower takes ${shareOf(plain)} -> ${shareOf(reused)} of the time to the first token\n`,
  );
  process.stdout.write(`${JSON.stringify({ ...optionsOf(o), plain, reused, ratio, prefill })}\n`);
}

const optionsOf = ({ shape, frames, every, computed, rounds }: Options): Options => ({
  ...{ shape, frames, every, computed, rounds },
});

function configOf(shape: FilmShapeName): TowerConfig {
  const [e, layers, ffn, , patches] = FILM_SHAPES[shape].tower;
  return {
    ...{ ...PLAIN_VIT, hiddenSize: e, intermediateSize: ffn, layers, heads: 16, imageSize: Math.sqrt(patches) * PATCH },
    ...{ patchSize: PATCH, depth: layers, normEps: 1e-6, activation: 'gelu' },
    ...{ patchBias: true, classToken: false, preNorm: false },
  };
}

interface Film {
  readonly patches: Patches;
  /** Patches of a frame. */
  readonly each: number;
  readonly values: (begin: number, end: number) => Float32Array;
}

/** Frames of noise, each of which changes an eighth of the patches. */
function filmOf(frames: number, { imageSize = PATCH }: TowerConfig): Film {
  const side = imageSize / PATCH;
  const each = side ** 2;
  const width = 3 * PATCH ** 2;
  const random = uniform(1);
  const noise = Float32Array.from({ length: 2 * each * width }, () => random() - 0.5);
  return {
    ...{ each, patches: squarePatches(frames, side, PATCH) },
    values: (begin) => {
      const frame = begin / each;
      const values = noise.slice(0, each * width);
      const changed = Math.floor(each / 8) * width;
      const from = (frame * changed) % (each * width - changed);
      values.set(noise.subarray(each * width + from, each * width + from + changed), from);
      return values;
    },
  };
}

/** Milliseconds of the tower over a film, whose frames reuse each other where options are given. */
async function towerMs(tower: Tower, { patches, values }: Film, o?: Options): Promise<number> {
  const { reuse } = stcCacher(o && { every: o.every, computed: o.computed });
  if (reuse === undefined) throw new Error('a method that reuses frames');
  const select = ({ width, keys, reference, ...view }: ReusedKeys) =>
    reuse.select({ ...view, keys: { data: keys, width }, reference: { data: reference, width } });
  const memory = o && frameMemory('bench', tower.config, { every: reuse.every, select });
  const begin = performance.now();
  (await tower.run(patches, values, { salience: [-1] }, pace, memory)).features.dispose();
  memory?.dispose();
  return performance.now() - begin;
}

/** Milliseconds of the prefill of a question about the film, in a decoder of 4-bit weights. */
async function prefillMs({ shape, frames }: Options): Promise<number> {
  const base = await loadModel(join(packageFolder(), 'assets', 'tiny-nvila'));
  const layers = FILM_SHAPES[shape].decoder[1];
  const made = {
    visual: frames * TOKENS,
    tokens: TOKENS,
    layers,
    answer: 1,
    weights: 'awq',
    precision: 'fast',
  } as const;
  const film = await filmModel(base, FILM_SHAPES[shape], made);
  try {
    using session = createSession(film.model, { method: dense(), contextLength: film.contextLength });
    const image = { data: new Uint8Array(3), width: 1, height: 1, channels: 3 } as const;
    const answer = session.ask('What is in the film?', { images: [image], maxTokens: 1, temperature: 0 });
    await answer.text();
    return (answer.stats?.ms.prefill ?? Number.NaN) + (answer.stats?.ms.project ?? 0);
  } finally {
    film.dispose();
    base.dispose();
  }
}
