// A film file is drawn as its sampled frames would be.

import { type ExplainedTurn, type ExplainOptions, explain, PACKAGED_FILM } from '../../src';
import { cellsOfRegion, wholePicture } from '../../src/image/cells';
import type { RawPixels } from '../../src/image/input';
import { type FrameSampling, sampleFrames } from '../../src/models/frame_sampling';
import { openFilm } from '../../src/video/film';
import { errorOf } from '../image/fixtures';

const FRAMES = 2;
const model = { plan: { sampling: { rule: 'vila', frames: FRAMES } } } as unknown as NonNullable<
  ExplainOptions['model']
>;

/** The turn that saw the packaged film's frames. */
function turnOf(video: NonNullable<ExplainedTurn['videos']>[number], count = FRAMES): ExplainedTurn {
  const cells = cellsOfRegion(wholePicture({ width: 140, height: 140 }), { size: 56, patch: 14, block: 1 });
  const grid = { t: count, h: 4, w: 4, frames: Array.from({ length: count }, (_, i) => i), cells };
  const seen = { layout: { grids: [grid] }, kept: Int32Array.of(0, 21), salience: undefined };
  return { question: 'Where?', answer: 'Here.', videos: [video], stats: { media: [seen], retrieved: undefined } };
}

it('the frames that the model has seen are read again, and only those that are drawn are kept', async () => {
  const film = await openFilm(PACKAGED_FILM, (segment) => sampleFrames(model.plan.sampling as FrameSampling, segment), {
    maxPixels: 1e6,
    allowUrls: false,
  });
  const frames: RawPixels[] = [];
  for await (const frame of film.frames()) frames.push(frame);
  const listed = await explain([turnOf({ frames })]);
  expect(listed.equals(await explain([turnOf({ file: PACKAGED_FILM })], { model }))).toBe(true);
  const later = { ...turnOf({ file: PACKAGED_FILM, from: 1 }) };
  expect(listed.equals(await explain([later], { model }))).toBe(false);
});

it('needs the model, and as many frames as were seen', async () => {
  const asked = turnOf({ file: PACKAGED_FILM });
  expect((await errorOf(() => explain([asked]))).code).toBe('ERR_OPTION_MISSING');
  const more = await errorOf(() => explain([turnOf({ file: PACKAGED_FILM }, 4)], { model }));
  expect([more.code, more.message]).toEqual(['ERR_OPTION_INVALID', expect.stringContaining('received 2 frames')]);
  const stopped = explain([asked], { model, signal: AbortSignal.abort() });
  await expect(stopped).rejects.toMatchObject({ name: 'AbortError' });
});
