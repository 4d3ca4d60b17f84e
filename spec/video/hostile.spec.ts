// Films that must not be opened, or not to the end: playlists and other files that name files or addresses, damage, sizes, time, aborts; and
// ffmpeg that is missing or too old.

import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type FilmOptions, openFilm } from '../../src/video/film';
import { findTools, runTool, type ToolOptions } from '../../src/video/tools';
import { errorOf } from '../image/fixtures';
import { ffmpeg, filmFolder, itWithFfmpeg, numbered } from '../support/films';

const folder = filmFolder();
const at = (name: string): string => join(folder, name);

async function decoded(file: unknown, options: Partial<FilmOptions> = {}): Promise<number> {
  const film = await openFilm(file, ({ frames }) => [frames - 1], { maxPixels: 1e6, allowUrls: false, ...options });
  let frames = 0;
  for await (const _ of film.frames()) frames++;
  return frames;
}
const refusal = async (file: unknown, options: Partial<FilmOptions> = {}): Promise<string> =>
  (await errorOf(() => decoded(file, options))).code;

describe('hostile films', () => {
  let server: Server;
  let film: string;
  const requests: string[] = [];
  beforeAll(async () => {
    server = createServer((request, response) => {
      requests.push(request.url ?? '');
      response.end(readFileSync(film));
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  });
  afterAll(() => new Promise((done) => server.close(done)));
  const url = (): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}/film.mp4`;

  itWithFfmpeg('nothing that a file names is opened', async () => {
    film = numbered(at('film.mp4'), 30);
    const lists = {
      'list.m3u8': `#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n${url()}\n#EXT-X-ENDLIST\n`,
      'list.mp4': `#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:${film}\n#EXT-X-ENDLIST\n`,
      'list.ffconcat': `ffconcat version 1.0\nfile ${film}\n`,
      'list.mpd': `<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>${url()}</BaseURL></Representation></AdaptationSet></Period></MPD>`,
      'list.sdp':
        'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n',
      'list.txt': 'neither a film nor a list\n',
    };
    for (const [name, text] of Object.entries(lists)) {
      writeFileSync(at(name), text);
      for (const input of [at(name), Buffer.from(text)])
        expect(['ERR_VIDEO_UNSUPPORTED', 'ERR_VIDEO_CORRUPT']).toContain(await refusal(input));
    }
    expect(await refusal(at('list.m3u8'))).toBe('ERR_VIDEO_UNSUPPORTED');
    expect(requests).toEqual([]);
  });

  itWithFfmpeg('names are only names', async () => {
    const here = process.cwd();
    process.chdir(folder);
    try {
      for (const name of ['-i.mp4', '--help', 'frame%03d.mp4', 'concat:film.mp4|film.mp4', 'a b;$(x).mp4', 'pipe:0']) {
        copyFileSync(film, at(name));
        expect(await decoded(name)).toBe(1);
      }
      for (const name of ['concat:a.mp4', 'lavfi:testsrc', 'subfile,,start,0,end,9,,:film.mp4'])
        expect(await refusal(name)).toBe('ERR_VIDEO_NOT_FOUND');
      expect(await refusal(`rtsp://127.0.0.1:${(server.address() as AddressInfo).port}/x`)).toBe('ERR_VIDEO_NOT_FOUND');
    } finally {
      process.chdir(here);
    }
  });

  itWithFfmpeg('URLs are fetched only where they are allowed', async () => {
    expect(await refusal(url())).toBe('ERR_IMAGE_URL');
    expect(await refusal(url(), { allowUrls: ({ port }) => port === '1' })).toBe('ERR_IMAGE_URL');
    expect(requests).toEqual([]);
    expect(await decoded(url(), { allowUrls: true })).toBe(1);
    expect(requests).toEqual(['/film.mp4']);
  });

  itWithFfmpeg('damage, sizes and kinds are told apart', async () => {
    const bytes = readFileSync(film);
    ffmpeg('-i', film, '-c', 'copy', '-movflags', '+faststart', at('fast.mp4'));
    const fast = readFileSync(at('fast.mp4'));
    const index = fast.indexOf('mdat');
    mkdirSync(at('folder'));
    execFileSync('mkfifo', [at('fifo')]);
    writeFileSync(at('nothing'), '');
    const noise = Buffer.from(fast);
    noise.fill(0x5a, index + 8);
    const cases: readonly (readonly [unknown, string])[] = [
      [bytes.subarray(0, bytes.length - 200), 'ERR_VIDEO_CORRUPT'],
      [fast.subarray(0, index + (fast.length - index) / 2), 'ERR_VIDEO_CORRUPT'],
      [noise, 'ERR_VIDEO_CORRUPT'],
      [Buffer.from('GIF89a'), 'ERR_VIDEO_CORRUPT'],
      [Buffer.alloc(0), 'ERR_VIDEO_EMPTY'],
      [at('nothing'), 'ERR_VIDEO_EMPTY'],
      [at('folder'), 'ERR_VIDEO_UNREADABLE'],
      [at('fifo'), 'ERR_VIDEO_UNREADABLE'],
      [at('absent.mp4'), 'ERR_VIDEO_NOT_FOUND'],
      [{ data: new Uint8Array(3), width: 1, height: 1, channels: 3 }, 'ERR_VIDEO'],
    ];
    for (const [input, code] of cases) expect([code, await refusal(input)]).toEqual([code, code]);
    expect(await refusal(film, { maxPixels: 64 * 48 - 1 })).toBe('ERR_VIDEO_TOO_LARGE');
    ffmpeg('-f', 'lavfi', '-i', 'color=s=4000x3000:d=0.1', at('large.mkv'));
    expect(await refusal(at('large.mkv'))).toBe('ERR_VIDEO_TOO_LARGE');
    expect(await refusal(film, { from: 100 })).toBe('ERR_VIDEO_EMPTY');
    // A sound has no pictures.
    ffmpeg('-f', 'lavfi', '-i', 'sine=duration=1', at('sound.mkv'));
    expect(await refusal(at('sound.mkv'))).toBe('ERR_VIDEO_EMPTY');
    // The shape of pixels would make a frame of 64 x 48 some hundred million wide.
    ffmpeg('-i', film, '-c:v', 'ffv1', '-aspect', '100000:1', at('wide.mkv'));
    expect(await refusal(at('wide.mkv'), { maxPixels: 100_000 })).toBe('ERR_VIDEO_TOO_LARGE');
  });

  itWithFfmpeg('an abort ends the call with its reason', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const options = { maxPixels: 1e6, allowUrls: false, signal: controller.signal };
    const opened = await openFilm(film, () => [0, 1, 2], options);
    const reading = (async () => {
      for await (const _ of opened.frames(options)) controller.abort(reason);
    })();
    await expect(reading).rejects.toBe(reason);
    await expect(openFilm(film, () => [0], options)).rejects.toBe(reason);
  });
});

describe('programs that read films', () => {
  const shell = async (script: string, options: Partial<ToolOptions> = {}): Promise<string> => {
    let text = '';
    const failed = (words: string) => new Error(`failed: ${words}`) as never;
    const run = runTool('/bin/sh', ['-c', script], { name: 'a film', ...options }, failed);
    for await (const piece of run.pieces) text += Buffer.from(piece).toString();
    return text;
  };
  const isRunning = (pid: number): boolean => {
    try {
      process.kill(pid, 0);
      return true;
    } catch {
      return false;
    }
  };

  it('are ended when nothing comes, after the longest time, and by an abort', async () => {
    const quiet = await errorOf(() => shell('exec sleep 1000', { idleMs: 1 }));
    expect([quiet.code, /nothing came/.test(quiet.message)]).toEqual(['ERR_VIDEO_TIMEOUT', true]);
    const busy = 'while :; do echo x >&3; sleep 0.05; done';
    expect((await errorOf(() => shell(busy, { idleMs: 60_000, totalMs: 1 }))).message).toMatch(/within/);
    const controller = new AbortController();
    const running = runTool(
      '/bin/sh',
      ['-c', 'echo $$; exec sleep 1000'],
      { name: 'x', signal: controller.signal },
      () => {
        throw new Error('no failure is told');
      },
    );
    let pid = 0;
    const reading = (async () => {
      for await (const piece of running.pieces) {
        pid = Number(Buffer.from(piece).toString());
        controller.abort(new Error('stop'));
      }
    })();
    await expect(reading).rejects.toThrow('stop');
    expect([pid > 0, isRunning(pid)]).toEqual([true, false]);
  });

  it('may fail, not start, or stop reading their input', async () => {
    await expect(shell('echo broken >&2; exit 3')).rejects.toThrow(/broken/);
    expect(await shell('exec head -c 1', { input: [Buffer.from('ab'), Buffer.alloc(1 << 20)] })).toBe('a');
    const run = runTool(at('no-such-program'), [], { name: 'x' }, () => {
      throw new Error('no failure is told');
    });
    const read = async (): Promise<void> => {
      for await (const _ of run.pieces) throw new Error('nothing to read');
    };
    expect((await errorOf(read)).code).toBe('ERR_VIDEO_TOOL');
  });

  it('must be there, and not too old', async () => {
    const missing = await errorOf(async () => findTools({ PATH: at('empty') }));
    expect(missing.code).toBe('ERR_VIDEO_TOOL');
    expect(missing.message).toMatch(/no ffmpeg and ffprobe.*apt-get install ffmpeg.*list of frames/);
    mkdirSync(at('bin'));
    for (const name of ['ffmpeg', 'ffprobe']) {
      writeFileSync(at(`bin/${name}`), '#!/bin/sh\necho ffmpeg version 3.4.8-0ubuntu\n');
      chmodSync(at(`bin/${name}`), 0o755);
    }
    expect((await errorOf(async () => findTools({ PATH: at('bin') }))).message).toMatch(/found ffmpeg version 3\.4\.8/);
    const newer = [
      ['n7.1', 701],
      ['5.1.9-0+deb12u1', 501],
      ['N-118000-gabc', 9900],
    ] as const;
    for (const [i, [version, number]] of newer.entries()) {
      mkdirSync(at(`bin${i}`));
      for (const name of ['ffmpeg', 'ffprobe']) {
        writeFileSync(at(`bin${i}/${name}`), `#!/bin/sh\necho ffmpeg version ${version}\n`);
        chmodSync(at(`bin${i}/${name}`), 0o755);
      }
      expect(findTools({ PATH: at(`bin${i}`) }).version).toBe(number);
    }
  });
});
