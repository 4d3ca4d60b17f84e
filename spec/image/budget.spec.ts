// One budget for all images that are decoded at the same time: order, abort, release, and the peak of real decodings.

import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { abortable } from '../../src/abort';
import { memoryBudget } from '../../src/image/budget';

const cost = (bytes: number) => () => Promise.resolve({ cost: bytes });
const settled = async (): Promise<void> => {
  for (let i = 0; i < 30; i++) await null;
};

describe('memoryBudget', () => {
  it('admits in the order of arrival, several at once if they fit, and a larger one alone', async () => {
    const budget = memoryBudget(10);
    const admitted: number[] = [];
    const enter = (bytes: number) =>
      budget.admit(cost(bytes), undefined).then((one) => {
        admitted.push(bytes);
        return one;
      });
    const [a, b, c, d, e] = [enter(6), enter(4), enter(50), enter(1), enter(2)];
    await settled();
    expect(admitted).toEqual([6, 4]);
    (await a).release();
    await settled();
    expect(admitted).toEqual([6, 4]);
    (await b).release();
    await settled();
    // The request of 1 would have fitted earlier, but the request of 50 came before it.
    expect(admitted).toEqual([6, 4, 50]);
    (await c).release();
    await settled();
    expect(admitted).toEqual([6, 4, 50, 1, 2]);
    (await d).release();
    (await e).release();
  });

  it('examines one image at a time, after the previous one has been admitted', async () => {
    const budget = memoryBudget(10);
    const first = await budget.admit(cost(10), undefined);
    const looks = [jest.fn(cost(10)), jest.fn(cost(10))] as const;
    const [second, third] = looks.map((look) => budget.admit(look, undefined));
    await settled();
    expect(looks.map((look) => look.mock.calls.length)).toEqual([1, 0]);
    first.release();
    await settled();
    expect(looks.map((look) => look.mock.calls.length)).toEqual([1, 1]);
    (await second)?.release();
    (await third)?.release();
  });

  it('admits the next one after an abort and after an error', async () => {
    const budget = memoryBudget(10);
    const held = await budget.admit(cost(10), undefined);
    const controller = new AbortController();
    const waiting = budget.admit(cost(5), controller.signal);
    const queued = budget.admit(cost(5), controller.signal);
    const failing = budget.admit(() => Promise.reject(new Error('no image')), undefined);
    const last = budget.admit(cost(10), undefined);
    await settled();
    controller.abort('left');
    await expect(waiting).rejects.toBe('left');
    await expect(queued).rejects.toBe('left');
    await expect(failing).rejects.toThrow('no image');
    held.release();
    held.release();
    (await last).release();
    // If the second release counted, two of these requests would be admitted.
    const all = [budget.admit(cost(10), undefined), budget.admit(cost(10), undefined)];
    const first = await all[0];
    const second = jest.fn();
    void all[1]?.then(second);
    await settled();
    expect(second).not.toHaveBeenCalled();
    first?.release();
    await settled();
    expect(second).toHaveBeenCalled();
  });

  it('abortable rejects all at once with one listener, which it removes', async () => {
    const controller = new AbortController();
    const added = jest.spyOn(controller.signal, 'addEventListener');
    const removed = jest.spyOn(controller.signal, 'removeEventListener');
    const never = Array.from({ length: 30 }, () => abortable(new Promise(() => undefined), controller.signal));
    const done = abortable(Promise.resolve('done'), controller.signal);
    await expect(done).resolves.toBe('done');
    expect([added.mock.calls.length, removed.mock.calls.length]).toEqual([1, 0]);
    controller.abort('now');
    for (const one of never) await expect(one).rejects.toBe('now');
    expect([added.mock.calls.length, removed.mock.calls.length]).toEqual([1, 1]);
    await expect(abortable(new Promise(() => undefined), controller.signal)).rejects.toBe('now');
  });
});

it('four AVIF pictures of 36 megapixels at once, of which each takes 600 MB, stay under the budget', () => {
  const script = `
    const sharp = require('sharp');
    const { readFileSync } = require('node:fs');
    const { withImage } = require(${JSON.stringify(join(__dirname, '../../src/image/decode.js'))});
    const { resize } = require(${JSON.stringify(join(__dirname, '../../src/image/resample.js'))});
    const small = (image) => resize(image, 14, 14, 'bicubic');
    const memory = () => Number(/VmHWM:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024;
    (async () => {
      const background = { r: 10, g: 20, b: 30 };
      const file = await sharp({ create: { width: 6000, height: 6000, channels: 3, background } }).avif({ effort: 0 }).toBuffer();
      const order = [];
      await Promise.all(Array.from({ length: 4 }, (_, i) => withImage(file, {}, small).then(() => order.push(i))));
      console.log(JSON.stringify({ peak: memory(), order }));
    })();`;
  const output = execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  const { peak, order } = JSON.parse(output) as { peak: number; order: number[] };
  expect(order).toHaveLength(4);
  // Without a budget, four decodings in libuv's threads take 2,500 MB.
  expect(peak).toBeLessThan(1250);
});
