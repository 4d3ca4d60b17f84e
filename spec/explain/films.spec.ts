// A film file is drawn as its sampled frames would be.

import { type ExplainedTurn, explain, type FilmFile, load, PACKAGED_FILM, PACKAGED_FILM_MODEL } from '../../src';
import { cellsOfRegion, wholePicture } from '../../src/image/cells';
import type { ImageInput } from '../../src/image/decode';
import { errorOf } from '../image/fixtures';

const FRAMES = 2;

/** The turn that saw the frames of a film. */
function turnOf(video: NonNullable<ExplainedTurn['videos']>[number], count = FRAMES): ExplainedTurn {
  const cells = cellsOfRegion(wholePicture({ width: 140, height: 140 }), { size: 56, patch: 14, block: 1 });
  const grid = { t: count, h: 4, w: 4, frames: Array.from({ length: count }, (_, i) => i), cells };
  const seen = { layout: { grids: [grid] }, kept: Int32Array.of(0, 21), salience: undefined };
  return { question: 'Where?', answer: 'Here.', videos: [video], stats: { media: [seen], retrieved: undefined } };
}

it('the frames that a model takes of a film file are those that are drawn', async () => {
  using model = await load(PACKAGED_FILM_MODEL);
  const video = { file: PACKAGED_FILM, maxFrames: FRAMES };
  const film = await model.frames(video);
  const [medium] = await model.prepare([{ kind: 'video', video }]);
  expect([film.count, medium?.made.size.frames]).toEqual([FRAMES, FRAMES]);
  const frames: ImageInput[] = [];
  for await (const frame of film.read()) frames.push(frame);
  const listed = await explain([turnOf({ frames })]);
  expect(listed.equals(await explain([turnOf(film)]))).toBe(true);
  expect(listed.equals(await explain([turnOf({ frames: frames.toReversed() })]))).toBe(false);
  const more = await errorOf(() => explain([turnOf(film, 4)]));
  expect([more.code, more.message]).toEqual(['ERR_OPTION_INVALID', expect.stringContaining('received 2 frames')]);
  const stopped = explain([turnOf(film)], { signal: AbortSignal.abort() });
  await expect(stopped).rejects.toMatchObject({ name: 'AbortError' });
  for (const [wrong, code] of [
    [{ frames }, 'ERR_VIDEO'],
    [{ file: PACKAGED_FILM, fps: 0 }, 'ERR_OPTION_INVALID'],
    [{ file: 'nope.mp4' }, 'ERR_VIDEO_NOT_FOUND'],
  ] as const)
    expect((await errorOf(() => model.frames(wrong as FilmFile))).code).toBe(code);
});

it('reads no frame behind the last one that is drawn', async () => {
  let read = 0;
  const picture = { data: new Uint8Array(140 * 140 * 3), width: 140, height: 140, channels: 3 } as const;
  const many = {
    count: 100,
    async *read() {
      for (;;) {
        read++;
        yield picture;
      }
    },
  };
  await explain([turnOf(many)]);
  expect(read).toBe(FRAMES);
});
