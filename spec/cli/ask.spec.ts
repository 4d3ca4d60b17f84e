// `sparsevila ask` on the packaged model and pictures whose truths are known.
import { spawnSync } from 'node:child_process';
import { closeSync, copyFileSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { groupsOf, prepareArguments } from '../../src/cli/arguments';
import { FIXTURES } from '../support/assets';
import { cli, ENDLESS, MAIN, picture, ROOT, startCli } from './run';

/** What yargs declares for `--video` alone. */
const DECLARED = { key: { video: true }, array: ['video'], boolean: [], number: [], narg: {}, choices: {}, alias: {} };
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
    finish: string;
    tokensPerSecond: number | null;
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

test('--format holds the answer to the schema of a file', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sparsevila-format-'));
  const file = join(folder, 'schema.json');
  writeFileSync(file, JSON.stringify({ type: 'array', items: { enum: ['cat'] }, minItems: 2, maxItems: 2 }));
  const { stdout } = await cli(['run', 'assets/tiny-nvila', 'Read row 7.', picture(20), '--quiet', '--format', file]);
  expect(JSON.parse(stdout)).toEqual(['cat', 'cat']);
  rmSync(folder, { recursive: true });
});

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
        'accepted',
        'activeDecode',
        'activePrefill',
        'drafted',
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

  test('ratios, positions, limits, stop strings and data types are passed to the session', async () => {
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

  test('a method of the table takes the ratio that it uses', async () => {
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

  test('each --video is one video with the frames that follow it', async () => {
    const videos = ['--video', picture(20), picture(19), '--video', picture(19), picture(20)];
    const { turns } = await ask(['ask', ...videos, '--question', 'Read row 7.', '--method', 'dense']);
    const images = ['--image', picture(20), picture(19), picture(19), picture(20)];
    const { turns: others } = await ask(['ask', ...images, '--question', 'Read row 7.', '--method', 'dense']);
    expect([turns[0]?.tokens.visualSeen, others[0]?.tokens.visualSeen]).toEqual([400, 400]);
    expect(groupsOf(prepareArguments(videos, DECLARED, []).map((word) => word.replace('--video=', '')))).toEqual([
      [picture(20), picture(19)],
      [picture(19), picture(20)],
    ]);
  });

  test('a video file is a film, of which --from, --to and --max-frames take a part', async () => {
    const film = ['ask', '--video', 'assets/demo/film.webp', '--question', 'Read row 7.'];
    const { turns } = await ask([...film, '--from', '1', '--to', '2', '--max-frames', '1']);
    expect([turns[0]?.answer, turns[0]?.tokens.visualSeen]).toEqual(['blue X, blue triangle', 100]);
    // The default is the film model, whose config says 48 frames.
    const whole = await ask([...film, '--question', 'On which square is the yellow 2?']);
    expect(whole.model).toMatch(/tiny-nvila-film$/);
    expect([whole.turns[1]?.answer, whole.turns[0]?.tokens.visualSeen]).toEqual(['d5', 4800]);
    const refused = async (...args: string[]): Promise<string> => (await startCli([...ASK, ...args]).ended).stderr;
    expect(await refused('--video', picture(20), '--from', '1')).toMatch(/ERR_OPTION_INVALID.*--from/);
    expect(await refused('--video', 'no-such.mp4')).toMatch(/ERR_VIDEO_NOT_FOUND.*no-such\.mp4/);
  });

  test('--fps is the rate of the videos: Qwen3-VL reads their times', async () => {
    const folder = join(FIXTURES, 'qwen_vl', 'qwen3-vl');
    const frames = [0, 1, 2].map((i) => join(folder, `frame${i}.png`));
    const words = ['ask', '--model', folder, '--question', 'What?', '--max-tokens', '1', '--video', ...frames];
    const [fast, slow] = [await ask(words), await ask([...words, '--fps', '0.01'])];
    // "<0.0 seconds>" and "<0.1 seconds>" against "<50.0 seconds>" and "<200.0 seconds>".
    const more = (slow.turns[0]?.tokens.prompt ?? 0) - (fast.turns[0]?.tokens.prompt ?? 0);
    expect(more).toBeGreaterThan(0);
  });

  test('--history forget forgets the text of a turn and keeps its image', async () => {
    const [kept, forgotten] = [await ask(ASK), await ask([...ASK, '--history', 'forget'])];
    expect(forgotten.turns.map(({ answer }) => answer)).toEqual(QUESTIONS.map(([, truth]) => truth));
    expect(forgotten.turns[0]?.tokens).toEqual(kept.turns[0]?.tokens);
    // No end of the first turn's answer has to be appended.
    expect(forgotten.turns[1]?.tokens.prompt).toBeLessThan(kept.turns[1]?.tokens.prompt ?? 0);
  });

  test('equal seeds give equal answers, other seeds other answers', async () => {
    const draw = (seed: string) =>
      ask(['ask', '--question', 'Hi', '--temperature', '1e6', '--max-tokens', '12', '--seed', seed]);
    const [one, again, other] = [await draw('6'), await draw('6'), await draw('7')];
    expect(one.turns[0]?.answer).toBe(again.turns[0]?.answer);
    expect(one.turns[0]?.answer).not.toBe(other.turns[0]?.answer);
  });

  test('the image is read from stdin', async () => {
    const output = await ask(['ask', '--image', '-', '--question', 'Read row 7.'], readFileSync(picture(20)));
    expect(output.turns[0]?.answer).toBe('blue X, blue triangle');
  });
});

describe('the record of a turn', () => {
  test.each([
    ['stop', []],
    ['length', ['--max-tokens', '1']],
    ['stopString', ['--stop', ',']],
  ] as const)('finish is %s', async (finish, args) => {
    const [turn] = (await ask(['ask', ...SCENE, '--question', 'Read row 7.', ...args])).turns;
    expect(turn?.finish).toBe(finish);
    if (finish === 'length') expect(turn?.tokensPerSecond).toBeNull();
    else expect(turn?.tokensPerSecond).toBeCloseTo(1000 / (turn?.ms.perToken ?? 0), 0);
  });
});

describe('ask as text', () => {
  const ANSWERS = `${QUESTIONS.map(([, truth]) => truth).join('\n')}\n`;

  test('stdout has only the answers; stderr has questions and statistics, at most 80 columns wide', async () => {
    const { code, stdout, stderr } = await cli(ASK);
    expect([code, stdout]).toEqual([0, ANSWERS]);
    for (const [question] of QUESTIONS) expect(stderr).toContain(`> ${question}\nvisual tokens: `);
    expect(stderr).toMatch(
      /\d seen, 40 kept, 10 retrieved · prompt \d+, answer \d+ tokens\n[\d.]+ tokens\/s · ms: image [\d.]+/,
    );
    expect(Math.max(...stderr.split('\n').map((line) => line.length))).toBeLessThanOrEqual(80);
  });

  test('--quiet prints nothing else', async () => {
    expect(await cli([...ASK, '--quiet'])).toMatchObject({ code: 0, stdout: ANSWERS, stderr: '' });
  });

  test('an option takes the next argument, even if that begins with a dash', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sparsevila-dash-'));
    copyFileSync(picture(20), join(folder, '-dash.png'));
    const texts = ['- where is the yellow 2?', '-5 or 5?', '--help me: where is the yellow 2?'];
    const args = [
      ...texts.flatMap((text) => ['-q', text]),
      '--stop',
      '-',
      '--stop',
      '---',
      '--temperature',
      '-0',
      '--json',
    ];
    const { child, ended } = startCli(['ask', '-i', '-dash.png', ...args], undefined, folder);
    child.stdin.end();
    const { code, stdout, stderr } = await ended;
    expect([code, stderr]).toEqual([0, '']);
    expect((JSON.parse(stdout) as AskOutput).turns.map(({ question }) => question)).toEqual(texts);
    rmSync(folder, { recursive: true });
  });

  test('run takes model, question and pictures as positional arguments; the defaults are the packaged ones', async () => {
    const args = ['run', 'assets/tiny-nvila', 'Where is the yellow A?', picture(20), picture(19), '--quiet'];
    expect(await cli(args)).toMatchObject({ code: 0, stdout: 'frame 2, f7\n', stderr: '' });
    const dashes = await cli(['run', '--quiet', 'assets/tiny-nvila', '- read row 7.', '-i', picture(20), '--json']);
    expect((JSON.parse(dashes.stdout) as AskOutput).turns[0]?.question).toBe('- read row 7.');
    expect(await cli(['ask', '-q', 'Read row 7.', '--quiet'])).toMatchObject({
      code: 0,
      stdout: 'blue X, blue triangle\n',
    });
  });

  test('control characters of an answer reach neither the terminal nor JSON', async () => {
    const question = 'a\u001b[2Jb\u009bc\u202ed';
    const shown = await cli(['ask', ...SCENE, '-q', question]);
    expect(shown.stderr).toContain('> a[2Jbcd\n');
    const { stdout } = await cli(['ask', ...SCENE, '-q', question, '--json']);
    expect((JSON.parse(stdout) as AskOutput).turns[0]?.question).toBe(question);
    expect(stdout).toMatch(/a\\u001b\[2Jb\\u009bc\\u202ed/);
    const wrong = await cli(['ask', ...SCENE, '-q', 'x', '-i', 'no\u001b[2J.png']);
    expect(wrong.stderr).not.toContain('\u001b');
  });

  test('questions are read from stdin, one per line', async () => {
    const { code, stdout } = await cli(
      ['ask', ...SCENE, '--question', '-'],
      'Read row 7.\n\nWhere is the yellow 2?\r\n',
    );
    expect([code, stdout]).toEqual([0, 'blue X, blue triangle\nd5\n']);
  });

  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('streams; %s during an answer leaves what was said and exits with %d', async (signal, exit) => {
    const { child, ended, shows } = startCli(['ask', ...SCENE, '--question', 'Hi', '--quiet', ...ENDLESS]);
    await shows(/./);
    child.kill(signal);
    const { code, stdout, stderr } = await ended;
    expect([code, stderr]).toEqual([exit, 'sparsevila: stopped.\n']);
    expect(stdout).toMatch(/./);
  });

  test('a closed output pipe is not an error', async () => {
    const { child, ended, shows } = startCli(['ask', ...SCENE, '--question', 'Hi', '--quiet', ...ENDLESS]);
    await shows(/./);
    child.stdout.destroy();
    expect(await ended).toMatchObject({ code: 0, stderr: '' });
  });

  test('an unwritable output is a failure', async () => {
    const full = openSync('/dev/full', 'w');
    const ask = spawnSync(process.execPath, [MAIN, ...ASK], { cwd: ROOT, stdio: ['ignore', full, 'pipe'] });
    closeSync(full);
    expect([ask.status, String(ask.stderr)]).toEqual([1, expect.stringContaining('the output cannot be written')]);
  });
});
