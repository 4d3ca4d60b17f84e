// Conversations with Qwen3.5, most of whose layers keep a state that cannot lose rows: what was taken back leaves no bit behind, with a template
// that continues its text and with one that rewrites every answer as history.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fastV, load, type Model, type Session, type SessionOptions, snapKv, sparseVila } from '../../src';
import { createSession } from '../../src/session/session';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { watch } from '../support/watch';

const FOLDER = join(FIXTURES, 'qwen_vl', 'qwen3.5');
const REWRITING = readFileSync(join(FOLDER, 'chat_template.jinja'), 'utf8');
const CONTINUING = REWRITING.replace('<think>\n\n</think>\n\n', '');
const picture = (i: number): string => join(FOLDER, `image${i}.png`);
const METHODS = { dense: undefined, sparsevila: sparseVila(), fastv: fastV(), snapkv: snapKv() };

interface Asked {
  readonly question: string;
  readonly image?: number;
  readonly forget?: boolean;
}
const FIRST: Asked = { question: 'What is in the picture?', image: 0 };
const SECOND: Asked = { question: 'And how does this one differ?', image: 1 };
const THIRD: Asked = { question: 'Which was larger?' };

const sha = (values: Float32Array): string =>
  createHash('sha256')
    .update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
    .digest('hex')
    .slice(0, 12);

it('the templates differ', () => expect(CONTINUING).not.toBe(REWRITING));

describe.each([
  ['continues its text', CONTINUING],
  ['rewrites answers', REWRITING],
])('a template that %s', (_, template) => {
  let model: Model;
  beforeAll(async () => {
    model = await load(FOLDER, { template });
  });
  afterAll(() => model.dispose());

  /** A session whose logits and rows are seen. */
  const open = (options: SessionOptions = {}) => {
    const watched = watch({ ...model, stopIds: [] });
    const session = createSession(watched.model, options);
    const ask = async ({ question, image, forget = false }: Asked, from: Session = session) => {
      watched.clear();
      const history = forget ? 'forget' : 'keep';
      const images = image === undefined ? [] : [picture(image)];
      const text = await from.ask(question, { images, history, maxTokens: 5, temperature: 0 }).text();
      return { text, bits: watched.logits.map(sha) };
    };
    return { session, ask, calls: watched.calls };
  };

  describe.each(Object.entries(METHODS))('%s', (__, method) => {
    const options = method === undefined ? {} : { method };

    it('a turn that was taken back was never said', async () => {
      const one = open(options);
      await one.ask(FIRST);
      const mark = one.session.mark();
      const [other, stranger] = [open(options), open(options)];
      for (const turn of [SECOND, THIRD]) await one.ask(turn);
      one.session.rewind(mark);
      await other.ask(FIRST);
      expect(await one.ask(THIRD)).toEqual(await other.ask(THIRD));
      // Once more, after a turn that stands on the same state.
      one.session.rewind(mark);
      const [again, never] = [await one.ask(SECOND), open(options)];
      await never.ask(FIRST);
      expect(again).toEqual(await never.ask(SECOND));
      expect((await errorOf(() => stranger.session.rewind(mark))).code).toBe('ERR_MARK');
      for (const { session } of [one, other, never, stranger]) session.dispose();
    });

    it('a turn that failed was never said', async () => {
      const [one, other] = [open(options), open(options)];
      for (const { ask } of [one, other]) await ask(FIRST);
      for (const steps of [1, 3, 7]) {
        const stop = new AbortController();
        let left = steps;
        const answer = one.session.ask(SECOND.question, { images: [picture(1)], maxTokens: 9, signal: stop.signal });
        const reading = (async () => {
          for await (const piece of answer) if (piece !== '' && --left === 0) stop.abort(new Error('enough'));
        })();
        await expect(reading).rejects.toThrow('enough');
      }
      expect(await one.ask(SECOND)).toEqual(await other.ask(SECOND));
      for (const { session } of [one, other]) session.dispose();
    });

    it('a turn that is forgotten leaves only its picture', async () => {
      const [one, other] = [open(options), open(options)];
      await one.ask({ ...FIRST, forget: true });
      await other.ask({ ...FIRST, question: FIRST.question, forget: true });
      await one.ask({ ...THIRD, forget: true });
      expect(await one.ask(THIRD)).toEqual(await other.ask(THIRD));
      for (const { session } of [one, other]) session.dispose();
    });

    it('a turn without a picture that is forgotten after others leaves nothing', async () => {
      const [one, other] = [open(options), open(options)];
      for (const { ask } of [one, other]) await ask(FIRST);
      await one.ask({ ...THIRD, forget: true });
      expect(await one.ask(THIRD)).toEqual(await other.ask(THIRD));
      // After a forgotten question the cached text ends with a picture.
      for (const { ask } of [one, other]) await ask({ ...SECOND, forget: true });
      await one.ask({ ...THIRD, forget: true });
      expect(await one.ask(THIRD)).toEqual(await other.ask(THIRD));
      for (const { session } of [one, other]) session.dispose();
    });

    it('a fork answers as the session, and neither changes the other', async () => {
      const { session, ask } = open(options);
      await ask(FIRST);
      const unmarked = session.fork();
      // The copy of a mark takes the place of no other.
      session.mark();
      const fork = session.fork();
      const own = await ask(SECOND);
      for (const one of [unmarked, fork]) expect(await ask(SECOND, one)).toEqual(own);
      expect(await ask(THIRD, fork)).toEqual(await ask(THIRD));
      for (const one of [session, unmarked, fork]) one.dispose();
    });
  });

  it('turns one after another equal the conversation at once, in bits', async () => {
    const [one, other] = [open(), open()];
    const said: string[] = [];
    for (const turn of [FIRST, SECOND]) said.push((await one.ask(turn)).text);
    const content = ({ question, image = 0 }: Asked) => [{ kind: 'image' as const, image: picture(image) }, question];
    await other.session.open([
      { role: 'user', content: content(FIRST) },
      { role: 'assistant', content: said[0] ?? '' },
      { role: 'user', content: content(SECOND) },
      { role: 'assistant', content: said[1] ?? '' },
    ]);
    expect(await one.ask(THIRD)).toEqual(await other.ask(THIRD));
    for (const { session } of [one, other]) session.dispose();
  });

  it('a later turn prefills its own rows, and of the turn before at most the question and the answer', async () => {
    const { session, ask, calls } = open();
    for (const turn of [FIRST, SECOND]) await ask(turn);
    const picturesEnd = calls[0]?.length ?? 0;
    await ask(THIRD);
    expect(calls[0]?.length).toBeGreaterThan(picturesEnd);
    session.dispose();
  });

  it('after a forgotten question, the next one begins where the picture ends', async () => {
    const { session, ask, calls } = open();
    await ask(FIRST);
    await ask({ ...SECOND, forget: true });
    await ask(THIRD);
    // One call for the question, and one for each token of the answer but the last.
    expect(calls).toHaveLength(1 + 4);
    session.dispose();
  });

  it('leaves no tensor behind', () =>
    withoutLeak(async () => {
      const { session, ask } = open({ method: sparseVila() });
      await ask(FIRST);
      const mark = session.mark();
      const fork = session.fork();
      for (const turn of [SECOND, THIRD]) await ask(turn);
      await ask(THIRD, fork);
      session.rewind(mark);
      await ask({ ...SECOND, forget: true });
      for (const one of [session, fork]) one.dispose();
    }));
});
