// An abort anywhere in a turn that removes rows from the cache: the conversation is as before, and nothing leaks.

import { load, METHODS, type Model } from '../../src';
import { pointOf } from '../../src/session/conversation';
import { createSession } from '../../src/session/session';
import { scene, TINY } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { compareBits } from '../support/nmse';
import { interrupted } from '../support/scripted';
import { watch } from '../support/watch';

const reason = new Error('no longer wanted');
const RATIOS = { prefillSparsity: 0.6, decodeSparsity: 0.75 };

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

/** A turn about picture 0, then one about picture 1 that is aborted in the decoder's `call`-th call; how many calls it would have. */
async function aborted(name: string, call: number) {
  const method = METHODS.find((entry) => entry.name === name)?.create(RATIOS);
  if (method === undefined) throw new Error(`no ${name}`);
  const watched = watch(model);
  let current = watched.model;
  const outer = { ...watched.model, decoder: { ...watched.model.decoder, forward: forwarding(() => current) } };
  using chat = createSession(outer, { method });
  const ask = (image: number, signal?: AbortSignal): Promise<string> =>
    chat.ask('What is at b4?', { images: [scene(image)], maxTokens: 3, ...(signal && { signal }) }).text();
  await ask(0);
  const before = pointOf(chat.mark());
  const lengths = before.layers.map(({ length }) => length);
  const cache = watched.cacheRows(Math.min(...lengths));
  const controller = new AbortController();
  current = interrupted(watched.model, { stage: 'decoder', call, step: 1 }, () => controller.abort(reason));
  watched.clear();
  const error = await withoutLeak(() =>
    ask(1, controller.signal).then(
      () => undefined,
      (thrown: unknown) => thrown,
    ),
  );
  if (error === undefined) return 'over';
  expect(error).toBe(reason);
  expect(pointOf(chat.mark())).toEqual(before);
  expect(compareBits(watched.cacheRows(Math.min(...lengths)), cache)).toBe('identical');
  current = watched.model;
  const text = await ask(1);
  return text;
}

function forwarding(current: () => Model | ReturnType<typeof watch>['model']): Model['decoder']['forward'] {
  return (...given) => current().decoder.forward(...given);
}

it.each(['fastv', 'pyramiddrop', 'sparsevlm', 'vscan', 'snapkv'])('%s', async (name) => {
  const texts = new Set<string>();
  let call = 1;
  for (; ; call++) {
    const text = await aborted(name, call);
    if (text === 'over') break;
    texts.add(text);
  }
  // The answer that follows is the same wherever the abort fell.
  expect(texts.size).toBe(1);
  expect(call).toBeGreaterThan(2);
});
