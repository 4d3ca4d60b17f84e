// Headless Chromium, driven by the DevTools protocol over a pipe. Debian's package: apt-get install chromium.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

/** The program, or undefined where it is not installed. */
export const CHROMIUM = ['chromium', 'chromium-browser', 'google-chrome'].find(
  (name) => spawnSync(name, ['--version']).status === 0,
);

type Reply = {
  readonly id?: number;
  readonly method?: string;
  readonly params?: unknown;
  readonly result?: unknown;
  readonly error?: { message: string };
};

export interface Page {
  send(method: string, params?: object): Promise<Record<string, unknown>>;
  /** The value of an expression in the page; promises are awaited. */
  evaluate<T>(expression: string): Promise<T>;
  /** Waits until an expression is true. */
  until(expression: string): Promise<void>;
  /** A real click in the middle of the element that a selector finds. */
  click(selector: string): Promise<void>;
  type(text: string): Promise<void>;
  press(key: string, code: number): Promise<void>;
  resize(width: number, height: number, scale?: number): Promise<void>;
  screenshot(): Promise<Buffer>;
  /** Errors of scripts, of requests and of violated policies. */
  readonly problems: string[];
  close(): Promise<void>;
}

/** Opens a page in a browser of its own. */
export async function openPage(url: string): Promise<Page> {
  const profile = mkdtempSync(join(tmpdir(), 'sparsevila-chromium-'));
  const flags = [
    '--headless=new',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--no-first-run',
    '--remote-debugging-pipe',
  ];
  const browser = spawn(CHROMIUM ?? '', [...flags, `--user-data-dir=${profile}`, 'about:blank'], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
  });
  const problems: string[] = [];
  const call = connection(browser, problems);
  const { targetInfos } = (await call('Target.getTargets')) as { targetInfos: { type: string; targetId: string }[] };
  const targetId = targetInfos.find(({ type }) => type === 'page')?.targetId;
  const { sessionId } = (await call('Target.attachToTarget', { targetId, flatten: true })) as { sessionId: string };
  const send: Page['send'] = (method, params = {}) => call(method, params, sessionId);
  for (const domain of ['Page', 'Runtime', 'Log', 'DOM']) await send(`${domain}.enable`);
  const page = pageOf(send, problems, async () => {
    const ended = new Promise((resolve) => browser.once('exit', resolve));
    await call('Browser.close').catch(() => browser.kill('SIGKILL'));
    await ended;
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  });
  await send('Page.navigate', { url });
  await page.until("document.readyState === 'complete'");
  return page;
}

/** Calls of the protocol: JSON between zero bytes. */
function connection({ stdio }: ChildProcess, problems: string[]) {
  const [, , , input, output] = stdio as unknown as [null, null, null, Writable, Readable];
  const waiting = new Map<number, (reply: Reply) => void>();
  let last = 0;
  let rest = '';
  output.setEncoding('utf8').on('data', (piece: string) => {
    const texts = (rest + piece).split('\0');
    rest = texts.pop() ?? '';
    for (const text of texts) {
      const reply = JSON.parse(text) as Reply;
      if (reply.id !== undefined) waiting.get(reply.id)?.(reply);
      const { entry } = (reply.params ?? {}) as { entry?: { level: string } };
      if (reply.method === 'Runtime.exceptionThrown' || entry?.level === 'error')
        problems.push(JSON.stringify(reply.params));
    }
  });
  return (method: string, params: object = {}, sessionId?: string): Promise<Record<string, unknown>> =>
    new Promise((resolve, reject) => {
      const id = ++last;
      waiting.set(id, ({ result, error }) => {
        waiting.delete(id);
        if (error === undefined) resolve(result as Record<string, unknown>);
        else reject(new Error(`${method}: ${error.message}`));
      });
      input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
}

function pageOf(send: Page['send'], problems: string[], close: () => Promise<void>): Page {
  const evaluate = async <T>(expression: string): Promise<T> => {
    const options = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await send('Runtime.evaluate', options);
    if (exceptionDetails !== undefined) throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
    return (result as { value: T }).value;
  };
  const until = async (expression: string): Promise<void> => {
    while (!(await evaluate<boolean>(`Boolean(${expression})`)))
      await new Promise((resolve) => setTimeout(resolve, 30));
  };
  return {
    ...{ send, evaluate, until, problems, close },
    async click(selector) {
      const find = `document.querySelector(${JSON.stringify(selector)})`;
      await evaluate(`${find}.scrollIntoView({ block: 'center' })`);
      const [x, y] = await evaluate<[number, number]>(
        `(() => { const b = ${find}.getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]; })()`,
      );
      for (const type of ['mousePressed', 'mouseReleased'])
        await send('Input.dispatchMouseEvent', { type, x, y, button: 'left', clickCount: 1 });
    },
    async type(text) {
      await send('Input.insertText', { text });
    },
    async press(key, code) {
      const options = { key, code: key, windowsVirtualKeyCode: code };
      await send('Input.dispatchKeyEvent', { type: 'keyDown', ...options, ...(key === 'Enter' && { text: '\r' }) });
      await send('Input.dispatchKeyEvent', { type: 'keyUp', ...options });
    },
    async resize(width, height, scale = 1) {
      await send('Emulation.setDeviceMetricsOverride', {
        width,
        height,
        deviceScaleFactor: scale,
        mobile: width < 600,
      });
    },
    async screenshot() {
      const { data } = await send('Page.captureScreenshot', { format: 'png', captureBeyondViewport: true });
      return Buffer.from(data as string, 'base64');
    },
  };
}
