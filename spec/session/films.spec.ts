// Questions about film files and streams of frames: the same answers as about the frames alone, and the times of the film in the prompt.

import { copyFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ImageInput, load, type Model } from '../../src';
import * as canvases from '../../src/image/canvas';
import { openFilm } from '../../src/video/film';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { ffmpeg, filmFolder, itWithFfmpeg } from '../support/films';
import { drawn } from '../support/media';

const folder = filmFolder();
const path = join(folder, 'film.mp4');
const question = 'What happens in the film?';

/** The frames at these places of the film. */
async function framesAt(...places: number[]): Promise<ImageInput[]> {
  const film = await openFilm(path, () => places, { maxPixels: 1e6, allowUrls: false });
  const frames: ImageInput[] = [];
  for await (const frame of film.frames()) frames.push(frame);
  return frames;
}

/** Number of running programs of ffmpeg that this process has started. */
function decoders(): number {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.filter((pid) => {
    try {
      const [name, rest = ''] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ');
      const [state, parent] = rest.split(' ');
      return /\(ff(mpeg|probe)$/.test(name ?? '') && parent === String(process.pid) && state !== 'Z';
    } catch {
      return false;
    }
  }).length;
}

describe('films', () => {
  let nvila: Model;
  let qwen: Model;
  beforeAll(async () => {
    nvila = await load(join(FIXTURES, 'nvila', 'film'));
    qwen = await load(join(FIXTURES, 'qwen_vl', 'qwen3-vl'));
  });
  afterAll(() => {
    for (const model of [nvila, qwen]) model.dispose();
  });
  const ask = async (model: Model, video: object) => {
    using chat = model.session();
    const answer = chat.ask(question, { videos: [video as never], maxTokens: 6, temperature: 0 });
    return { text: await answer.text(), stats: answer.stats };
  };

  itWithFfmpeg('a film is asked about like the frames that the rule of the family takes', async () => {
    ffmpeg('-f', 'lavfi', '-i', 'testsrc=size=44x32:rate=10:duration=3', '-pix_fmt', 'yuv420p', path);
    // Eight frames, round(i * 29 / 7), as num_video_frames says.
    const frames = await framesAt(0, 4, 8, 12, 17, 21, 25, 29);
    const own = await ask(nvila, { frames });
    const film = await ask(nvila, { file: path });
    expect(film.text).toBe(own.text);
    expect(film.stats?.media).toEqual(own.stats?.media);
    expect((await ask(nvila, { file: readFileSync(path), to: 2, maxFrames: 4 })).stats?.tokens.visualSeen).toBe(16);
  });

  itWithFfmpeg('times of the film stand in the prompt', async () => {
    // Two frames per second from second 1 on: 0.5, and four at least.
    const { stats } = await ask(qwen, { file: path, from: 1, to: 2.5 });
    const text = stats?.media[0]?.layout.text.replaceAll(/<\|.*?\|>|\uFFFC/g, '');
    expect(text).toBe('<1.2 seconds><2.1 seconds>');
    const frames = await framesAt(10, 15, 19, 24);
    const own = await ask(qwen, { frames, times: [1, 1.5, 1.9, 2.4] });
    expect(own.stats?.media).toEqual(stats?.media);
    const rate = await ask(qwen, { file: path, fps: 1, maxFrames: 2 });
    expect(rate.stats?.media[0]?.layout.grids[0]?.t).toBe(1);
  });

  it('a stream of frames is read to its end, or until there are enough', async () => {
    const picture = (value: number) =>
      ({ data: new Uint8Array(20 * 20 * 3).fill(value), width: 20, height: 20, channels: 3 }) as const;
    let [given, closed] = [0, false];
    async function* camera(): AsyncGenerator<ImageInput> {
      try {
        for (;;) yield picture(30 * given++);
      } finally {
        closed = true;
      }
    }
    const list = await ask(nvila, { frames: [0, 1, 2, 3].map((i) => picture(30 * i)) });
    const stream = await ask(nvila, { frames: camera(), maxFrames: 4 });
    expect([stream.text, given, closed]).toEqual([list.text, 4, true]);
    async function* none(): AsyncGenerator<ImageInput> {
      yield* [];
    }
    expect((await errorOf(() => ask(nvila, { frames: none() }))).code).toBe('ERR_VIDEO_EMPTY');
  });

  it.each([
    'nvila/film',
    'qwen_vl/qwen2-vl',
    'qwen_vl/qwen3-vl',
    'llava_onevision/tied',
    'smolvlm/smolvlm',
    'internvl/layer',
  ])('the canvases of a stream are those of a list: %s', async (folder) => {
    using model = await load(join(FIXTURES, folder));
    const frames = [1, 2, 3, 4, 5, 6, 7, 8].map((seed) => ({
      ...{ width: 120, height: 90, channels: 3 as const },
      data: Uint8Array.from({ length: 120 * 90 * 3 }, (_, i) => (Math.imul(i + seed, 2654435761) >>> 24) & 255),
    }));
    async function* camera(count: number): AsyncGenerator<ImageInput> {
      yield* frames.slice(0, count);
    }
    for (const count of folder === 'nvila/film' ? [4, 8] : [1, 2, 5]) {
      const stream = await drawn(model, [{ kind: 'video', video: { frames: camera(count) } }]);
      expect(stream).toEqual(await drawn(model, [{ kind: 'video', video: { frames: frames.slice(0, count) } }]));
    }
  });

  it('each frame of a stream is drawn before the next is asked for, and not held in its own size', async () => {
    const draws = jest.spyOn(canvases, 'draw');
    const before: number[] = [];
    async function* camera(): AsyncGenerator<ImageInput> {
      for (let i = 0; i < 4; i++) {
        before.push(draws.mock.calls.length);
        yield { data: new Uint8Array(90 * 80 * 3).fill(i), width: 90, height: 80, channels: 3 };
      }
    }
    try {
      await nvila.prepare([{ kind: 'video', video: { frames: camera() } }]);
    } finally {
      draws.mockRestore();
    }
    expect(before).toEqual([0, 1, 2, 3]);
  });

  it('a stream of frames that fails, or gives none, is left', async () => {
    const picture = { data: new Uint8Array(300), width: 10, height: 10, channels: 3 } as const;
    async function* broken(): AsyncGenerator<ImageInput> {
      yield picture;
      throw new Error('unplugged');
    }
    const failed = await errorOf(() => ask(nvila, { frames: broken() }));
    expect([failed.code, failed.message]).toEqual(['ERR_VIDEO_UNREADABLE', expect.stringContaining('unplugged')]);
    let isClosed = false;
    const [controller, reason] = [new AbortController(), new Error('enough')];
    const silent = {
      [Symbol.asyncIterator]: () => ({
        next: () => {
          setImmediate(() => controller.abort(reason));
          return new Promise(() => undefined);
        },
        return: async () => {
          isClosed = true;
          return { done: true as const, value: undefined };
        },
      }),
    };
    using chat = nvila.session();
    const videos = [{ frames: silent as AsyncIterable<ImageInput> }];
    const reading = chat.ask(question, { videos, signal: controller.signal }).text();
    await expect(reading).rejects.toBe(reason);
    expect([isClosed, chat.length]).toEqual([true, 0]);
  });

  itWithFfmpeg('an abort while a film is decoded leaves the conversation as it was', async () => {
    using chat = nvila.session();
    const controller = new AbortController();
    const reason = new Error('enough');
    const video = { file: path, onProgress: () => controller.abort(reason) };
    const answer = chat.ask(question, { videos: [video], signal: controller.signal });
    await expect(answer.text()).rejects.toBe(reason);
    expect([chat.length, decoders()]).toEqual([0, 0]);
    const thrown = { file: path, onProgress: () => JSON.parse('') };
    expect((await errorOf(() => chat.ask(question, { videos: [thrown] }).text())).code).toBe('ERR_CALLBACK');
  });

  itWithFfmpeg('a film that changed since it was given is not read again', async () => {
    const own = join(folder, 'own.mp4');
    copyFileSync(path, own);
    using chat = nvila.session();
    await chat.ask(question, { videos: [{ file: own }], maxTokens: 1 }).text();
    writeFileSync(own, 'another');
    expect((await errorOf(() => chat.save(join(folder, 'saved')))).code).toBe('ERR_VIDEO_UNREADABLE');
    copyFileSync(path, own);
    const given = [{ kind: 'video', video: { file: own } } as const, question];
    await chat.open([
      { role: 'user', content: given },
      { role: 'assistant', content: 'A test card.' },
    ]);
    rmSync(own);
    const error = await errorOf(() => chat.ask('And then?', { maxTokens: 1 }).text());
    expect([error.code, /removed/.test(error.message), decoders()]).toEqual(['ERR_VIDEO_UNREADABLE', true, 0]);
  });

  it.each([
    { file: 'a.mp4', frames: [] },
    { file: 'a.mp4', from: 2, to: 1 },
    { file: 'a.mp4', from: -1 },
    { file: 'a.mp4', maxFrames: 0 },
    { file: 'a.mp4', fps: 0 },
    { file: 'a.mp4', begin: 1 },
    { file: 'a.mp4', times: [1] },
    { frames: ['a.png'], times: [1, 2] },
    { frames: ['a.png', 'b.png'], times: [2, 1] },
    { frames: ['a.png'], maxFrames: 1 },
    { frames: 'a.png' },
    {},
  ])('%j is refused before anything is read', async (video) => {
    using chat = nvila.session();
    const error = await errorOf(async () => chat.ask('What?', { videos: [video as never] }));
    expect([error.code, /\{ file/.test(error.message)]).toEqual(['ERR_OPTION_INVALID', true]);
  });

  it.each([
    [{ file: 'a.mp4', maxFrames: 0 }, /an integer of at least 1 for maxFrames of a video \{ file \}, received 0\.$/],
    [{ file: 'a.mp4', from: 2, to: 1 }, /a number above from for to of a video \{ file \}, received 1\.$/],
    [{ file: 'a.mp4', maxframes: 3 }, /received the option "maxframes"\.$/],
    [{ frames: ['a.png'], fps: 0 }, /a number above 0 for fps of a video \{ frames \}, received 0\.$/],
  ])('%j: the error names the option', async (video, message) => {
    using chat = nvila.session();
    const error = await errorOf(async () => chat.ask('What?', { videos: [video as never] }));
    expect([error.code, error.message]).toEqual(['ERR_OPTION_INVALID', expect.stringMatching(message)]);
  });
});
