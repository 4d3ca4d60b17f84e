// Hostile and healthy requests against `sparsevila serve` at the same time: node dist/scripts/soak_server.js [400] [--parallel 16].
// Prints how many healthy requests were answered as when they were asked alone, what each kind of hostile request received, and the memory of
// the server. Everything stays on 127.0.0.1. Exits with 1 if an answer is wrong, a hostile request succeeds, or something is left running.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, request as httpRequest, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { deflateSync } from 'node:zlib';
import { uniform } from '../src/text/random';

const ROOT = join(__dirname, '../..');
const QUESTIONS = ['Where is the yellow 2?', 'Read row 7.', 'How many shapes are there?', 'What is at b4?'];
/** Share of hostile requests. */
const HOSTILE = 0.15;

interface Outcome {
  readonly status: number;
  readonly code?: string;
  readonly text?: string;
}

const { values, positionals } = parseArgs({
  options: { requests: { type: 'string' }, parallel: { type: 'string' } },
  allowPositionals: true,
});
const REQUESTS = Number(values.requests ?? positionals[0] ?? 400);
const PARALLEL = Number(values.parallel ?? 16);

let port = 0;
let picturePort = 0;

const dataUrl = (bytes: Uint8Array): string => `data:image/png;base64,${Buffer.from(bytes).toString('base64')}`;
const scene = (i: number): string =>
  dataUrl(readFileSync(join(ROOT, `assets/calibration/scene-${String(i).padStart(2, '0')}.png`)));

function body(url: string, question: string, more: object = {}): object {
  const content = [
    { type: 'image_url', image_url: { url } },
    { type: 'text', text: question },
  ];
  return { model: 'tiny-nvila', messages: [{ role: 'user', content }], max_tokens: 24, ...more };
}

async function post(json: string | object): Promise<Outcome> {
  const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: typeof json === 'string' ? json : JSON.stringify(json),
  });
  const answer = (await response.json()) as {
    choices?: { message: { content: string } }[];
    error?: { code: string };
  };
  const [text, code] = [answer.choices?.[0]?.message.content, answer.error?.code];
  return { status: response.status, ...(text !== undefined && { text }), ...(code !== undefined && { code }) };
}

/** The header of a PNG of 30,000 x 30,000 pixels, with a little of its data. */
function hugePng(): Buffer {
  const chunk = (type: string, data: Buffer): Buffer => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(data.length);
    const crc = Buffer.alloc(4);
    crc.writeUInt32BE(crcOf(Buffer.concat([Buffer.from(type), data])));
    return Buffer.concat([length, Buffer.from(type), data, crc]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(30_000, 0);
  header.writeUInt32BE(30_000, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  const data = chunk('IDAT', deflateSync(Buffer.alloc(90_001)));
  return Buffer.concat([signature, chunk('IHDR', header), data, chunk('IEND', Buffer.alloc(0))]);
}

function crcOf(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** Sends a body that never ends, a byte per second, until the server gives up. */
async function slowBody(): Promise<Outcome> {
  const socket = connect(port, '127.0.0.1');
  const head = 'POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json';
  socket.write(`${head}\r\ncontent-length: 100000\r\n\r\n{`);
  const timer = setInterval(() => socket.write(' '), 1000);
  socket.on('error', () => undefined);
  const [data] = (await once(socket, 'data')) as [Buffer];
  clearInterval(timer);
  socket.destroy();
  return { status: Number(data.toString().split(' ')[1]) };
}

/** Leaves 30 ms after the request, usually in the prefill. */
async function leave(): Promise<Outcome> {
  const sent = httpRequest(`http://127.0.0.1:${port}/v1/chat/completions`, { method: 'POST', agent: false });
  sent.setHeader('content-type', 'application/json');
  sent.on('error', () => undefined);
  sent.end(JSON.stringify(body(scene(20), 'Read row 1.', { stream: true })));
  await new Promise((resolve) => setTimeout(resolve, 30));
  sent.destroy();
  return { status: 499 };
}

/** 100 MB: refused by its size, before it is sent. */
async function largeBody(): Promise<Outcome> {
  const sent = httpRequest(`http://127.0.0.1:${port}/v1/chat/completions`, { method: 'POST', agent: false });
  sent.setHeader('content-type', 'application/json').setHeader('content-length', 100e6);
  const answered = once(sent, 'response') as Promise<[{ statusCode: number; destroy(): void }]>;
  sent.on('error', () => undefined);
  sent.write(Buffer.alloc(1e6, ' '));
  const [response] = await answered;
  response.destroy();
  sent.destroy();
  return { status: response.statusCode };
}

const hostile: Readonly<Record<string, () => Promise<Outcome>>> = {
  'broken picture': () => post(body(`${scene(1).slice(0, 900)}`, 'What?')),
  '100 MB body': largeBody,
  '30,000 x 30,000 pixels': () => post(body(dataUrl(hugePng()), 'What?')),
  'file URL': () => post(body('file:///etc/passwd', 'What?')),
  'metadata address': () => post(body('http://169.254.169.254/latest/meta-data', 'What?')),
  'redirect to a private address': () => post(body(`http://127.0.0.1:${picturePort}/away`, 'What?')),
  'endless slow body': slowBody,
  'disconnect in the prefill': leave,
  'invalid JSON': () => post('{"model": "tiny-nvila", "messages": [{'),
  'unknown fields': () => post(body(scene(2), 'What?', { temprature: 1, max_tokenz: 3 })),
  '10,000 stop strings': () =>
    post(body(scene(3), 'What?', { stop: Array.from({ length: 10_000 }, (_, i) => `${i}`) })),
};

async function startServer(): Promise<ChildProcess> {
  const options = ['--port', '0', '--allow-url', `127.0.0.1:${picturePort}`, '--allow-address', '127.0.0.1'];
  const server = spawn(
    process.execPath,
    [join(ROOT, 'dist/src/cli/main.js'), 'serve', join(ROOT, 'assets/tiny-nvila'), ...options],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  if (server.stdout === null) throw new Error('no output');
  const [line] = (await once(server.stdout, 'data')) as [Buffer];
  port = Number(new URL(line.toString().trim()).port);
  return server;
}

async function startPictures(): Promise<Server> {
  const pictures = createServer((_request, response) => {
    response.writeHead(302, { location: `http://127.0.0.2:${picturePort}/a.png` }).end();
  });
  await new Promise<void>((resolve) => pictures.listen(0, '127.0.0.1', resolve));
  picturePort = (pictures.address() as AddressInfo).port;
  return pictures;
}

/** Megabytes that the server holds in memory. */
const resident = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;

interface Tally {
  right: number;
  readonly wrong: string[];
  readonly received: Map<string, Map<string, number>>;
}

/** All requests, `PARALLEL` at a time, in an order that the seed decides. */
async function storm(truth: ReadonlyMap<string, string>, tally: Tally, onDone: (done: number) => void): Promise<void> {
  const random = uniform(1);
  const kinds = Object.keys(hostile);
  const count = Math.round(REQUESTS * HOSTILE);
  const jobs: (() => Promise<void>)[] = Array.from({ length: REQUESTS }, (_, i) => async () => {
    const kind = i < count ? (kinds[i % kinds.length] ?? '') : undefined;
    if (kind !== undefined) {
      const { status, code } = (await hostile[kind]?.()) ?? { status: 0 };
      const seen = tally.received.get(kind) ?? new Map<string, number>();
      const key = `${status}${code === undefined ? '' : ` ${code}`}`;
      tally.received.set(kind, seen.set(key, (seen.get(key) ?? 0) + 1));
      return;
    }
    const [picture, question] = [i % 12, QUESTIONS[i % QUESTIONS.length] ?? ''];
    const { status, text } = await post(body(scene(picture), question));
    if (text !== undefined && text === truth.get(`${picture} ${question}`)) tally.right++;
    else tally.wrong.push(`${status}: ${picture} ${question} -> ${text}`);
  });
  for (let i = jobs.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [jobs[i], jobs[j]] = [jobs[j] as () => Promise<void>, jobs[i] as () => Promise<void>];
  }
  let done = 0;
  const worker = async (): Promise<void> => {
    for (let job = jobs.pop(); job !== undefined; job = jobs.pop()) {
      await job();
      onDone(++done);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
}

async function main(): Promise<void> {
  const pictures = await startPictures();
  const server = await startServer();
  const pid = server.pid ?? 0;
  const truth = new Map<string, string>();
  for (let i = 0; i < 12; i++)
    for (const question of QUESTIONS) {
      const { text } = await post(body(scene(i), question));
      truth.set(`${i} ${question}`, text ?? '');
    }
  const before = resident(pid);
  const memory: number[] = [];
  const tally: Tally = { right: 0, wrong: [], received: new Map() };
  const begin = performance.now();
  await storm(truth, tally, () => memory.push(resident(pid)));
  const seconds = (performance.now() - begin) / 1000;
  const health = (await (await fetch(`http://127.0.0.1:${port}/health`)).json()) as {
    running: number;
    waiting: number;
  };
  const quarter = (from: number): number =>
    Math.round(Math.max(...memory.slice(from * memory.length, (from + 0.25) * memory.length)));
  server.kill('SIGTERM');
  const [exit] = (await once(server, 'exit')) as [number];
  pictures.close();
  console.log(`healthy: ${tally.right} answered as alone, ${tally.wrong.length} not, in ${seconds.toFixed(0)} s`);
  for (const line of tally.wrong.slice(0, 10)) console.log(`  ${line}`);
  for (const [kind, seen] of tally.received)
    console.log(`${kind}: ${[...seen].map(([what, n]) => `${n} x ${what}`).join(', ')}`);
  console.log(
    `memory (MB): ${Math.round(before)} before; most in each quarter ${[0, 0.25, 0.5, 0.75].map(quarter).join(', ')}`,
  );
  console.log(`after: ${health.running} running, ${health.waiting} waiting; exit code ${exit}`);
  const isRefused = [...tally.received.values()].every((seen) => [...seen.keys()].every((what) => /^4/.test(what)));
  if (tally.wrong.length > 0 || !isRefused || health.running + health.waiting > 0 || exit !== 0) process.exitCode = 1;
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
