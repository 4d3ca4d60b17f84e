// The picture of a conversation, pixel by pixel at a hand-made case: four cells of sixteen kept, one retrieved.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import sharp from 'sharp';
import { type ExplainedTurn, explain } from '../../src';
import { planesOf } from '../../src/explain/attended';
import { plasma, viridis } from '../../src/explain/color';
import { figure } from '../../src/explain/figure';
import { sheetsOf } from '../../src/explain/sheets';
import { cellsOfRegion, paddedSquare, type Size, wholePicture } from '../../src/image/cells';
import { errorOf } from '../image/fixtures';

const GREY = 200;
/** Pixels of the PNG per unit of the figure. */
const SCALE = 2;
const MARGIN = 28;
const PANEL = 340;
const GAP = 26;
/** The top of the first cells, below a heading, an answer and a note. */
const TOP = MARGIN + 20 + 19 + 17 + 4;

/** The stats of one picture of 4 x 4 tokens, whole or padded to a square. */
const seenAs = (size: Size, kept: Int32Array, salience: Float32Array, mode: 'resize' | 'pad' = 'resize') => {
  const region = mode === 'pad' ? paddedSquare(size) : wholePicture(size);
  const cells = cellsOfRegion(region, { size: 56, patch: 14, block: 1 });
  return { layout: { grids: [{ t: 1, h: 4, w: 4, frames: [0], cells }] }, kept, salience };
};
const plain = (width: number, height: number) => ({
  ...{ data: new Uint8Array(width * height * 3).fill(GREY), width, height },
  channels: 3 as const,
});
const KEPT = Int32Array.of(0, 5, 10, 15);
const SALIENCE = Float32Array.from({ length: 16 }, (_, i) => (i === 5 ? 1 : KEPT.includes(i) ? 0.25 : 0));
const turn: ExplainedTurn = {
  ...{ question: 'Where?', answer: 'Here.', images: [plain(400, 400)] },
  stats: {
    media: [seenAs({ width: 400, height: 400 }, KEPT, SALIENCE)],
    retrieved: [Int32Array.of(1), Int32Array.of(1), Int32Array.of(2)],
  },
};

async function pixelsOf(png: Buffer) {
  const { data, info } = await sharp(png).raw().toBuffer({ resolveWithObject: true });
  const at = (x: number, y: number): number[] => [
    ...data.subarray(SCALE * (y * info.width + x) * info.channels).subarray(0, 3),
  ];
  /** The middle of a cell in a panel of the first line. */
  const cell = (panel: number, index: number): number[] => {
    const [row, col] = [Math.floor(index / 4), index % 4];
    return at(MARGIN + panel * (PANEL + GAP) + Math.round((col + 0.5) * 85), TOP + Math.round((row + 0.5) * 85));
  };
  return { width: info.width / SCALE, height: info.height / SCALE, at, cell };
}

const mixed = (hex: string, share: number, under: number): number[] =>
  [1, 3, 5].map((i) => Number.parseInt(hex.slice(i, i + 2), 16) * share + under * (1 - share));

function near(actual: readonly number[], expected: readonly number[]): void {
  for (const [i, value] of expected.entries()) expect(Math.abs((actual[i] ?? -1) - value)).toBeLessThanOrEqual(3);
}

describe('explain', () => {
  it('shows kept cells unchanged and pruned cells dark', async () => {
    const { width, cell } = await pixelsOf(await explain([turn]));
    expect(width).toBe(2 * MARGIN + 3 * PANEL + 2 * GAP);
    for (let i = 0; i < 16; i++) {
      if (KEPT.includes(i)) near(cell(1, i), [GREY, GREY, GREY]);
      else expect(Math.max(...cell(1, i))).toBeLessThan(0.4 * GREY);
    }
  });

  const grayOf = ([red = 0]: readonly number[], value: number): number =>
    (red - 0.62 * Number.parseInt(viridis(value).slice(1, 3), 16)) / 0.38;

  it('colors salience by its multiple of the average, from an eighth to eight times', async () => {
    const { cell } = await pixelsOf(await explain([turn]));
    // A picture of one gray level stays one level, and its value does not matter: the pruned cells have the map's first color over it.
    const gray = grayOf(cell(0, 1), 0);
    // The average is 1.75 / 16: the cells of 0.25 have 2.29 times that.
    const middle = 0.5 + Math.log(0.25 / (1.75 / 16)) / Math.log(8) / 2;
    for (const [i, value] of [
      [1, 0],
      [0, middle],
      [5, 1],
    ] as const)
      near(cell(0, i), mixed(viridis(value), 0.62, gray));
  });

  it('shows a nearly uniform salience as uniform, with its range', async () => {
    const salience = Float32Array.from({ length: 16 }, (_, i) => 1 + 0.05 * Math.sin(i));
    const [image] = turn.stats.media;
    if (image === undefined) throw new Error('no image');
    const flat = { ...turn, stats: { ...turn.stats, media: [{ ...image, salience }] } };
    const { cell } = await pixelsOf(await explain([flat]));
    const gray = grayOf(cell(0, 0), 0.5);
    for (let i = 0; i < 16; i++) {
      for (const [c, value] of mixed(viridis(0.5), 0.62, gray).entries()) {
        expect(Math.abs((cell(0, i)[c] ?? -1) - value)).toBeLessThanOrEqual(6);
      }
    }
  });

  it('shows what a turn retrieved in its true colors, framed by the number of layers; darkens the rest', async () => {
    const { cell, at } = await pixelsOf(await explain([turn]));
    const [two, one] = [plasma(0.65), plasma(0.3)];
    near(cell(2, 5), [GREY, GREY, GREY]);
    near(cell(2, 10), [GREY, GREY, GREY]);
    const [left, top] = [MARGIN + 2 * (PANEL + GAP), TOP];
    near(at(left + 85 + 1, top + 85 + 40), mixed(two, 1, 0));
    near(at(left + 170 + 40, top + 255 - 2), mixed(one, 1, 0));
    const [pruned = 0] = cell(2, 1);
    for (const idle of [0, 15]) {
      expect(cell(2, idle)[0]).toBeGreaterThan(1.5 * pruned);
      expect(cell(2, idle)[0]).toBeLessThan(0.6 * GREY);
    }
  });

  it('shows relevance where everything is attended', async () => {
    const places = [...KEPT].map((cell) => ({ medium: 0, grid: 0, t: 0, row: Math.floor(cell / 4), col: cell % 4 }));
    const relevance = Array(2).fill({ scores: Float32Array.of(0, 1, 0.25, 0), places });
    const dense = { ...turn, stats: { ...turn.stats, retrieved: undefined }, relevance };
    const { cell } = await pixelsOf(await explain([dense]));
    const { cell: without } = await pixelsOf(await explain([{ ...turn, stats: dense.stats }]));
    const [high, middle, low] = [cell(2, 5), cell(2, 10), cell(2, 0)];
    // Plasma's red rises with the value.
    expect((high[0] ?? 0) - (middle[0] ?? 0)).toBeGreaterThan(20);
    expect((middle[0] ?? 0) - (low[0] ?? 0)).toBeGreaterThan(20);
    for (const kept of KEPT) near(without(2, kept), [GREY, GREY, GREY]);
  });

  it('places cells correctly on a padded picture', async () => {
    // 400 x 200 on a square: the upper and the lower row of cells are padding.
    const seen = seenAs({ width: 400, height: 200 }, KEPT, SALIENCE, 'pad');
    const padded = { ...turn, images: [plain(400, 200)], stats: { ...turn.stats, media: [seen] } };
    const { cell } = await pixelsOf(await explain([padded]));
    near(cell(1, 5), [GREY, GREY, GREY]);
    near(cell(1, 0), [154, 154, 154]);
    near(cell(1, 15), [154, 154, 154]);
  });

  /** A picture of 400 x 200 as two tiles of 2 x 2 tokens and the whole of it in 2 x 2. */
  const tiled = {
    layout: {
      grids: [
        { left: 0, width: 200 },
        { left: 200, width: 200 },
        { left: 0, width: 400 },
      ].map(({ left, width }) => ({
        ...{ t: 1, h: 2, w: 2, frames: [0] },
        cells: cellsOfRegion({ left, top: 0, width, height: 200 }, { size: 28, patch: 14, block: 1 }),
      })),
    },
    // The upper right cell of the first tile, the lower left of the second, and the upper left of the whole.
    ...{ kept: Int32Array.of(1, 6, 8), salience: undefined },
  };

  it('draws the tiles of a picture on one sheet, and the thumbnail on another', async () => {
    const stats = { media: [tiled], retrieved: [Int32Array.of(1), Int32Array.of(1)] };
    const { at, width, height } = await pixelsOf(await explain([{ ...turn, images: [plain(400, 200)], stats }]));
    // No salience: kept cells and one turn, in a line for the tiles and one for the whole picture, each below a label.
    expect(width).toBe(2 * MARGIN + 2 * PANEL + GAP);
    // A line for each plane would be higher than 1,300.
    expect([height > 600, height < 900]).toEqual([true, true]);
    const top = MARGIN + 24 + 20 + 19 + 17 + 4;
    /** The middle of a cell of the tiles, two rows of four. */
    const cell = (panel: number, row: number, col: number) =>
      at(MARGIN + panel * (PANEL + GAP) + Math.round((col + 0.5) * 85), top + Math.round((row + 0.5) * 85));
    for (const row of [0, 1])
      for (const col of [0, 1, 2, 3]) {
        const isKept = (row === 0 && col === 1) || (row === 1 && col === 2);
        if (isKept) near(cell(0, row, col), [GREY, GREY, GREY]);
        else expect(Math.max(...cell(0, row, col))).toBeLessThan(0.4 * GREY);
      }
    // The turn attended the second kept row, which is the second tile's.
    near(cell(1, 1, 2), [GREY, GREY, GREY]);
    expect(Math.max(...cell(1, 0, 1))).toBeLessThan(0.6 * GREY);
    // The tiles meet in a white line.
    near(at(MARGIN + 170, top + 120), [255, 255, 255]);
  });

  it('draws up to eight frames of a video, evenly chosen, after the images of its turn', async () => {
    const seen = (frames: number) => {
      const cells = cellsOfRegion(wholePicture({ width: 400, height: 400 }), { size: 56, patch: 14, block: 1 });
      const grid = { t: frames, h: 4, w: 4, frames: Array.from({ length: frames }, (_, i) => i), cells };
      return { layout: { grids: [grid] }, kept: Int32Array.of(0), salience: undefined };
    };
    const film = (frames: number): ExplainedTurn => ({
      ...turn,
      videos: [{ frames: Array.from({ length: frames }, () => plain(400, 400)) }],
      stats: { media: [...turn.stats.media, seen(frames)], retrieved: undefined },
    });
    const heights = await Promise.all(
      [1, 2, 8, 20].map(async (n) => (await pixelsOf(await explain([film(n)]))).height),
    );
    const [one = 0, two = 0, eight = 0, twenty = 0] = heights;
    expect(two - one).toBeGreaterThan(PANEL);
    expect([eight - one, twenty]).toEqual([7 * (two - one), eight]);
    const missing = { ...film(3), videos: [{ frames: [plain(400, 400)] }] };
    expect((await errorOf(() => explain([missing]))).message).toMatch(/frame 1 of Video 1.*received 1 frames/);
  });

  it('draws a row for each picture, with the turns since it was added', async () => {
    const second: ExplainedTurn = {
      ...turn,
      stats: { ...turn.stats, retrieved: [Int32Array.of(1, 6), Int32Array.of(6), Int32Array.of(6)] },
    };
    const one = await pixelsOf(await explain([turn]));
    const two = await pixelsOf(await explain([turn, second]));
    expect(two.width).toBe(2 * MARGIN + 4 * PANEL + 3 * GAP);
    expect(two.height).toBeGreaterThan(1.8 * one.height);
    // In the second turn the first picture was looked at in one layer, and the second line has no panel for the first turn.
    near(two.cell(3, 5), [GREY, GREY, GREY]);
    near(two.at(MARGIN + 3 * (PANEL + GAP) + 85 + 1, TOP + 85 + 40), mixed(plasma(0.3), 1, 0));
    near(two.at(MARGIN + 3 * (PANEL + GAP) + 100, two.height - 200), [255, 255, 255]);
  });

  it('starts a new row after five panels', async () => {
    const later = { ...turn, images: [], stats: { ...turn.stats, media: [] } };
    const { width } = await pixelsOf(await explain([turn, later, later, later, later]));
    expect(width).toBe(2 * MARGIN + 5 * PANEL + 4 * GAP);
  });

  it('limits the height for any number of pictures', () => {
    const size = { width: 400, height: 400 };
    const [sheet] = sheetsOf(planesOf(seenAs(size, KEPT, SALIENCE), { media: 0, planes: 0, rows: 0 }));
    if (sheet === undefined) throw new Error('one sheet');
    const picture = { ...sheet, id: 'p', ...size, color: '', gray: '', label: '' };
    const sizeOf = (pictures: number): number[] => {
      const svg = figure('', Array(pictures).fill(picture), []);
      return (/width="(\d+)" height="(\d+)"/.exec(svg) ?? []).slice(1).map(Number);
    };
    const [width = 0, height = 0] = sizeOf(1);
    expect([width, height < 1000]).toEqual([2 * MARGIN + 2 * PANEL + GAP, true]);
    expect(sizeOf(2)[0]).toBe(width);
    expect(sizeOf(100)[1]).toBe(16_000);
    expect(sizeOf(100)[0]).toBeLessThan(width);
  });

  it.each([
    [
      'no picture',
      [{ ...turn, images: [], stats: { media: [], retrieved: undefined } }],
      /at least one image or video/,
    ],
    [
      'an image that does not belong to the turn',
      [{ ...turn, images: [] }],
      /the 1 images and videos of each turn.*received 0/,
    ],
    ['no turns', [], /at least one image or video/],
  ])('refuses %s', async (_name, turns, message) => {
    const error = await errorOf(() => explain(turns as ExplainedTurn[]));
    expect(error).toMatchObject({ code: 'ERR_OPTION_INVALID', message: expect.stringMatching(message) });
  });

  it('stops on abort', async () => {
    const signal = AbortSignal.abort();
    const stopped = explain([turn], { signal });
    await expect(stopped).rejects.toMatchObject({ name: 'AbortError' });
  });
});

it('draws text on a machine without fonts, including Chinese, Japanese and Korean', () => {
  const folder = mkdtempSync(join(tmpdir(), 'no-fonts-'));
  const config = join(folder, 'fonts.conf');
  writeFileSync(config, `<fontconfig><dir>${folder}/none</dir><cachedir>${folder}/cache</cachedir></fontconfig>`);
  const script = `
    const { rasterize } = require(${JSON.stringify(resolve(__dirname, '../../src/explain/render.js'))});
    const sharp = require('sharp');
    const { FONT_FAMILIES } = require(${JSON.stringify(resolve(__dirname, '../../src/image/fonts.js'))});
    const svg = (text) => '<svg xmlns="http://www.w3.org/2000/svg" width="200" height="40" font-family="' + FONT_FAMILIES + '"><text x="9" y="25">' + text + '</text></svg>';
    const inked = async (text) => (await sharp(await rasterize(svg(text))).trim().toBuffer({ resolveWithObject: true })).info.width;
    const darkness = async (text) => (await sharp(await rasterize(svg(text))).grayscale().stats()).channels[0].mean;
    (async () => console.log(JSON.stringify({
      widths: await Promise.all(['iiii', 'WWWW'].map(inked)),
      means: await Promise.all(['一一一一', '龍龍龍龍', 'ーーーー', '그그그그', '뺐뺐뺐뺐'].map(darkness)) })))();`;
  const output = execFileSync(process.execPath, ['-e', script], {
    env: { ...process.env, FONTCONFIG_FILE: config },
    encoding: 'utf8',
  });
  const { widths, means } = JSON.parse(output) as { widths: number[]; means: number[] };
  const [narrow = 0, wide = 0] = widths;
  // Boxes that stand for missing letters would be equally wide, and equally dark.
  expect(wide).toBeGreaterThan(2 * narrow);
  const ink = means.map((mean) => 255 - mean);
  const [one = 0, dragon = 0, dash = 0] = ink;
  expect(dragon).toBeGreaterThan(3 * one);
  expect(dragon).toBeGreaterThan(3 * dash);
  expect(ink[4]).toBeGreaterThan(1.5 * (ink[3] ?? 0));
});
