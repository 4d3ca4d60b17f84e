// An engine answers requests as a session of the library does.

import {
  type Engine,
  type EngineEvent,
  type EngineRequest,
  load,
  METHODS,
  openEngine,
  refreshed,
  sparseVila,
} from '../../src';
import { errorOf } from '../image/fixtures';
import { scene, TINY } from '../support/assets';

const FIRST = 'What is at b4?';
const SECOND = 'How many shapes are there?';

let engine: Engine;
beforeAll(async () => {
  engine = await openEngine(TINY, { maxRunning: 4, maxWaiting: 2 });
});
afterAll(() => engine.close());

const about = (picture: number, text: string): EngineRequest['messages'] => [
  { role: 'user', content: [{ kind: 'image', image: scene(picture) }, text] },
];

async function all(request: EngineRequest, signal?: AbortSignal): Promise<EngineEvent[]> {
  const events: EngineEvent[] = [];
  for await (const event of engine.run(request, signal === undefined ? {} : { signal })) events.push(event);
  return events;
}

const textOf = (events: readonly EngineEvent[]): string =>
  events.map((event) => (event.type === 'text' ? event.text : '')).join('');

describe('an engine', () => {
  it('describes its model', () => {
    expect(engine.model).toMatchObject({ name: TINY, family: 'llava_llama', contextLength: expect.any(Number) });
  });

  it.each(['dense', 'sparsevila', 'fastv', 'snapkv'])('answers as a session does: %s', async (name) => {
    using model = await load(TINY);
    const entry = METHODS.find((row) => row.name === name);
    using chat = model.session({ method: entry?.create({ prefillSparsity: 0.6, decodeSparsity: 0.75 }) as never });
    const answer = chat.ask(FIRST, { images: [scene(0)] });
    const text = await answer.text();
    const events = await all({ messages: about(0, FIRST), sparsity: { method: name } });
    expect(textOf(events)).toBe(text);
    expect(events.map(({ type }) => type).filter((type) => type !== 'text')).toEqual(['begin', 'end']);
    const { prompt, visualSeen, visualKept, generated } = answer.stats?.tokens ?? {};
    expect(events[0]).toEqual({ type: 'begin', tokens: { prompt, cached: 0, visualSeen, visualKept } });
    expect(events.at(-1)).toMatchObject({ finish: answer.stats?.finish, usage: { prompt, generated } });
  });

  it('selects again within an answer as a session does, and refuses it for a method that retrieves nothing', async () => {
    using model = await load(TINY);
    const ratios = { prefillSparsity: 0, decodeSparsity: 0.97 };
    const refresh = { every: 1 };
    using chat = model.session({ method: refreshed(sparseVila(ratios), refresh) });
    const text = await chat.ask(FIRST, { images: [scene(0)] });
    const sparsity = { method: 'sparsevila', ...ratios, refresh };
    expect(textOf(await all({ messages: about(0, FIRST), sparsity }))).toBe(text);
    const wrong = all({ messages: about(0, FIRST), sparsity: { ...sparsity, method: 'dense' } });
    await expect(wrong).rejects.toMatchObject({ code: 'ERR_OPTION_INVALID' });
  });

  it('continues a conversation that was held elsewhere', async () => {
    using model = await load(TINY);
    using chat = model.session();
    await chat.open([...about(0, FIRST), { role: 'assistant', content: 'a square' }]);
    const text = await chat.ask(SECOND).text();
    const messages = [
      ...about(0, FIRST),
      { role: 'assistant' as const, content: 'a square' },
      { role: 'user' as const, content: SECOND },
    ];
    expect(textOf(await all({ messages }))).toBe(text);
  });

  it('counts tokens as they are when the request runs', async () => {
    for (const sparsity of [undefined, { method: 'sparsevila', prefillSparsity: 0.5 }]) {
      const request = { messages: about(1, FIRST), ...(sparsity && { sparsity }) };
      const { text, visualSeen, visualKept } = await engine.count(request);
      const [begin] = await all({ ...request, maxTokens: 1 });
      expect(begin).toEqual({
        type: 'begin',
        tokens: { prompt: text + visualKept, cached: 0, visualSeen, visualKept },
      });
    }
  });

  it.each([
    ['no messages', { messages: [] }, 'ERR_OPTION_INVALID'],
    [
      'an answer at the end',
      { messages: [...about(0, 'a'), { role: 'assistant', content: 'b' }] },
      'ERR_OPTION_INVALID',
    ],
    ['an unknown method', { messages: about(0, 'a'), sparsity: { method: 'none' } }, 'ERR_OPTION_INVALID'],
    ['an unknown option', { messages: about(0, 'a'), topk: 1 }, 'ERR_OPTION_INVALID'],
    ['an empty question', { messages: [{ role: 'user', content: '' }] }, 'ERR_QUESTION'],
    [
      'a picture that does not exist',
      { messages: [{ role: 'user', content: [{ kind: 'image', image: 'none.png' }, 'a'] }] },
      'ERR_IMAGE_NOT_FOUND',
    ],
  ])('refuses %s', async (_, request, code) => {
    expect((await errorOf(() => all(request as EngineRequest))).code).toBe(code);
  });

  it('refuses requests that cannot wait, and answers the others', async () => {
    const asked = Array.from({ length: 8 }, () => all({ messages: about(0, FIRST), maxTokens: 2 }));
    const results = await Promise.allSettled(asked);
    const refused = results.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[];
    expect(refused.map(({ reason }) => reason.code)).toEqual(['ERR_ENGINE_FULL', 'ERR_ENGINE_FULL']);
    expect(engine.stats()).toMatchObject({ running: 0, waiting: 0 });
  });

  it('ends a request with the reason of its signal', async () => {
    const reason = new Error('enough');
    const aborter = new AbortController();
    const events = engine.run({ messages: about(0, FIRST) }, { signal: aborter.signal });
    await events.next();
    aborter.abort(reason);
    await expect(
      (async () => {
        for await (const _ of events);
      })(),
    ).rejects.toBe(reason);
  });

  it('answers what it accepted before it closes, and nothing afterwards', async () => {
    const own = await openEngine(TINY);
    const events = own.run({ messages: about(0, FIRST), maxTokens: 3 });
    await own.close({ drain: true });
    const read: EngineEvent[] = [];
    for await (const event of events) read.push(event);
    expect(read.at(-1)?.type).toBe('end');
    expect((await errorOf(() => own.run({ messages: about(0, FIRST) }).next())).code).toBe('ERR_DISPOSED');
  });
});
