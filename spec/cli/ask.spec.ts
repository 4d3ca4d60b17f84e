// `sparsevila ask` on the packaged model and pictures whose truths are known.
import { readFileSync } from 'node:fs';
import { cli, ENDLESS, picture, startCli } from './run';

const SCENE = ['--image', picture(20)];
const QUESTIONS = [
  ['Where is the yellow 2?', 'd5'],
  ['Read row 7.', 'blue X, blue triangle'],
] as const;
const ASK = ['ask', ...SCENE, ...QUESTIONS.flatMap(([question]) => ['--question', question])];

interface AskOutput {
  model: string;
  method: string;
  prefillSparsity?: number;
  decodeSparsity?: number;
  positions?: string;
  turns: {
    question: string;
    answer: string;
    tokens: Record<string, number>;
    ms: Record<string, number>;
  }[];
}

/** Runs `ask --json`, which must print one object on stdout and nothing on stderr. */
async function ask(args: readonly string[], input: string | Buffer = ''): Promise<AskOutput> {
  const { code, stdout, stderr } = await cli([...args, '--json'], input);
  expect([code, stderr]).toEqual([0, '']);
  return JSON.parse(stdout) as AskOutput;
}

describe('ask --json', () => {
  test('dense: right answers, every token attended, no ratios', async () => {
    const output = await ask([...ASK, '--method', 'dense']);
    expect(Object.keys(output).sort()).toEqual(['method', 'model', 'turns']);
    expect(output.method).toBe('dense');
    expect(output.model).toMatch(/tiny-nvila$/);
    expect(output.turns.map(({ question, answer }) => [question, answer])).toEqual(QUESTIONS);
    expect(output.turns.map(({ tokens }) => [tokens.visualSeen, tokens.visualKept, tokens.visualRetrieved])).toEqual([
      [100, 100, 100],
      [0, 100, 100],
    ]);
  });

  test('sparsevila by default: right answers from 40 kept and 10 retrieved tokens', async () => {
    const output = await ask(ASK);
    expect(output).toMatchObject({
      method: 'sparsevila',
      prefillSparsity: 0.6,
      decodeSparsity: 0.75,
      positions: 'original',
    });
    expect(output.turns.map(({ question, answer }) => [question, answer])).toEqual(QUESTIONS);
    expect(output.turns.map(({ tokens }) => [tokens.visualSeen, tokens.visualKept, tokens.visualRetrieved])).toEqual([
      [100, 40, 10],
      [0, 40, 10],
    ]);
    for (const { tokens, ms } of output.turns) {
      expect(Object.keys(tokens).sort()).toEqual([
        'activeDecode',
        'activePrefill',
        'generated',
        'prompt',
        'visualKept',
        'visualRetrieved',
        'visualSeen',
      ]);
      expect(Object.keys(ms).sort()).toEqual(
        ['image', 'tower', 'project', 'prefill', 'retrieve', 'perToken', 'total'].sort(),
      );
      for (const value of [...Object.values(tokens), ...Object.values(ms)]) expect(value).toBeGreaterThanOrEqual(0);
      expect(ms.total).toBeGreaterThan(ms.prefill ?? Number.NaN);
    }
    const [first, second] = output.turns;
    expect(first?.ms.tower).toBeGreaterThan(0);
    expect(second?.ms.tower).toBe(0);
    // The prompt's rows: 40 of the image and the text around them.
    expect(first?.tokens.prompt).toBeGreaterThan(40);
  });

  test('ratios, positions, limits, stops and storage reach the framework', async () => {
    const output = await ask([
      ...[...ASK, '--prefill-sparsity', '0.5', '--decode-sparsity', '0.9', '--positions', 'compact'],
      ...['--salience-layer', '-2', '--kv', 'f32', '--weights', 'f32', '--max-tokens', '2', '--context-length', '200'],
    ]);
    expect(output).toMatchObject({ prefillSparsity: 0.5, decodeSparsity: 0.9, positions: 'compact' });
    expect(output.turns[0]?.tokens).toMatchObject({ visualKept: 50, visualRetrieved: 5 });
    expect(output.turns[1]?.tokens.generated).toBe(2);
    const stopped = await ask(['ask', ...SCENE, '--question', 'Read row 7.', '--stop', ',', '--stop', 'zzz']);
    expect(stopped.turns[0]?.answer).toBe('blue X');
  });

  test('a method of the table, with the ratio it has a use for', async () => {
    const snapkv = await ask([...ASK, '--method', 'snapkv', '--decode-sparsity', '0.6']);
    expect(snapkv).toMatchObject({ method: 'snapkv', decodeSparsity: 0.6 });
    expect(Object.keys(snapkv).sort()).toEqual(['decodeSparsity', 'method', 'model', 'turns']);
    expect(snapkv.turns.map(({ tokens }) => [tokens.activePrefill, tokens.activeDecode])).toEqual([
      [100, 40],
      [40, 40],
    ]);
  });

  test('several images belong to the first question', async () => {
    const images = ['--image', picture(20), picture(19)];
    const output = await ask(['ask', ...images, '--question', 'Where is the yellow A?', '--question', 'Read row 7.']);
    expect(output.turns[0]?.answer).toBe('frame 2, f7');
    expect(output.turns.map(({ tokens }) => [tokens.visualSeen, tokens.visualKept, tokens.visualRetrieved])).toEqual([
      [200, 80, 20],
      [0, 80, 20],
    ]);
  });

  test('--evict forgets the text of a turn and keeps its image', async () => {
    const [kept, evicted] = [await ask(ASK), await ask([...ASK, '--evict'])];
    expect(evicted.turns.map(({ answer }) => answer)).toEqual(QUESTIONS.map(([, truth]) => truth));
    expect(evicted.turns[0]?.tokens).toEqual(kept.turns[0]?.tokens);
    // Nothing of the first turn's answer is left to be closed.
    expect(evicted.turns[1]?.tokens.prompt).toBeLessThan(kept.turns[1]?.tokens.prompt ?? 0);
  });

  test('a seed gives the same answer again, another seed another', async () => {
    const draw = (seed: string) =>
      ask(['ask', '--question', 'Hi', '--temperature', '1e6', '--max-tokens', '12', '--seed', seed]);
    const [one, again, other] = [await draw('6'), await draw('6'), await draw('7')];
    expect(one.turns[0]?.answer).toBe(again.turns[0]?.answer);
    expect(one.turns[0]?.answer).not.toBe(other.turns[0]?.answer);
  });

  test('the image comes from stdin', async () => {
    const output = await ask(['ask', '--image', '-', '--question', 'Read row 7.'], readFileSync(picture(20)));
    expect(output.turns[0]?.answer).toBe('blue X, blue triangle');
  });
});

describe('ask as text', () => {
  test('prints questions, answers and one line of numbers each, plain', async () => {
    const { code, stdout, stderr } = await cli(ASK);
    expect([code, stderr]).toEqual([0, '']);
    const numbers =
      /^visual tokens: \d+ seen, 40 kept, 10 retrieved · prompt \d+, answer \d+ tokens · image [\d.]+, .*total [\d.]+ ms$/;
    expect(stdout.split('\n')).toEqual([
      ...QUESTIONS.flatMap(([question, truth]) => [`> ${question}`, truth, expect.stringMatching(numbers), '']),
      '',
    ]);
  });

  test('the questions come from stdin, a line each', async () => {
    const { code, stdout } = await cli(
      ['ask', ...SCENE, '--question', '-'],
      'Read row 7.\n\nWhere is the yellow 2?\r\n',
    );
    expect(code).toBe(0);
    expect(stdout.split('\n').filter((line) => line !== '' && !line.startsWith('visual'))).toEqual([
      '> Read row 7.',
      'blue X, blue triangle',
      '> Where is the yellow 2?',
      'd5',
    ]);
  });

  test('streams; SIGINT during an answer leaves what was said and exits with 130', async () => {
    const { child, ended, shows } = startCli(['ask', ...SCENE, '--question', 'Hi', ...ENDLESS]);
    await shows(/> Hi\n./);
    child.kill('SIGINT');
    const { code, signal, stdout, stderr } = await ended;
    expect([code, signal, stderr]).toEqual([130, null, 'sparsevila: stopped.\n']);
    expect(stdout).toMatch(/^> Hi\n./);
    expect(stdout).not.toContain('visual tokens:');
  });

  test('a reader that has seen enough is no error', async () => {
    const { child, ended, shows } = startCli(['ask', ...SCENE, '--question', 'Hi', ...ENDLESS]);
    await shows(/> Hi\n./);
    child.stdout.destroy();
    expect(await ended).toMatchObject({ code: 0, stderr: '' });
  });
});
