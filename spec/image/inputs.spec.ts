// All forms of image input give equal pixels; slow, endless and forbidden sources end in an error.

import { execFileSync, spawn } from 'node:child_process';
import { createReadStream, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import { collect } from '../../src/image/collect';
import { type DecodeOptions, decodeImage, type ImageInput } from '../../src/image/decode';
import { iterated } from '../../src/image/input';
import { bytesOf, difference, EXACT, errorOf, fixture } from './fixtures';

const FILE = fixture('rgb.png');
const BYTES = bytesOf('rgb.png');
const BASE64 = BYTES.toString('base64');

function shared(): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(BYTES.length);
  new Uint8Array(buffer).set(BYTES);
  return buffer;
}

const plain = (): ArrayBuffer => new Uint8Array(BYTES).buffer;

async function* pieces(): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < BYTES.length; at += 7) yield BYTES.subarray(at, at + 7);
}

const FORMS: Readonly<Record<string, () => ImageInput>> = {
  'a relative path': () => relative('', FILE),
  'a file URL as text': () => pathToFileURL(FILE).href,
  'a file URL': () => pathToFileURL(FILE),
  'a data URL as text': () => `data:image/png;base64,${BASE64}`,
  'a data URL': () => new URL(`data:image/png;base64,${BASE64}`),
  'a data URL that lies about its type': () => `DATA:text/html;charset=utf-8;base64,${BASE64}`,
  'a data URL with escaped base64': () => `data:;base64,${encodeURIComponent(BASE64)}`,
  'a data URL in percent encoding': () =>
    `data:image/png,${[...BYTES].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('')}`,
  base64: () => BASE64,
  'base64 without padding': () => BASE64.replace(/=+$/, ''),
  'base64 in lines': () => BASE64.replace(/(.{76})/g, '$1\r\n'),
  base64url: () => BYTES.toString('base64url'),
  'a Blob': () => new Blob([BYTES]),
  'a File': () => new File([BYTES], 'a.png', { type: 'image/png' }),
  'an ArrayBuffer': plain,
  'a SharedArrayBuffer': shared,
  'a view of a SharedArrayBuffer': () => new Uint8Array(shared()),
  'a DataView': () => new DataView(plain()),
  'a Uint8ClampedArray': () => new Uint8ClampedArray(BYTES),
  'an Int8Array': () => new Int8Array(plain()),
  'a Node stream': () => createReadStream(FILE),
  'a Node stream of small pieces': () => createReadStream(FILE, { highWaterMark: 5 }),
  'a web stream': () => new Blob([BYTES]).stream(),
  'an asynchronous generator': pieces,
};

const refused = (input: unknown, options: DecodeOptions = {}) =>
  errorOf(() => decodeImage(input as ImageInput, options));

describe('decodeImage', () => {
  it.each(Object.entries(FORMS))('takes %s', async (_, make) => {
    const [expected, image] = [await decodeImage(FILE), await decodeImage(make())];
    expect([image.width, image.height]).toEqual([expected.width, expected.height]);
    expect(difference(image.data, expected.data)).toEqual(EXACT);
  });

  it.each([
    ['a data URL without a comma', 'data:image/png;base64', 'ERR_IMAGE_INVALID'],
    ['a data URL with characters that base64 lacks', `data:;base64,${BASE64}!`, 'ERR_IMAGE_INVALID'],
    ['a data URL without data', 'data:image/png;base64,', 'ERR_IMAGE_EMPTY'],
    [
      'a data URL of another format',
      `data:image/png;base64,${Buffer.from('%PDF-1.7').toString('base64')}`,
      'ERR_IMAGE_UNSUPPORTED',
    ],
    ['base64 of no image', Buffer.from('no image at all, only words').toString('base64'), 'ERR_IMAGE_NOT_FOUND'],
    ['a file URL of another machine', 'file://elsewhere/a.png', 'ERR_IMAGE_INVALID'],
    ['a Blob of words', () => new Blob(['words, not pixels']), 'ERR_IMAGE_UNSUPPORTED'],
    ['an empty Blob', () => new Blob([]), 'ERR_IMAGE_EMPTY'],
    ['an empty stream', () => Readable.from([]), 'ERR_IMAGE_EMPTY'],
    ['a stream of text', () => createReadStream(FILE, { encoding: 'latin1' }), 'ERR_IMAGE_UNREADABLE'],
    ['a stream that fails', () => createReadStream('/no/such/file'), 'ERR_IMAGE_UNREADABLE'],
  ])('refuses %s', async (_, input, code) => {
    const error = await refused(typeof input === 'function' ? input() : input);
    expect(error.code).toBe(code);
    expect(error.message.length).toBeLessThan(700);
  });

  it('says that a stream can be read only once', async () => {
    const stream = createReadStream(FILE);
    await decodeImage(stream);
    expect((await refused(stream)).message).toMatch(/no stream is read twice/);
    const web = new Blob([BYTES]).stream();
    await decodeImage(web);
    expect((await refused(web)).code).toBe('ERR_IMAGE_UNREADABLE');
  });

  it('abandons an endless stream by its first bytes, by its size, after silence, and on abort', async () => {
    expect((await refused(createReadStream('/dev/zero'))).code).toBe('ERR_IMAGE_UNSUPPORTED');
    let given = 0;
    const endless = Readable.from(
      (function* () {
        yield BYTES;
        for (;;) {
          given += 2 ** 22;
          yield Buffer.alloc(2 ** 22);
        }
      })(),
    );
    expect((await refused(endless, { maxPixels: 10_000 })).code).toBe('ERR_IMAGE_TOO_LARGE');
    expect(given).toBeLessThan(2 ** 27);
    expect(endless.destroyed).toBe(true);
    const silent = new Readable({ read: () => undefined });
    await expect(decodeImage(silent, { signal: AbortSignal.timeout(20) })).rejects.toMatchObject({
      name: 'TimeoutError',
    });
    expect(silent.destroyed).toBe(true);
    const waiting = collect(() => iterated(new Readable({ read: () => undefined })), {
      name: 'x',
      maxBytes: 9,
      idleMs: 20,
    });
    await expect(waiting).rejects.toMatchObject({
      code: 'ERR_IMAGE_UNREADABLE',
      message: expect.stringMatching(/none came/),
    });
  });
});

describe('FIFOs', () => {
  const folder = mkdtempSync(join(tmpdir(), 'fifo-'));
  const fifo = join(folder, 'p.png');
  execFileSync('mkfifo', [fifo]);
  afterAll(() => rmSync(folder, { recursive: true }));

  it('are read, whether the writer comes first or last', async () => {
    const expected = await decodeImage(FILE);
    const decoding = decodeImage(fifo);
    spawn('sh', ['-c', `cat '${FILE}' > '${fifo}'`]);
    expect(difference((await decoding).data, expected.data)).toEqual(EXACT);
  });

  it('without a writer block no thread: a picture is decoded beside many of them, and all of them stop on abort', async () => {
    const descriptors = () => readdirSync('/proc/self/fd').length;
    const before = descriptors();
    const controller = new AbortController();
    const waiting = Array.from({ length: 12 }, () => decodeImage(fifo, { signal: controller.signal }));
    await expect(decodeImage(FILE)).resolves.toHaveProperty('width', 37);
    controller.abort('enough');
    expect(await Promise.all(waiting.map((image) => image.catch((reason) => reason)))).toEqual(
      Array(12).fill('enough'),
    );
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(descriptors()).toBeLessThanOrEqual(before + 2);
  });

  it('process substitution and a piped standard input are read, by a process that ends', () => {
    const script = join(__dirname, '../../src/image/decode.js');
    const program = `require(${JSON.stringify(script)}).decodeImage(process.argv[1]).then((image) => console.log(image.width))`;
    const node = `'${process.execPath}' -e '${program}'`;
    const lines = `${node} <(cat '${FILE}'); cat '${FILE}' | ${node} /dev/stdin; ${node} /dev/stdin < '${FILE}'`;
    expect(execFileSync('bash', ['-c', lines], { encoding: 'utf8' })).toBe('37\n37\n37\n');
    // Node gives a child process a socket as stdin.
    expect(execFileSync(process.execPath, ['-e', program, '/dev/stdin'], { input: BYTES, encoding: 'utf8' })).toBe(
      '37\n',
    );
  });
});

describe('http URLs', () => {
  let server: Server;
  let base = '';
  const asked: string[] = [];
  const answers: Readonly<Record<string, (response: import('node:http').ServerResponse) => void>> = {
    '/a.png': (response) => response.end(BYTES),
    '/lie.png': (response) => response.end(`<!doctype html>${' '.repeat(100)}`),
    '/html': (response) => response.setHeader('content-type', 'text/html').end(BYTES),
    '/to-a': (response) => response.writeHead(302, { location: '/a.png' }).end(),
    '/for-ever': (response) => response.writeHead(302, { location: '/for-ever' }).end(),
    '/to-file': (response) => response.writeHead(302, { location: pathToFileURL(FILE).href }).end(),
    '/large': (response) => response.writeHead(200, { 'content-length': '999999999999' }).write(BYTES),
    '/half': (response) => response.write(BYTES.subarray(0, 100)),
  };
  beforeAll(async () => {
    server = createServer((request, response) => {
      asked.push(request.url ?? '');
      const answer = answers[request.url ?? ''];
      if (answer === undefined) response.writeHead(404).end();
      else answer(response);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });

  it('are not fetched unless they are allowed', async () => {
    for (const input of [`${base}/a.png`, new URL('/a.png', base)]) {
      const error = await refused(input);
      expect([error.code, error.message]).toEqual(['ERR_IMAGE_URL', expect.stringMatching(/allowUrls: true/)]);
    }
    expect(asked).toEqual([]);
  });

  it.each(['/a.png', '/html', '/to-a'])('are fetched: %s', async (path) => {
    const expected = await decodeImage(FILE);
    expect(difference((await decodeImage(base + path, { allowUrls: true })).data, expected.data)).toEqual(EXACT);
    expect(difference((await decodeImage(new URL(path, base), { allowUrls: true })).data, expected.data)).toEqual(
      EXACT,
    );
  });

  it('are allowed one by one, redirects included', async () => {
    const allowUrls = ({ pathname }: { pathname: string }) => pathname === '/to-a';
    const error = await refused(`${base}/to-a`, { allowUrls });
    expect([error.code, error.message]).toEqual(['ERR_IMAGE_URL', expect.stringMatching(/redirects to .*a\.png/)]);
  });

  it('says when the function that allows them throws', async () => {
    const allowUrls = () => {
      throw new Error('no such list');
    };
    expect((await refused(`${base}/a.png`, { allowUrls })).code).toBe('ERR_CALLBACK');
  });

  it.each([
    ['/none.png?token=secret', 'ERR_IMAGE_FETCH', /404/],
    ['/lie.png', 'ERR_IMAGE_UNSUPPORTED', /HTML/],
    ['/for-ever', 'ERR_IMAGE_FETCH', /redirects more than 5 times/],
    ['/to-file', 'ERR_IMAGE_URL', /file:/],
    ['/large', 'ERR_IMAGE_TOO_LARGE', /bytes/],
  ])('refuses %s', async (path, code, message) => {
    const error = await refused(base + path, { allowUrls: true });
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(message)]);
    expect(error.message).not.toContain('secret');
  });

  it('refuses an invalid URL, one with a password, and a server that does not exist', async () => {
    expect((await refused('http://[', { allowUrls: true })).code).toBe('ERR_IMAGE_INVALID');
    const error = await refused(base.replace('//', '//me:secret@'), { allowUrls: true });
    expect([error.code, error.message]).toEqual(['ERR_IMAGE_INVALID', expect.not.stringContaining('secret')]);
    expect((await refused('http://127.0.0.1:9/a.png', { allowUrls: true })).code).toBe('ERR_IMAGE_FETCH');
  });

  it('stops on abort', async () => {
    const stopped = decodeImage(`${base}/half`, { allowUrls: true, signal: AbortSignal.timeout(50) });
    await expect(stopped).rejects.toMatchObject({ name: 'TimeoutError' });
  });
});
