// Film files: the frames that are chosen are those that are decoded, whatever the container, the way of reading and the gaps; times, rate,
// orientation and shape of pixels.

import { createReadStream, openAsBlob, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import sharp from 'sharp';
import { groupsOf } from '../../src/video/decode';
import { streamable } from '../../src/video/faststart';
import { type Choose, type FilmOptions, type FilmReading, openFilm } from '../../src/video/film';
import { findTools } from '../../src/video/tools';
import { ffmpeg, filmFolder, itWithFfmpeg, moving, numbered, numberOf } from '../support/films';

const folder = filmFolder();
const at = (name: string): string => join(folder, name);

/** Opens a film and decodes the frames that `choose` takes. */
async function look(file: unknown, choose: Choose, options: Partial<FilmOptions> = {}, reading: FilmReading = {}) {
  const film = await openFilm(file, choose, { maxPixels: 1e6, allowUrls: false, ...options });
  const numbers: number[] = [];
  const sizes = new Set<string>();
  for await (const frame of film.frames(reading)) {
    numbers.push(numberOf(frame));
    sizes.add(`${frame.width}x${frame.height}`);
  }
  return { ...film, numbers, sizes: [...sizes] };
}

const these =
  (...frames: number[]): Choose =>
  () =>
    frames;

describe('film files', () => {
  itWithFfmpeg.each(['mp4', 'mkv', 'avi', 'ts'])('%s: exactly the chosen frames, with their times', async (ending) => {
    const path = numbered(at(`plain.${ending}`), 100, '-g', '25');
    let segment: unknown;
    const choose: Choose = (given) => {
      segment = given;
      return [0, 1, 37, 63, 99];
    };
    const { numbers, times, fps, duration, sizes } = await look(path, choose);
    expect(segment).toEqual({ frames: 100, fps: 25 });
    expect(numbers).toEqual([0, 1, 37, 63, 99]);
    expect(times.map((time) => Math.round(time * 1000))).toEqual([0, 40, 1480, 2520, 3960]);
    expect([fps, duration]).toEqual([1.25, 4]);
    expect(sizes).toEqual(['64x48']);
  });

  itWithFfmpeg('frames after long gaps are found from key frames, and many frames by a tree of times', async () => {
    const large = ['-vf', 'scale=1280:960:flags=neighbor'];
    const path = numbered(at('long.mp4'), 200, '-g', '10', '-bf', '2', ...large);
    const own = { maxPixels: 2e6 };
    expect((await look(path, these(0, 150, 151, 199), own)).numbers).toEqual([0, 150, 151, 199]);
    expect((await look(path, these(130, 199), own)).numbers).toEqual([130, 199]);
    const all = Array.from({ length: 200 }, (_, i) => i);
    const small = numbered(at('small.mp4'), 200, '-bf', '2');
    expect((await look(small, () => all)).numbers).toEqual(all);
  });

  itWithFfmpeg('frames without times in the container have those of the decoder', async () => {
    ffmpeg('-i', numbered(at('ordered.mp4'), 60, '-bf', '2'), '-c', 'copy', at('ordered.avi'));
    const { numbers, times } = await look(at('ordered.avi'), these(0, 30, 55));
    expect(numbers).toEqual([0, 30, 55]);
    expect(times[1]).toBeCloseTo(1.2, 1);
  });

  itWithFfmpeg('a segment is chosen from by time, and its times are those of the film', async () => {
    const path = numbered(at('segment.mp4'), 100);
    const { numbers, times } = await look(path, ({ frames }) => [0, frames - 1], { from: 1, to: 2 });
    expect([numbers, times]).toEqual([
      [25, 49],
      [1, 1.96],
    ]);
  });

  itWithFfmpeg('a film that was cut without encoding it again begins where players begin', async () => {
    const path = numbered(at('uncut.mp4'), 150, '-g', '50', '-bf', '2');
    // The frames from the key frame at 2 s stay in the file, and are marked as not shown.
    ffmpeg('-ss', '2.4', '-i', path, '-t', '2', '-c', 'copy', at('cut.mp4'));
    const { numbers, times } = await look(at('cut.mp4'), ({ frames }) => [0, 10, frames - 1]);
    expect([numbers[0], numbers[1], times[0]]).toEqual([60, 70, 0]);
    expect(numbers[2]).toBeGreaterThan(100);
  });

  itWithFfmpeg('where the rate varies, frames are taken by the time at which they are shown', async () => {
    // Frames 0 to 49 all, then one in ten: 55 frames in 4 seconds.
    const keep = "select='lt(n,50)+not(mod(n,10))'";
    const path = at('variable.mkv');
    const lavfi = `nullsrc=s=64x48:r=25:d=4,geq=lum='20+N':cb=128:cr=128,${keep}`;
    ffmpeg('-f', 'lavfi', '-i', lavfi, '-vsync', 'vfr', '-c:v', 'ffv1', path);
    const { numbers, duration } = await look(path, ({ frames }) => [0, Math.floor(frames / 2), frames - 1]);
    // Half of the film's time is shown by frame 45, half of its frames would end at frame 27.
    expect(numbers).toEqual([0, 45, 90]);
    expect(duration).toBeGreaterThan(3.6);
  });

  itWithFfmpeg(
    'bytes, streams, Blobs and file URLs are read like the path, also with the index at the end',
    async () => {
      const path = numbered(at('bytes.mp4'), 50);
      const bytes = readFileSync(path);
      const wanted = these(0, 20, 49);
      const inputs = [bytes, createReadStream(path), await openAsBlob(path), pathToFileURL(path).href];
      inputs.push(`data:video/mp4;base64,${bytes.toString('base64')}`);
      for (const input of inputs) expect((await look(input, wanted)).numbers).toEqual([0, 20, 49]);
      // The index was behind the data, and its pieces are all bytes of the file.
      const pieces = streamable(bytes);
      expect(pieces.length).toBeGreaterThan(1);
      expect(pieces.reduce((sum, piece) => sum + piece.byteLength, 0)).toBe(bytes.byteLength);
      ffmpeg('-i', path, '-c', 'copy', '-movflags', '+faststart', at('fast.mp4'));
      expect(streamable(readFileSync(at('fast.mp4')))).toHaveLength(1);
    },
  );

  itWithFfmpeg('frames are upright and have square pixels', async () => {
    numbered(at('flat.mp4'), 3, '-vf', 'setsar=2/1');
    expect((await look(at('flat.mp4'), these(0))).sizes).toEqual(['128x48']);
    numbered(at('tall.mp4'), 3, '-vf', 'setsar=1/2');
    expect((await look(at('tall.mp4'), these(0))).sizes).toEqual(['64x96']);
    const isOld = findTools().version < 600;
    const turn = isOld ? ['-metadata:s:v', 'rotate=90'] : [];
    ffmpeg(
      ...(isOld ? [] : ['-display_rotation', '90']),
      '-i',
      at('flat.mp4'),
      '-c',
      'copy',
      ...turn,
      at('turned.mp4'),
    );
    expect((await look(at('turned.mp4'), these(0))).sizes).toEqual(['48x128']);
  });

  it.each(['gif', 'webp'] as const)('an animated %s is a film, without ffmpeg', async (format) => {
    const [width, height, frames] = [16, 8, 6];
    const data = new Uint8Array(width * height * frames * 3);
    for (let i = 0; i < frames; i++) data.fill(40 * i, i * width * height * 3, (i + 1) * width * height * 3);
    const strip = sharp(data, { raw: { width, height: height * frames, channels: 3, pageHeight: height } });
    const delay = [100, 100, 300, 100, 0, 100];
    const bytes = await (format === 'gif' ? strip.gif({ delay }) : strip.webp({ lossless: true, delay })).toBuffer();
    writeFileSync(at(`moving.${format}`), bytes);
    for (const input of [bytes, at(`moving.${format}`)]) {
      const film = await openFilm(input, these(0, 2, 3, 5), { maxPixels: 2 * width * height, allowUrls: false });
      const grays: number[] = [];
      for await (const frame of film.frames()) grays.push(frame.data[0] as number);
      expect(grays).toEqual([0, 80, 120, 200]);
      expect(film.times).toEqual([0, 0.2, 0.5, 0.7]);
    }
  });

  itWithFfmpeg('an animated PNG is a film, as a file and as bytes', async () => {
    numbered(at('source.mkv'), 8);
    ffmpeg('-i', at('source.mkv'), '-plays', '0', at('moving.apng'));
    for (const input of [at('moving.apng'), readFileSync(at('moving.apng'))]) {
      const { numbers, times } = await look(input, these(0, 3, 7));
      expect(times).toEqual([0, 0.12, 0.28]);
      // Its colors are rounded twice.
      for (const [i, frame] of [0, 3, 7].entries()) expect(Math.abs((numbers[i] as number) - frame)).toBeLessThan(1.5);
    }
  });

  it('an animated PNG draws its frames where and how they say', async () => {
    // 4 x 1 pixels. The picture of readers that know no animation is no frame; then red, half-transparent green over its right half, which is
    // cleared, and blue in the first pixel.
    const frames = [
      { width: 4, left: 0, rgba: [255, 0, 0, 255], dispose: 0, blend: 0 },
      { width: 2, left: 2, rgba: [0, 255, 0, 128], dispose: 1, blend: 1 },
      { width: 1, left: 0, rgba: [0, 0, 255, 255], dispose: 0, blend: 0 },
    ];
    const film = await openFilm(moving(4, 1, frames), these(0, 1, 2), { maxPixels: 100, allowUrls: false });
    const drawn: number[][] = [];
    for await (const { data } of film.frames()) drawn.push(Array.from(data));
    const [red, both, blue] = [
      [255, 0, 0, 255],
      [127, 128, 0, 255],
      [0, 0, 255, 255],
    ];
    expect(drawn).toEqual([
      [red, red, red, red].flat(),
      [red, red, both, both].flat(),
      [blue, red, [0, 0, 0, 0], [0, 0, 0, 0]].flat(),
    ]);
    expect(film.times).toEqual([0, 0.1, 0.2]);
    const cut = moving(4, 1, frames).subarray(0, -40);
    await expect(openFilm(cut, these(0), { maxPixels: 100, allowUrls: false })).rejects.toMatchObject({
      code: 'ERR_VIDEO_CORRUPT',
    });
  });

  itWithFfmpeg('progress is told after each frame, and leaving early is no error', async () => {
    const path = numbered(at('left.mp4'), 50);
    const told: string[] = [];
    const onProgress = ({ done, total }: { done: number; total: number }) => void told.push(`${done}/${total}`);
    await look(path, these(1, 2, 3), {}, { onProgress });
    expect(told).toEqual(['1/3', '2/3', '3/3']);
    const film = await openFilm(path, these(1, 2, 3), { maxPixels: 1e6, allowUrls: false });
    for await (const frame of film.frames()) {
      expect(numberOf(frame)).toBe(1);
      break;
    }
  });

  it('runs of ffmpeg begin anew only where a key frame saves a hundred million pixels', () => {
    const times = Array.from({ length: 1000 }, (_, i) => i * 10);
    const keys = times.filter((_, i) => i % 50 === 0);
    const size = { width: 1000, height: 1000 };
    const groups = (...frames: number[]) =>
      groupsOf(
        frames.map((frame) => frame * 10),
        { times, keys, ...size },
      );
    expect(groups(0, 60, 140)).toEqual([{ from: undefined, wanted: [0, 600, 1400] }]);
    expect(groups(10, 270, 999)).toEqual([
      { from: undefined, wanted: [100] },
      { from: 2500, wanted: [2700] },
      { from: 9500, wanted: [9990] },
    ]);
    expect(groupsOf([5000, 9990], { times, keys: [], ...size })).toHaveLength(1);
    // An argument of a program has a greatest length.
    const long = Array.from({ length: 4500 }, (_, i) => i * 10);
    const every = groupsOf(long, { times: long, keys: long.filter((_, i) => i % 50 === 0), ...size });
    expect(every.map(({ from, wanted }) => [from, wanted.length])).toEqual([
      [undefined, 2000],
      [20000, 2000],
      [40000, 500],
    ]);
    expect(every.flatMap(({ wanted }) => wanted)).toEqual(long);
    expect(groupsOf(long, { times: long, keys: [], ...size }).map(({ from }) => from)).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
  });
});
