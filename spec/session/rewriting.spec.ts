// A template that rewrites history (reasoning models drop their thoughts): the cache is truncated to the common prefix, and what
// follows, pictures too, is prefilled again.
import { load, type Model } from '../../src';
import { errorOf } from '../image/fixtures';
import { scene, TINY } from '../support/assets';

/** Prints only the first word of an answer that has more than `recent` messages after it. */
const terse = (recent: number): string =>
  "{% for message in messages %}<|im_start|>{{ message['role'] }}\n" +
  `{% if message['role'] == 'assistant' and loop.index + ${recent} <= messages|length %}{{ message['content'].split(' ')[0] }}` +
  "{% else %}{{ message['content'] }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
const QUESTION = 'What is at b4?';

/** Runs three turns, of which the first and the second show a picture; returns answers, rows at the end and visual tokens seen. */
async function talk(model: Model, first?: number) {
  using session = model.session();
  const turn = async (question: string, images: string[], maxTokens?: number) => {
    const answer = session.ask(question, { images, ...(maxTokens !== undefined && { maxTokens }) });
    return { text: await answer.text(), stats: answer.stats };
  };
  const a = await turn(QUESTION, [scene(0)], first);
  const before = session.length;
  const b = await turn('What is at c2?', [scene(1)]);
  const c = await turn('How many shapes are there?', []);
  return { a, b, c, before, length: session.length };
}

it.each([
  ['at once', 1],
  ['after the next turn, with its picture', 3],
])('answers as if the conversation were what the template prints: rewritten %s', async (_, recent) => {
  const model = await load(TINY, { template: terse(recent) });
  const whole = await talk(model);
  const word = await talk(model, 1);
  expect(whole.a.text.split(' ').length).toBeGreaterThan(1);
  expect(word.a.text).toBe(whole.a.text.split(' ')[0]);
  expect(whole.before).toBeGreaterThan(word.before);
  expect([whole.b.text, whole.c.text, whole.length]).toEqual([word.b.text, word.c.text, word.length]);
  // A picture is not encoded again, but its rows are prefilled again where they stand after what was rewritten.
  expect(whole.b.stats?.tokens.visualSeen).toBe(100);
  model.dispose();
});

it.each([
  ['at once', 1],
  ['after the next turn, with its picture', 3],
])('a mark goes back to a state whose rows were rewritten %s since', async (_, recent) => {
  using model = await load(TINY, { template: terse(recent) });
  using chat = model.session();
  await chat.ask(QUESTION, { images: [scene(0)] });
  const mark = chat.mark();
  const ask = (question: string, image?: number) =>
    chat.ask(question, image === undefined ? {} : { images: [scene(image)] }).text();
  const turns = async () => [await ask('What is at c2?', 1), await ask('How many shapes are there?'), chat.length];
  const first = await turns();
  const later = chat.mark();
  chat.rewind(mark);
  expect(chat.length).toBeLessThanOrEqual(mark.length);
  expect(await turns()).toEqual(first);
  // That conversation was left.
  expect((await errorOf(() => chat.rewind(later))).code).toBe('ERR_MARK');
  chat.rewind(mark);
  // A turn that fails after it has rewritten rows changes no state.
  const none = () => Int32Array.of(-1);
  using strict = model.session({ method: { name: 'wrong', retrieve: { select: none } } });
  await strict.open([
    { role: 'user', content: [{ kind: 'image', image: scene(0) }, QUESTION] },
    { role: 'assistant', content: 'red 2 and more' },
  ]);
  const opened = strict.mark();
  expect((await errorOf(() => strict.ask('How many?').text())).code).toBe('ERR_SELECTION');
  strict.rewind(opened);
  expect(strict.length).toBe(0);
});
