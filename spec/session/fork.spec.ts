// A fork answers as its original session would, and the two are independent.
import { fastV, load, type Model, snapKv, sparseVila } from '../../src';
import { errorOf } from '../image/fixtures';
import { scene, TINY } from '../support/assets';
import { withoutLeak } from '../support/leaks';

const FIRST = 'What is at b4?';
const SECOND = 'How many shapes are there?';
const OTHER = 'List the red objects.';

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

describe('a fork', () => {
  it.each([
    ['dense', undefined],
    ['SparseVILA', sparseVila()],
    ['FastV, which drops rows between layers', fastV()],
    ['SnapKV, whose retrieval is permanent', snapKv({ decodeSparsity: 0.5 })],
  ])('is independent of the first session: %s', async (_, method) => {
    const options = method === undefined ? {} : { method };
    using alone = model.session(options);
    const first = await alone.ask(FIRST, { images: [scene(0)] }).text();
    const second = await alone.ask(SECOND).text();
    const third = await alone.ask(FIRST, { images: [scene(1)] }).text();

    using chat = model.session(options);
    expect(await chat.ask(FIRST, { images: [scene(0)] }).text()).toBe(first);
    using branch = chat.fork();
    expect(branch.length).toBe(chat.length);
    // Other rows are written behind those that were copied, in turns of both.
    await branch.ask(OTHER, { images: [scene(2)] });
    expect(await chat.ask(SECOND).text()).toBe(second);
    using late = chat.fork();
    chat.dispose();
    expect(await late.ask(FIRST, { images: [scene(1)] }).text()).toBe(third);
    expect(late.length).toBe(alone.length);
    expect(late.method).toBe(chat.method);
    // No row was prefilled again.
    const answer = late.ask(SECOND);
    await answer;
    expect(answer.stats?.tokens.prompt).toBeLessThan(30);
  });

  it('of an empty session is an empty session', async () => {
    using chat = model.session({ system: 'Answer briefly.' });
    using branch = chat.fork();
    const answer = await branch.ask(FIRST, { images: [scene(0)] }).text();
    expect(await chat.ask(FIRST, { images: [scene(0)] }).text()).toBe(answer);
    expect(branch.length).toBe(chat.length);
  });

  it('has marks of its own', async () => {
    using chat = model.session();
    await chat.ask(FIRST, { maxTokens: 2 });
    const mark = chat.mark();
    using branch = chat.fork();
    expect((await errorOf(() => branch.rewind(mark))).code).toBe('ERR_MARK');
    const own = branch.mark();
    await branch.ask(SECOND, { maxTokens: 2 });
    branch.rewind(own);
    expect(branch.length).toBe(chat.length);
    chat.rewind(mark);
  });

  it('is refused while an answer runs and once the session is disposed of', async () => {
    const chat = model.session();
    const pieces = chat.ask(FIRST)[Symbol.asyncIterator]();
    await pieces.next();
    expect((await errorOf(() => chat.fork())).code).toBe('ERR_BUSY');
    await pieces.return?.();
    chat.dispose();
    expect((await errorOf(() => chat.fork())).code).toBe('ERR_DISPOSED');
  });

  it('leaves nothing behind', () =>
    withoutLeak(async () => {
      using chat = model.session({ method: sparseVila() });
      await chat.ask(FIRST, { images: [scene(0)], maxTokens: 2 });
      using branch = chat.fork();
      await branch.ask(SECOND, { maxTokens: 2 });
    }));
});
