// A session opened from messages answers as the session that produced them; invalid messages are refused.
import { join } from 'node:path';
import { type ChatMessage, load, METHODS, type Model, sparseVila } from '../../src';
import { errorOf } from '../image/fixtures';
import { FIXTURES, scene, TINY } from '../support/assets';

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

const picture = (i: number) => ({ kind: 'image', image: scene(i) }) as const;

function revokedList(): unknown {
  const { proxy, revoke } = Proxy.revocable([], {});
  revoke();
  return proxy;
}

describe('messages of another session', () => {
  it.each([
    ['dense', {}],
    ['SparseVILA', { method: sparseVila() }],
  ])('continue as in that session: %s', async (_, options) => {
    const system = 'Answer briefly.';
    using there = model.session({ ...options, system });
    const first = await there.ask('What is at b4?', { images: [scene(0)] }).text();
    const second = await there.ask([picture(1), 'What is at c2?']).text();
    const third = await there.ask('How many shapes are there?').text();
    const messages: ChatMessage[] = [
      { role: 'system', content: system },
      { role: 'user', content: [picture(0), 'What is at b4?'] },
      { role: 'assistant', content: first },
      { role: 'user', content: [picture(1), 'What is at c2?'] },
      { role: 'assistant', content: second },
    ];
    using here = model.session(options);
    await here.open(messages);
    expect(here.length).toBe(0);
    expect(await here.ask('How many shapes are there?').text()).toBe(third);
    expect(here.length).toBe(there.length);
    // The session's own system text stands before messages that have none.
    using own = model.session({ ...options, system });
    await own.open(messages.slice(1));
    await own.ask('How many shapes are there?');
    expect(own.length).toBe(there.length);
  });

  it('replace the conversation, and a mark returns to it', async () => {
    using here = model.session();
    await here.ask('What is at b4?', { images: [scene(0)] });
    const next = 'How many shapes are there?';
    const mark = here.mark();
    const { length } = here;
    const said = await here.ask(next).text();
    here.rewind(mark);
    await here.open([
      { role: 'user', content: [picture(1), 'What is at c2?'] },
      { role: 'assistant', content: 'a red 2' },
    ]);
    here.rewind(mark);
    expect(here.length).toBe(length);
    expect(await here.ask(next).text()).toBe(said);
  });

  it('with pictures among the words render as the same words in one question', async () => {
    const path = join(FIXTURES, 'llava', 'llava-llama');
    using llava = await load(path);
    const parts = ['First ', picture(0), ' and then ', picture(1), ': which is red?'];
    using asked = llava.session();
    const answer = await asked.ask(parts, { maxTokens: 4 }).text();
    const next = await asked.ask('And now?', { maxTokens: 4 }).text();
    using opened = llava.session();
    await opened.open([
      { role: 'user', content: parts },
      { role: 'assistant', content: answer },
    ]);
    expect(await opened.ask('And now?', { maxTokens: 4 }).text()).toBe(next);
  });
});

describe('questions that are forgotten after messages were opened', () => {
  it.each(METHODS.map(({ name, create }) => [name, create] as const))(
    'keep the messages in the cache: %s',
    async (_, create) => {
      using here = model.session({ method: create({ prefillSparsity: 0.3, decodeSparsity: 0.8 }), history: 'forget' });
      await here.open([
        { role: 'user', content: [picture(0), 'What is at b4?'] },
        { role: 'assistant', content: 'a red 2' },
      ]);
      const prompts: (number | undefined)[] = [];
      for (let turn = 0; turn < 3; turn++) {
        const answer = here.ask('Where is the A?', { maxTokens: 3 });
        await answer;
        prompts.push(answer.stats?.tokens.prompt);
      }
      const [first = 0, second, third] = prompts;
      expect(second).toBeLessThan(first);
      expect(third).toBe(second);
      expect(here.length).toBeGreaterThan(0);
    },
  );
});

describe('open refuses', () => {
  const hello = { role: 'user', content: 'hello' } as const;
  const answer = { role: 'assistant', content: 'hello' } as const;
  it.each([
    ['no list', 'hello', /list of messages.*hello/],
    ['a list that cannot be read', revokedList(), /list of messages.*proxy/],
    ['another role', [{ role: 'tool', content: 'x' }], /'system', 'user' or 'assistant'.*message 0.*tool/],
    ['a message that is a text', [hello, answer, 'x'], /message 2/],
    ['content that is neither text nor parts', [{ role: 'user', content: 3 }], /list of parts.*3/],
    ['a question at the end', [hello], /ask\(\)/],
    ['an answer first', [answer], /in turn.*assistant for message 0/],
    ['a system text in between', [hello, answer, { role: 'system', content: 'x' }], /in turn.*system for message 2/],
    [
      'a picture that is missing',
      [{ role: 'user', content: [{ kind: 'image', image: '/nowhere.png' }, 'x'] }, answer],
      /nowhere/,
    ],
  ])('%s, and does not change the session', async (_, messages, message) => {
    using here = model.session();
    await here.ask('What is at b4?', { images: [scene(0)], maxTokens: 2 });
    const { length } = here;
    const error = await errorOf(() => here.open(messages as ChatMessage[]));
    expect(error.message).toMatch(message);
    expect(here.length).toBe(length);
    await here.ask('And now?', { maxTokens: 1 });
  });

  it('while an answer runs, once disposed of, and when aborted', async () => {
    const here = model.session();
    const running = here.ask('What is at b4?', { images: [scene(0)] });
    const pieces = running[Symbol.asyncIterator]();
    await pieces.next();
    expect((await errorOf(() => here.open([]))).code).toBe('ERR_BUSY');
    await pieces.return?.();
    await expect(here.open([hello, answer], { signal: AbortSignal.abort('left') })).rejects.toBe('left');
    here.dispose();
    expect((await errorOf(() => here.open([]))).code).toBe('ERR_DISPOSED');
  });
});
