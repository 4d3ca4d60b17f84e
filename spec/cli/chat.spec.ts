// `sparsevila chat` over a pipe: each line is a question or a command.
import { join } from 'node:path';
import { splitWords } from '../../src/cli/chat_line';
import { cli, ENDLESS, picture, ROOT, startCli } from './run';

test.each([
  ['a.png  b.png', ['a.png', 'b.png']],
  ['"my photo.png" \'other one.png\'', ['my photo.png', 'other one.png']],
  ['my\\ photo.png', ['my photo.png']],
  ['', []],
])('words of %s', (line, words) => {
  expect(splitWords(line)).toEqual(words);
});

/** Resolves with the first piece of an answer. */
const said = (child: ReturnType<typeof startCli>['child']): Promise<unknown> =>
  new Promise((done) => child.stdout.once('data', done));

describe('chat', () => {
  test('answers lines in one conversation', async () => {
    const lines = ['Where is the yellow 2?', '', 'Read row 7.', '/quit', 'Never asked.'];
    const { code, stdout, stderr } = await cli(['chat', '--image', picture(20)], `${lines.join('\n')}\n`);
    expect([code, stderr]).toEqual([0, '> Where is the yellow 2?\n> Read row 7.\n']);
    expect(stdout).toBe('d5\nblue X, blue triangle\n');
  });

  test('the commands for images, statistics and history', async () => {
    const rows = (turns: number) => new RegExp(`^Turns: ${turns}, rows in the KV cache: (\\d+)$`, 'm');
    const script = [
      ...[`/image "${picture(20)}"`, 'Read row 7.', '/stats'],
      ...['Where is the yellow 2?', '/rewind', '/stats'],
      ...['/history forget', 'Where is the yellow 2?', '/stats', '/rewind', '/rewind', '/rewind', '/stats'],
    ];
    const { code, stdout, stderr } = await cli(['chat'], script.join('\n'));
    expect([code, stdout]).toEqual([0, 'blue X, blue triangle\nd5\nd5\n']);
    expect(stderr).toContain('visual tokens: 100 seen, 40 kept, 10 retrieved');
    const counted = [...stderr.matchAll(/^Turns: (\d), rows in the KV cache: (\d+)$/gm)].map(([, turns, n]) => [
      Number(turns),
      Number(n),
    ]);
    const afterOne = Number(rows(1).exec(stderr)?.[1]);
    expect(afterOne).toBeGreaterThan(40);
    // After a rewound turn, and after a forgotten one, the cache is as before; with all forgotten it is empty.
    expect(counted).toEqual([
      [1, afterOne],
      [1, afterOne],
      [2, expect.any(Number)],
      [0, 0],
    ]);
    expect(stderr).toContain('There is no turn to forget.');
  });

  test('a failure is reported, the conversation continues, and the exit code is 1', async () => {
    const script = ['/bogus', '/history maybe', '/image', '/image nope.png', `/image ${picture(20)}`, 'Read row 7.'];
    const { code, stdout, stderr } = await cli(['chat'], script.join('\n'));
    expect(code).toBe(1);
    expect(stderr.split('\n')).toEqual([
      expect.stringContaining('received "/bogus"'),
      expect.stringContaining('Expected keep or forget'),
      expect.stringContaining('Expected a path'),
      expect.stringContaining('ERR_IMAGE_NOT_FOUND'),
      expect.stringContaining('The next question is about'),
      '> Read row 7.',
      '',
    ]);
    expect(stdout).toBe('blue X, blue triangle\n');
  });

  test('/video adds a film to the next question', async () => {
    const film = join(ROOT, 'assets/demo/film.webp');
    const script = ['/video', '/video nope.mp4', `/video ${film}`, 'Read row 7.', '/stats'];
    const { code, stderr } = await cli(['chat', '--max-tokens', '1'], script.join('\n'));
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /Expected a path: \/video FILE[\s\S]*ERR_VIDEO_NOT_FOUND[\s\S]*about the video .*film\.webp/,
    );
    expect(stderr).toMatch(/800 seen/);
  });

  test('SIGINT stops an answer and keeps its text; the next line is read', async () => {
    const { child, ended, shows } = startCli(['chat', '--image', picture(20), ...ENDLESS]);
    child.stdin.write('Hi\n');
    await shows(/> Hi\n/);
    await said(child);
    child.kill('SIGINT');
    await shows(/Stopped; the text so far is kept\./);
    child.stdin.end('/stats\n/rewind\n/stats\n');
    const { code, stderr } = await ended;
    expect(code).toBe(0);
    const rows = [...stderr.matchAll(/^Turns: (\d), rows in the KV cache: (\d+)$/gm)].map(([, ...n]) => n.map(Number));
    expect(rows).toEqual([
      [1, expect.any(Number)],
      [0, 0],
    ]);
    // Fewer than the whole answer's 2104.
    expect(rows[0]?.[1]).toBeLessThan(2000);
    expect(rows[0]?.[1]).toBeGreaterThan(40);
  });

  test('SIGINT before the first word withdraws the question; its images stay for the next one', async () => {
    const images = Array.from({ length: 30 }, () => picture(20));
    const { child, ended, shows } = startCli(['chat', '--image', ...images, '--max-tokens', '1']);
    child.stdin.write('Where?\n');
    await shows(/> Where\?\n/);
    child.kill('SIGINT');
    await shows(/Stopped; the question is taken back\./);
    child.stdin.end('/stats\nWhere?\n/stats\n');
    const { code, stderr } = await ended;
    expect(code).toBe(0);
    expect(stderr).toMatch(/taken back\.\nTurns: 0, rows in the KV cache: 0\n> Where\?\n/);
    expect(stderr).toMatch(/visual tokens: 3000 seen, 1200 kept/);
  });

  test('SIGINT at the prompt ends chat with exit code 130', async () => {
    const { child, ended, shows } = startCli(['chat']);
    child.stdin.write('/help\n');
    await shows(/\/quit/);
    child.kill('SIGINT');
    expect(await ended).toMatchObject({ code: 130, stdout: '' });
  });
});
