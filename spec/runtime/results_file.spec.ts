// The results of a long run: continued after a kill, one writer at a time, errors that name the file.
import { execFileSync } from 'node:child_process';
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openResults } from '../../src/runtime/results_file';

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-results-'));
  file = join(folder, 'out', 'results.jsonl');
});
afterEach(() => rmSync(folder, { recursive: true }));
const code = (expected: string) => expect.objectContaining({ code: expected });

/** Writes two pieces. */
function begin(): void {
  const results = openResults(file, { seed: 1 });
  results.append('a', 1);
  results.append('b', { c: 2 });
  results.close();
}

test('finished pieces are read back; unfinished and broken lines are ignored', () => {
  begin();
  appendFileSync(file, 'null\n{"name":"x"}\n{"name":\n{"name":"c","val');
  writeFileSync(join(folder, 'out', 'rows.json.tmp-0123456789abcdef'), 'half');
  const again = openResults(file, { seed: 1 });
  expect([...again.pieces]).toEqual([
    ['a', 1],
    ['b', { c: 2 }],
  ]);
  again.append('c', 3);
  again.close();
  expect(readFileSync(file, 'utf8').split('\n')).toHaveLength(5);
  expect(readdirSync(join(folder, 'out'))).toEqual(['results.jsonl']);
});

test('another configuration is refused, and its lock released', () => {
  begin();
  expect(() => openResults(file, { seed: 2 })).toThrow(code('ERR_RESUME_MISMATCH'));
  openResults(file, { seed: 1 }).close();
});

test('a second evaluation in the same folder is refused until the first closes', () => {
  const results = openResults(file, {});
  expect(() => openResults(file, {})).toThrow(code('ERR_BUSY'));
  results.close();
  openResults(file, {}).close();
});

test.each<[string, (path: string) => void]>([
  ['a directory', (path) => mkdirSync(path, { recursive: true })],
  ['a FIFO', (path) => [mkdirSync(join(path, '..')), execFileSync('mkfifo', [path])]],
])('%s in place of the file', (_, make) => {
  make(file);
  expect(() => openResults(file, {})).toThrow(code('ERR_FILE_UNREADABLE'));
});

test('a file in place of the folder', () => {
  writeFileSync(join(folder, 'out'), '');
  expect(() => openResults(file, {})).toThrow(code('ERR_OUTPUT_UNWRITABLE'));
});

test('a full disk while a piece is added', () => {
  const results = JSON.stringify(join(__dirname, '../../src/runtime/results_file.js'));
  const script = `const results = require(${results}).openResults(process.argv[1], {});
    try { for (;;) results.append("x", "y".repeat(10000)); } catch (error) { console.log(error.code, error.message.includes(process.argv[1])); }`;
  const limited = `ulimit -f 64; exec "$0" -e '${script}' "$1"`;
  expect(execFileSync('sh', ['-c', limited, process.execPath, file], { encoding: 'utf8' })).toBe(
    'ERR_DISK_FULL true\n',
  );
  openResults(file, {}).close(); // the files of the dead process do not prevent it
});
