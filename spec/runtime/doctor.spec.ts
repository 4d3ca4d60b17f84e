// The report of the machine that runs the tests, and of one that lacks everything.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { diagnose, formatReport, type Report } from '../../src/runtime/doctor';

const MAIN = join(__dirname, '../../src/cli/main.js');

const NAMES = [
  ...['Node', 'system', 'processor', 'cores', 'memory', 'cache', 'packages', 'npm', 'pip', 'compiler', 'CMake'],
  ...['ffmpeg', 'engine', 'libtensorflow', 'native modules'],
  ...['NVIDIA driver', 'GPUs', 'CUDA compiler', 'GPU library', 'TensorFlow', 'device'],
];

describe('doctor', () => {
  test('reports every part of a machine that is set up, and the CLI prints the same as JSON', async () => {
    const report = await diagnose();
    expect(report.rows.map(({ name }) => name)).toEqual(NAMES);
    expect(report.rows.filter(({ status }) => status === 'fail')).toEqual([]);
    expect(report.ok).toBe(true);
    for (const { status, advice } of report.rows) expect(advice === undefined).toBe(status === 'ok');
    const tensorflow = report.rows.find(({ name }) => name === 'TensorFlow');
    expect(tensorflow?.value).toMatch(/^2\.21\.0, tfjs 4\.22\.0, device (CPU|GPU)/);
    const device = report.rows.find(({ name }) => name === 'device');
    expect(device?.value).toMatch(/^(GPU: .|CPU: .)/);
    const printed = JSON.parse(
      execFileSync(process.execPath, [MAIN, 'doctor', '--json'], { encoding: 'utf8' }),
    ) as Report;
    expect(printed).toEqual(report);
  });

  test('gives advice on a machine that is not set up, and exits with 1', () => {
    const empty = mkdtempSync(join(tmpdir(), 'sparsevila-doctor-'));
    const env = { PATH: empty, SPARSEVILA_CACHE: join(empty, 'cache') };
    const child = spawnSync(process.execPath, [MAIN, 'doctor', '--json'], { encoding: 'utf8', env });
    rmSync(empty, { recursive: true });
    const report = JSON.parse(child.stdout) as Report;
    expect(child.status).toBe(1);
    expect(report.ok).toBe(false);
    const failed = report.rows.filter(({ status }) => status === 'fail');
    expect(failed.map(({ name }) => name)).toEqual([
      'pip',
      'compiler',
      'CMake',
      'engine',
      'libtensorflow',
      'native modules',
      'TensorFlow',
    ]);
    expect(failed.every(({ advice }) => advice !== undefined)).toBe(true);
  });
});

test('formatReport aligns the names and puts advice below', () => {
  const rows = [
    { name: 'Node', status: 'ok', value: 'v1' },
    { name: 'libtensorflow', status: 'fail', value: 'not there', advice: 'Run set-up.' },
  ] as const;
  expect(formatReport({ ok: false, rows })).toBe(
    'ok    Node           v1\nFAIL  libtensorflow  not there\n                     → Run set-up.\n',
  );
});
