// The thread of an engine: what is posted to it, how it ends, and that neither it nor its end affects the process.

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { type Engine, type EngineRequest, type ImageInput, openEngine } from '../../src';
import { linkTo } from '../../src/engine/link';
import { decodeImage } from '../../src/image/decode';
import { errorOf } from '../image/fixtures';
import { scene, TINY } from '../support/assets';

const QUESTION = 'What is at b4?';
const about = (image: ImageInput): EngineRequest['messages'] => [
  { role: 'user', content: [{ kind: 'image', image }, QUESTION] },
];

let engine: Engine;
beforeAll(async () => {
  engine = await openEngine(TINY);
});
afterAll(() => engine.close());

async function answer(image: ImageInput, options = {}): Promise<string> {
  let text = '';
  for await (const event of engine.run({ messages: about(image) }, options))
    if (event.type === 'text') text += event.text;
  return text;
}

describe('pictures of any form reach the thread', () => {
  const file = readFileSync(scene(0));
  const forms: [string, () => ImageInput | Promise<ImageInput>][] = [
    ['URL', () => pathToFileURL(scene(0))],
    ['base64', () => file.toString('base64')],
    ['Buffer', () => file],
    ['part of a buffer', () => Buffer.concat([Buffer.alloc(9), file, Buffer.alloc(9)]).subarray(9, 9 + file.length)],
    ['ArrayBuffer', () => new Uint8Array(file).buffer],
    [
      'shared memory',
      () => {
        const shared = new Uint8Array(new SharedArrayBuffer(file.length));
        shared.set(file);
        return shared;
      },
    ],
    ['Blob', () => new Blob([file])],
    ['stream', () => Readable.from([file.subarray(0, 100), file.subarray(100)])],
    ['pixels', async () => ({ ...(await decodeImage(file)), channels: 3 })],
  ];
  it.each(forms)('%s', async (_, form) => {
    expect(await answer(await form())).toBe(await answer(scene(0)));
  });

  it('buffers are copied, or moved if the caller allows it', async () => {
    const own = new Uint8Array(file);
    const text = await answer(own);
    expect(own.length).toBe(file.length);
    expect(await answer(own, { transfer: true })).toBe(text);
    expect(own.length).toBe(0);
  });

  it('what is no picture is refused', async () => {
    expect((await errorOf(() => answer((() => 1) as never))).code).toBe('ERR_OPTION_INVALID');
    expect((await errorOf(() => answer(new Map() as never))).code).toBe('ERR_IMAGE_INVALID');
  });
});

describe('opening', () => {
  it('reports its progress', async () => {
    const steps: string[] = [];
    const own = await openEngine(TINY, { onProgress: ({ step }) => steps.push(step) });
    await own.close();
    expect(steps).toContain('load weights');
  });

  it('fails as load does, with the error of onProgress, and with the reason of the signal', async () => {
    expect((await errorOf(() => openEngine('/nowhere/at/all'))).code).toBe('ERR_MODEL_MISSING');
    const thrown = new Error('of the caller');
    const onProgress = (): void => {
      throw thrown;
    };
    expect(await errorOf(() => openEngine(TINY, { onProgress }))).toMatchObject({
      code: 'ERR_CALLBACK',
      cause: thrown,
    });
    const aborter = new AbortController();
    const opening = openEngine(TINY, { signal: aborter.signal });
    aborter.abort(thrown);
    await expect(opening).rejects.toBe(thrown);
  });
});

describe('the end of a thread', () => {
  const request = { messages: about(scene(0)) };
  const ask = {
    type: 'run' as const,
    request,
    transfer: [],
    signal: new AbortController().signal,
    onEvent: () => undefined,
  };

  it.each([
    ['throws', 'throw new Error("broken")', 'broken'],
    ['exits', 'process.exit(3)', 'stopped'],
  ])('ends all requests if it %s, and those that come later', async (_, last, why) => {
    const code = `const { parentPort } = require('node:worker_threads');
      parentPort.on('message', ({ id }) => { if (id === 1) ${last}; });
      parentPort.postMessage({ type: 'open', model: {} });`;
    const link = linkTo(new Worker(code, { eval: true }), () => undefined);
    await link.opened;
    expect(link.ended.aborted).toBe(false);
    const errors = await Promise.all([1, 2].map(() => errorOf(() => link.ask(ask))));
    for (const error of [...errors, await errorOf(() => link.ask(ask))]) {
      expect(error.code).toBe('ERR_ENGINE_ENDED');
      expect(error.message).toContain(why);
    }
    expect(link.ended.reason).toMatchObject({ code: 'ERR_ENGINE_ENDED' });
    await link.close();
  });

  it('is no failure if it was asked for', async () => {
    const code = `const { parentPort } = require('node:worker_threads');
      parentPort.on('message', () => parentPort.postMessage({ type: 'closed' }));
      parentPort.postMessage({ type: 'open', model: {} });`;
    const link = linkTo(new Worker(code, { eval: true }), () => undefined);
    await link.opened;
    await link.close();
    expect(link.ended.aborted).toBe(false);
  });

  const ended = (how: string): Promise<{ code: number | null; out: string }> =>
    new Promise((resolve) => {
      const options = {
        env: { ...process.env, TF_CPP_MIN_LOG_LEVEL: '3' },
        timeout: 300_000,
        killSignal: 'SIGKILL',
      } as const;
      const child = execFile(process.execPath, [join(__dirname, 'thread_script.js'), how], options, (_, out) =>
        resolve({ code: child.exitCode, out }),
      );
    });

  it.each([
    ['is closed', 'close', 0, 'answered\n'],
    ['stays open', 'idle', 0, 'answered\n'],
    ['answers while the process exits', 'exit', 7, ''],
    ['answers while the program fails', 'throw', 1, ''],
  ])('does not change that of the process, if the engine %s', async (_, how, code, out) => {
    expect(await ended(how)).toEqual({ code, out });
  });
});
