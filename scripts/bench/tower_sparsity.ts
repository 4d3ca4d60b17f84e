// `npm run bench -- tower-sparsity`: the vision tower with and without PixelPrune, on a page and on a photograph, at the shape of Qwen2.5-VL's
// tower with random weights. The weights change no time; which tokens are kept depends on the pixels alone.

import sharp from 'sharp';
import type { CommandModule } from 'yargs';
import type { RgbImage } from '../../src/image/decode';
import { keepTokens } from '../../src/models/kept_tokens';
import type { Patches, PreparedMedium } from '../../src/models/media';
import { patchValues, pixelTables, tokenPixels } from '../../src/models/patches';
import { qwenLayout } from '../../src/models/qwen_media';
import { buildTower, type TowerConfig } from '../../src/models/tower';
import { PLAIN_VIT } from '../../src/models/tower_config';
import { pixelPrune } from '../../src/sparsity/pixel_prune';
import { uniform } from '../../src/text/random';
import { randomWeights } from './random_weights';
import { median } from './timing';

interface Options {
  readonly size: number;
  readonly layers: number;
  readonly rounds: number;
  readonly tau: number;
}

const number = { type: 'number' } as const;

export const TOWER_SPARSITY: CommandModule<object, Options> = {
  command: 'tower-sparsity',
  describe: 'The vision tower with and without PixelPrune, on a page and on a photograph',
  builder: (yargs) =>
    yargs
      .option('size', {
        ...number,
        default: 1344,
        describe: 'Width and height of the pictures, in pixels: a multiple of 28',
      })
      .option('layers', {
        ...number,
        default: 32,
        describe: 'Layers of the tower, every eighth of which attends all patches',
      })
      .option('rounds', { ...number, default: 1, describe: 'Rounds, of which the medians are taken' })
      .option('tau', { ...number, default: 0, describe: 'Threshold of PixelPrune' }),
  handler: run,
};

const PATCH = 14;
const SHAPE = { patch: PATCH, frames: 2, merge: 2, window: 4 };
const pace = async (): Promise<void> => undefined;

async function run({ size, layers, rounds, tau }: Options): Promise<void> {
  const config: TowerConfig = {
    ...{
      ...PLAIN_VIT,
      hiddenSize: 1280,
      intermediateSize: 3420,
      layers,
      heads: 16,
      depth: layers,
      imageSize: undefined,
    },
    ...{ patchSize: PATCH, patchFrames: 2, patchBias: false, classToken: false, preNorm: false, norm: 'rms' },
    ...{ normEps: 1e-6, fusedQkv: true, ropeTheta: 1e4, gated: true, activation: 'silu' },
    windowed: Array.from({ length: layers }, (_, i) => i).filter((i) => i % 8 !== 7),
  };
  const weights = randomWeights('bf16', 2 * config.hiddenSize * config.intermediateSize, 'exact');
  const tower = await buildTower(config, weights, pace);
  weights.close();
  const tables = pixelTables({ rescaleFactor: 1 / 255, mean: [0.48, 0.46, 0.41], std: [0.27, 0.26, 0.28] });
  const timeOf = async (medium: PreparedMedium, patches: Patches): Promise<number> => {
    const values = (begin: number, end: number) =>
      patchValues(medium.canvases, patches, { begin, end }, config, tables);
    const begin = performance.now();
    (await tower.run(patches, values, {}, pace)).features.dispose();
    return performance.now() - begin;
  };
  const rows = [];
  for (const [name, image] of [
    ['page', await page(size)],
    ['photograph', photograph(size)],
  ] as const) {
    const medium = mediumOf(image);
    const times: { dense: number; select: number; rest: number }[] = [];
    let kept = new Int32Array();
    for (let round = 0; round < rounds; round++) {
      const begin = performance.now();
      kept = selected(medium, config, tables, tau) as typeof kept;
      const select = performance.now() - begin;
      const { patches } = keepTokens(medium.layout, kept, 0);
      const isAll = kept.length === medium.layout.merge.rows;
      const dense = await timeOf(medium, medium.layout.patches);
      times.push({ dense, select, rest: isAll ? dense : await timeOf(medium, patches) });
    }
    const of = (part: keyof (typeof times)[number]): number => Math.round(median(times.map((one) => one[part])));
    const [dense, select, rest] = [of('dense'), of('select'), of('rest')];
    const tokens = medium.layout.merge.rows;
    rows.push({ picture: name, tokens, kept: kept.length, denseMs: dense, selectMs: select, towerMs: rest });
    process.stdout.write(
      `${name}: ${kept.length} of ${tokens} tokens kept (${((100 * kept.length) / tokens).toFixed(1)} %), tower ${dense} -> ${rest} ms ` +
        `and ${select} ms of selection: ${(dense / (rest + select)).toFixed(2)}x, selection ${((100 * select) / dense).toFixed(2)} % of the dense tower\n`,
    );
  }
  weights.dispose();
  process.stdout.write(`${JSON.stringify({ size, layers, tau, rows })}\n`);
}

function mediumOf(image: RgbImage): PreparedMedium {
  const size = { kind: 'image', width: image.width, height: image.height, frames: 1 } as const;
  const layout = qwenLayout(size, SHAPE, { limits: { min: 1, max: image.width * image.height }, filter: 'bicubic' });
  return { layout, made: { size, turn: { media: 1 } }, canvases: [image, image] };
}

function selected(
  medium: PreparedMedium,
  tower: TowerConfig,
  tables: readonly Float32Array[],
  tau: number,
): Int32Array {
  const [grid] = medium.layout.grids;
  if (grid === undefined) return new Int32Array();
  const tokens = grid.t * grid.h * grid.w;
  const pixels = () => tokenPixels({ family: 'qwen2_5_vl', tower }, tables, medium, { from: 0, to: tokens });
  return pixelPrune({ tau }).encode?.select([{ tokens, grid, pixels }])[0] ?? new Int32Array();
}

const WORDS =
  'the tower computes only what differs from its neighbors and every page is mostly white between lines of words'.split(
    ' ',
  );

/** A page of text with a title, two columns and a chart. */
async function page(side: number): Promise<RgbImage> {
  const random = uniform(1);
  const unit = side / 1344;
  const line = (x: number, y: number, words: number, size: number): string => {
    const text = Array.from({ length: words }, () => WORDS[Math.floor(random() * WORDS.length)]).join(' ');
    return `<text x="${x * unit}" y="${y * unit}" font-size="${size * unit}" font-family="sans-serif">${text}</text>`;
  };
  const left = Array.from({ length: 34 }, (_, i) => line(112, 240 + 28 * i, 7, 19));
  const right = Array.from({ length: 16 }, (_, i) => line(700, 240 + 28 * i, 7, 19));
  const bars = Array.from({ length: 6 }, (_, i) => {
    const height = (60 + 40 * ((i * 5) % 7)) * unit;
    return `<rect x="${(740 + 80 * i) * unit}" y="${1180 * unit - height}" width="${48 * unit}" height="${height}" fill="#4477aa"/>`;
  });
  const parts = [line(112, 150, 5, 44), ...left, ...right, ...bars].join('');
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${side}" height="${side}"><rect width="100%" height="100%" fill="white"/>${parts}</svg>`;
  const data = await sharp(Buffer.from(svg)).removeAlpha().raw().toBuffer();
  return { data: new Uint8Array(data), width: side, height: side };
}

/** Smooth shading with the noise of a sensor. */
function photograph(side: number): RgbImage {
  const random = uniform(2);
  const data = Uint8Array.from({ length: side * side * 3 }, (_, i) => {
    const [x, y] = [Math.floor(i / 3) % side, Math.floor(i / 3 / side)];
    return 128 + 90 * Math.sin(x / 97 + (i % 3)) * Math.cos(y / 131) + 6 * (random() - 0.5);
  });
  return { data, width: side, height: side };
}
