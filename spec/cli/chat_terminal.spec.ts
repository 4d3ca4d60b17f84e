// `sparsevila chat` at a terminal: dropped pictures, completion, history, Ctrl-C.

import { spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { addToHistory, historyFile, readHistory } from '../../src/cli/chat_history';
import { complete, droppedPictures } from '../../src/cli/chat_line';
import { ENDLESS, MAIN, picture, ROOT } from './run';

let folder: string;
let photo: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-chat-'));
  photo = join(folder, "it's my photo.png");
  copyFileSync(picture(20), photo);
  copyFileSync(picture(20), join(folder, 'plain.png'));
  mkdirSync(join(folder, 'more'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('dropped pictures', () => {
  const shell = (path: string): string => `'${path.replaceAll("'", "'\\''")}'`;
  const escaped = (path: string): string => path.replace(/(['\s])/g, '\\$1');

  test.each([
    ['quoted for a shell', shell],
    ['escaped with backslashes', escaped],
    ['as a URL', (path: string) => pathToFileURL(path).href],
    ['in quotation marks', (path: string) => `"${path}"`],
  ])('%s: alone, before and after a question', (_name, paste) => {
    expect(droppedPictures(paste(photo))).toEqual({ question: '', pictures: [photo] });
    expect(droppedPictures(`${paste(photo)} What's there?`)).toEqual({ question: "What's there?", pictures: [photo] });
    const two = droppedPictures(`Isn't it  in ${paste(photo)} ${paste(join(folder, 'plain.png'))}`);
    expect(two).toEqual({ question: "Isn't it  in", pictures: [photo, join(folder, 'plain.png')] });
  });

  test.each([
    "What's in the dog's bowl?",
    'Is 1/2 a half?',
    '"Why?" he said',
    '/nowhere/a.png',
    'see a.png',
    '\\',
    '"',
  ])('%j is a question', (question) => {
    expect(droppedPictures(question)).toEqual({ question, pictures: [] });
  });

  test('a file URL that leads nowhere is a picture, so that the error names it', () => {
    expect(droppedPictures('file:///nowhere/a.png').pictures).toEqual(['/nowhere/a.png']);
  });
});

describe('completion', () => {
  const commands = ['/image', '/stats', '/help'];
  test('commands, then files', () => {
    expect(complete('/s', commands)).toEqual([['/stats '], '/s']);
    expect(complete('Where', commands)).toEqual([[], 'Where']);
    expect(complete(`/image ${folder}/pl`, commands)).toEqual([[`${folder}/plain.png`], `${folder}/pl`]);
    expect(complete(`/image a.png ${folder}/m`, commands)).toEqual([[`${folder}/more/`], `${folder}/m`]);
    expect(complete(`/image ${folder}/it`, commands)[0]).toEqual([`${folder}/it\\'s\\ my\\ photo.png`]);
    expect(complete('/image /nowhere/', commands)).toEqual([[], '/nowhere/']);
  });
});

describe('history', () => {
  const at = (name: string): string => join(folder, name, 'sparsevila', 'chat_history');

  test('the file is in the state folder; a relative XDG_STATE_HOME is ignored', () => {
    expect(historyFile({ XDG_STATE_HOME: '/state' })).toBe('/state/sparsevila/chat_history');
    expect(historyFile({ XDG_STATE_HOME: 'state' })).toMatch(/\/\.local\/state\/sparsevila\/chat_history$/);
  });

  test('appends to the file, keeps the last thousand lines, and is private', () => {
    const file = at('state');
    addToHistory(file, ['one', '', 'two\nlines']);
    addToHistory(
      file,
      Array.from({ length: 999 }, (_, i) => `${i}`),
    );
    const lines = readHistory(file);
    expect([lines.length, lines[0], lines.at(-1)]).toEqual([1000, 'two lines', '998']);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(statSync(join(folder, 'state', 'sparsevila')).mode & 0o777).toBe(0o700);
  });

  test('an unreadable or unwritable history is not an error', () => {
    mkdirSync(at('folder'), { recursive: true });
    writeFileSync(join(folder, 'file'), '');
    for (const file of [at('folder'), join(folder, 'file', 'x', 'y'), '/proc/none/x/chat_history']) {
      addToHistory(file, ['one']);
      expect(readHistory(file)).toEqual([]);
    }
  });
});

/** Types at a pseudo-terminal: each key after the text before it is shown. Resolves with the output and the exit code. */
function type(args: readonly string[], keys: readonly (readonly [shown: RegExp, key: string])[]) {
  const quoted = [process.execPath, MAIN, 'chat', ...args]
    .map((word) => `'${word.replaceAll("'", "'\\''")}'`)
    .join(' ');
  const env = { ...process.env, XDG_STATE_HOME: join(folder, 'terminal'), TERM: 'xterm', NO_COLOR: '1' };
  const child = spawn('script', ['--quiet', '--return', '--command', quoted, '/dev/null'], { cwd: ROOT, env });
  let [shown, seen, next] = ['', 0, 0];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    shown += text;
    for (let step = keys[next]; step?.[0].test(shown.slice(seen)); step = keys[next]) {
      seen = shown.length;
      next++;
      child.stdin.write(step[1]);
      if (step[1] !== '') break;
    }
  });
  // If an expected text never appears, the failure contains the output so far.
  const hung = setTimeout(() => child.kill('SIGKILL'), 120_000);
  return new Promise<{ shown: string; code: number | null }>((done, fail) => {
    child.once('error', fail).once('close', (code) => {
      clearTimeout(hung);
      done({ shown, code });
    });
  });
}

describe('at a terminal', () => {
  test('a dropped picture is attached, Tab completes, the up arrow recalls earlier lines', async () => {
    const { shown, code } = await type(
      [],
      [
        [/> /, `'${join(folder, 'plain.png')}' Read row 7.\r`],
        [/triangle/, '/sta'],
        [/\/sta/, '\t'],
        [/ts/, '\r'],
        [/KV cache/, '\u0004'],
      ],
    );
    expect(shown).toMatch(/blue X, blue triangle[\s\S]*Turns: 1, rows in the KV cache: \d+/);
    expect(code).toBe(0);
    const again = await type(
      [],
      [
        [/> /, '\u001b[A'],
        [/\/stats/, '\r'],
        [/KV cache/, '/quit\r'],
      ],
    );
    expect([again.code, again.shown]).toEqual([0, expect.stringContaining('Turns: 0')]);
  });

  test('Ctrl-C stops the answer; a second one exits with code 130', async () => {
    const { shown, code } = await type(
      ['--image', picture(20), ...ENDLESS],
      [
        [/> /, 'Hi\r'],
        [/\n[a-z]/i, '\u0003'],
        [/Stopped/, '\u0003'],
      ],
    );
    expect(shown).toMatch(/Stopped; /);
    expect(code).toBe(130);
  });
});
