// Who may call the server and how much at once: keys, host names, web pages of other origins, bodies, and the graceful stop.
import { createServer, type Server as HttpServer, request as httpRequest } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { SparseVilaError } from '../../src/errors';
import { clientOf } from '../../src/server/clients';
import { type Server, type ServerOptions, serve } from '../../src/server/server';
import { type ScriptedEngine, scriptedEngine } from '../support/scripted_engine';

const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
);
const BODY = { model: 'scripted', messages: [{ role: 'user', content: 'Hello' }] };

let engine: ScriptedEngine;
let server: Server;
async function start(options: ServerOptions = {}): Promise<void> {
  engine = scriptedEngine();
  server = await serve(engine, { port: 0, ...options });
}
afterEach(() => server.close({ now: true }));

/** Status, headers and body of a request with headers that `fetch` would not send. */
function ask(path: string, headers: Record<string, string> = {}, method = 'GET', body?: string) {
  return new Promise<{ status: number; headers: NodeJS.Dict<string | string[]>; body: string }>((resolve, reject) => {
    const sent = httpRequest(server.url + path, { method, headers, agent: false }, (response) => {
      let text = '';
      response.on('data', (piece) => {
        text += piece;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}
const post = (body: unknown = BODY, headers: Record<string, string> = {}) =>
  ask(
    '/v1/chat/completions',
    { 'content-type': 'application/json', ...headers },
    'POST',
    typeof body === 'string' ? body : JSON.stringify(body),
  );

describe('requests of one client', () => {
  const slow = { prefillMs: 60_000 };
  /** Requests that are not answered until their connection ends. */
  const open = (count: number, headers: Record<string, string> = {}): AbortController[] =>
    Array.from({ length: count }, () => {
      const controller = new AbortController();
      const { signal } = controller;
      const head = { 'content-type': 'application/json', ...headers };
      const sent = { method: 'POST', headers: head, body: JSON.stringify(BODY), signal };
      fetch(`${server.url}/v1/chat/completions`, sent).catch(() => undefined);
      return controller;
    });
  const until = async (count: number): Promise<void> => {
    while (server.held() !== count) await new Promise((resolve) => setTimeout(resolve, 5));
  };

  it('are limited by key, and others are answered', async () => {
    await start({ apiKeys: ['first', 'second'], limits: { clientRequests: 2 } });
    engine.state.script = slow;
    const first = { authorization: 'Bearer first' };
    const [one] = open(2, first);
    await until(2);
    const refused = await post(BODY, first);
    expect(refused).toMatchObject({ status: 429, headers: { 'retry-after': '1', 'x-should-retry': 'true' } });
    expect(JSON.parse(refused.body)).toMatchObject({ error: { code: 'rate_limit_exceeded' } });
    expect((await ask('/v1/models', first)).status).toBe(200);
    engine.state.script = {};
    expect((await post(BODY, { authorization: 'Bearer second' })).status).toBe(200);
    one?.abort();
    await until(1);
    for (const _ of [1, 2, 3]) expect((await post(BODY, first)).status).toBe(200);
  });

  it('are limited by address without keys, and not at all by default', async () => {
    await start({ limits: { clientRequests: 1 } });
    engine.state.script = slow;
    open(1);
    await until(1);
    expect((await post()).status).toBe(429);
    await server.close({ now: true });
    await start();
    engine.state.script = slow;
    open(9);
    await until(9);
    engine.state.script = {};
    expect((await post()).status).toBe(200);
  });

  it.each([
    ['10.1.2.3', '10.1.2.3'],
    ['::ffff:10.1.2.3', '10.1.2.3'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
    ['2001:db8::6', '2001:db8:0:0'],
    ['fe80::1%eth0', 'fe80:0:0:0'],
    ['::1', '0:0:0:0'],
  ])('%s is the client %s', (address, client) => expect(clientOf(address)).toBe(client));
});

describe('keys', () => {
  it('are asked for everywhere but at /health', async () => {
    await start({ apiKeys: ['first', 'second'] });
    for (const path of ['/v1/models', '/metrics', '/nowhere', '/v1/models/scripted', '/v1/models?x=/health'])
      expect((await ask(path)).status).toBe(401);
    expect((await post()).status).toBe(401);
    expect((await ask('/health')).status).toBe(200);
    for (const key of ['first', 'second'])
      expect((await ask('/v1/models', { authorization: `Bearer ${key}` })).status).toBe(200);
    for (const given of ['Bearer', 'Bearer ', 'Bearer firs', 'Bearer first2', 'Basic first', 'first', 'Bearer FIRST'])
      expect((await ask('/v1/models', { authorization: given })).status).toBe(401);
  });

  it('a request without a key is refused before its body is sent', async () => {
    await start({ apiKeys: ['key'] });
    const { port, hostname } = new URL(server.url);
    const socket = connect(Number(port), hostname);
    socket.write(
      'POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n',
    );
    const answer = await new Promise<string>((resolve) => socket.once('data', (data) => resolve(data.toString())));
    socket.destroy();
    expect(answer).toMatch(/^HTTP\/1.1 401/);
  });
});

describe('web pages', () => {
  it('of other origins get no permission by default', async () => {
    await start();
    const preflight = await ask(
      '/v1/chat/completions',
      { origin: 'https://evil.example', 'access-control-request-method': 'POST' },
      'OPTIONS',
    );
    expect(preflight.headers['access-control-allow-origin']).toBeUndefined();
    // What a page may send without asking is refused for its type.
    const form = await post(BODY, { origin: 'https://evil.example', 'content-type': 'text/plain' });
    expect(form.status).toBe(415);
    expect(form.body).toContain('content-type: application/json');
  });

  it('of a given origin may call', async () => {
    await start({ origins: ['https://good.example'] });
    const headers = {
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization,content-type',
    };
    const good = await ask('/v1/chat/completions', { ...headers, origin: 'https://good.example' }, 'OPTIONS');
    expect([good.status, good.headers['access-control-allow-origin']]).toEqual([204, 'https://good.example']);
    expect((await post(BODY, { origin: 'https://good.example' })).headers['access-control-allow-origin']).toBe(
      'https://good.example',
    );
    const evil = await ask('/v1/chat/completions', { ...headers, origin: 'https://evil.example' }, 'OPTIONS');
    expect(evil.headers['access-control-allow-origin']).toBeUndefined();
  });

  it('cannot reach a local server under a name of their own', async () => {
    await start({ hostNames: ['models.example'] });
    for (const host of ['evil.example', 'evil.example:80', '127.0.0.1.evil.example', '[::2]', 'a b'])
      expect((await ask('/v1/models', { host })).status).toBe(403);
    for (const host of ['localhost', 'LOCALHOST:8000', '127.0.0.1', '[::1]:80', 'models.example'])
      expect((await ask('/v1/models', { host })).status).toBe(200);
  });
});

describe('room', () => {
  it('a request too many is told when to come back, and the next one is answered', async () => {
    await start({ limits: { requests: 2 } });
    engine.state.script = { prefillMs: 100_000 };
    const running = [post(), post()].map((one) => one.catch(() => undefined));
    while (engine.state.running < 2) await new Promise((resolve) => setTimeout(resolve, 5));
    const refused = await post();
    expect(refused).toMatchObject({ status: 429, headers: { 'retry-after': '1', 'x-should-retry': 'true' } });
    expect(JSON.parse(refused.body)).toMatchObject({
      error: { type: 'rate_limit_error', code: 'rate_limit_exceeded' },
    });
    await server.close({ now: true });
    await Promise.all(running);
    expect([engine.state.running, server.held()]).toEqual([0, 0]);
  });

  it('bodies are bounded one by one and together', async () => {
    await start({ limits: { bodyBytes: 1000, heldBytes: 1500 } });
    const large = { ...BODY, user: 'x'.repeat(1000) };
    expect(JSON.parse((await post(large)).body)).toMatchObject({ error: { code: 'request_too_large' } });
    const chunked = await post(large, { 'transfer-encoding': 'chunked' });
    expect(chunked.status).toBe(413);
    engine.state.script = { prefillMs: 100_000 };
    const one = { ...BODY, user: 'x'.repeat(850) };
    const first = post(one).catch(() => undefined);
    while (engine.state.running < 1) await new Promise((resolve) => setTimeout(resolve, 5));
    expect((await post(one)).status).toBe(429);
    await server.close({ now: true });
    await first;
  });

  it('bodies that arrive slowly, of any announced size, keep no room from others', async () => {
    await start({ limits: { bodyBytes: 1000, heldBytes: 1500, requests: 2 } });
    const { port, hostname } = new URL(server.url);
    const head = 'POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n';
    const sockets = ['transfer-encoding: chunked\r\n\r\n1\r\n{\r\n', 'content-length: 1000\r\n\r\n{'].flatMap((rest) =>
      Array.from({ length: 4 }, () => {
        const socket = connect(Number(port), hostname);
        socket.write(head + rest);
        return socket;
      }),
    );
    while (server.heldBytes() < sockets.length) await new Promise((resolve) => setTimeout(resolve, 5));
    expect([server.held(), server.heldBytes()]).toEqual([0, 8]);
    expect((await post()).status).toBe(200);
    // What has arrived does count: 8 bytes of the others and two bodies are more than there is room for.
    const full = connect(Number(port), hostname);
    full.write(`${head}transfer-encoding: chunked\r\n\r\n3e7\r\n${'{'.padEnd(999)}\r\n`);
    while (server.heldBytes() < 1007) await new Promise((resolve) => setTimeout(resolve, 5));
    expect((await post({ ...BODY, user: 'x'.repeat(600) }, { 'transfer-encoding': 'chunked' })).status).toBe(429);
    for (const socket of [...sockets, full]) socket.destroy();
    while (server.heldBytes() > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  });

  it('a body that does not come is given up', async () => {
    await start({ limits: { receiveMs: 100 } });
    const { port, hostname } = new URL(server.url);
    const socket = connect(Number(port), hostname);
    socket.write(
      'POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{',
    );
    const answer = await new Promise<string>((resolve) => socket.once('data', (data) => resolve(data.toString())));
    expect(answer).toMatch(/^HTTP\/1.1 408/);
    await new Promise((resolve) => (socket.destroyed ? resolve(0) : socket.once('close', resolve)));
    while (server.heldBytes() > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  });

  it('a client that does not read its answer is given up', async () => {
    await start({ limits: { receiveMs: 50, answerMs: 300 } });
    engine.state.script = { pieces: () => new Array(100).fill('x'.repeat(2 ** 20)) };
    const { port, hostname } = new URL(server.url);
    const body = JSON.stringify({ ...BODY, stream: true, n: 8 });
    const socket = connect(Number(port), hostname).pause();
    const head = 'POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json';
    socket.write(`${head}\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
    while (engine.state.running < 8) await new Promise((resolve) => setTimeout(resolve, 5));
    while (server.held() > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await server.close();
    expect(engine.state).toMatchObject({ running: 0, aborted: 8 });
    socket.destroy();
  });
});

describe('the end of the engine', () => {
  it('is seen in the health check', async () => {
    await start();
    expect((await ask('/health')).status).toBe(200);
    engine.fail();
    const { status, body } = await ask('/health');
    expect([status, JSON.parse(body)]).toMatchObject([503, { status: 'failed' }]);
    const thrown = new SparseVilaError('ERR_ENGINE_ENDED', 'Its thread was stopped.');
    engine.state.script = { error: { thrown, after: 0 } };
    expect(await post()).toMatchObject({ status: 503, headers: { 'x-should-retry': 'true' } });
  });
});

describe('pictures from URLs', () => {
  let pictures: HttpServer;
  let port = 0;
  beforeAll(async () => {
    pictures = createServer((request, response) => {
      if (request.url === '/away') response.writeHead(302, { location: `http://127.0.0.2:${port}/a.png` }).end();
      else response.end(PNG);
    });
    await new Promise<void>((resolve) => pictures.listen(0, '0.0.0.0', resolve));
    port = (pictures.address() as AddressInfo).port;
  });
  afterAll(() => pictures.close());

  const about = async (url: string) => {
    const { status, body } = await post({
      ...BODY,
      messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url } }] }],
    });
    return [status, (JSON.parse(body) as { error?: { code: string } }).error?.code];
  };

  it('are fetched from allowed hosts and public addresses only', async () => {
    await start({ urls: [`localhost:${port}`, `127.0.0.1:${port}`, `127.0.0.2:${port}`], addresses: ['127.0.0.1'] });
    expect(await about(`http://127.0.0.1:${port}/a.png`)).toEqual([200, undefined]);
    expect(await about(`http://localhost:${port}/a.png`)).toEqual([200, undefined]);
    expect(engine.asked[0]?.messages[0]?.content).toEqual([{ kind: 'image', image: PNG }]);
    expect(await about(`http://127.0.0.2:${port}/a.png`)).toEqual([400, 'ERR_IMAGE_URL']);
    expect(await about(`http://127.0.0.1:${port}/away`)).toEqual([400, 'ERR_IMAGE_URL']);
    expect(await about('http://127.0.0.1/a.png')).toEqual([400, 'url_not_allowed']);
    expect(await about('ftp://127.0.0.1/a.png')).toEqual([400, 'invalid_image_url']);
  });

  it('every public host can be allowed, which leaves private ones out', async () => {
    await start({ urls: ['*'] });
    expect(await about('http://169.254.169.254/latest/meta-data')).toEqual([400, 'ERR_IMAGE_URL']);
    expect(await about('http://localhost/a.png')).toEqual([400, 'ERR_IMAGE_URL']);
    expect(await about(`http://127.0.0.1:${port}/a.png`)).toEqual([400, 'url_not_allowed']);
  });
});

describe('a stop', () => {
  it('finishes running answers, refuses new ones and frees the address', async () => {
    await start();
    engine.state.script = { pieceMs: 30 };
    const running = post({ ...BODY, stream: true });
    while (engine.state.running < 1) await new Promise((resolve) => setTimeout(resolve, 5));
    const closed = server.close();
    await expect(post()).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    expect((await running).body).toContain('[DONE]');
    await closed;
    expect(engine.state).toMatchObject({ running: 0, aborted: 0 });
  });
});

describe('options', () => {
  it.each([
    [{ port: 70_000 }, 'port'],
    [{ origins: ['example.com'] }, 'origins'],
    [{ urls: ['http://example.com/'] }, 'urls'],
    [{ addresses: ['10.0.0.0/40'] }, 'addresses'],
    [{ limits: { bodyByte: 1 } }, 'bodyBytes'],
    [{ limits: { answerMs: 2 ** 31 } }, 'answerMs'],
    [{ prot: 1 }, 'port'],
  ])('%j are refused', async (options, name) => {
    await start();
    const refused = serve(engine, options as ServerOptions);
    await expect(refused).rejects.toMatchObject({ code: 'ERR_OPTION_INVALID', message: expect.stringContaining(name) });
  });

  it('an address in use is an error', async () => {
    await start();
    const port = Number(new URL(server.url).port);
    await expect(serve(engine, { port })).rejects.toMatchObject({ code: 'ERR_LISTEN' });
  });
});
