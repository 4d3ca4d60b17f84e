// Reports everything that this machine has for running, what is missing, and what to do about it. Changes nothing. TensorFlow is started in a
// separate process, so that a crash becomes a report.

import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../errors';
import { filesBelow } from '../files';
import { packageProblems } from '../packages';
import { CUDA_VERSION, findCuda, installedCuda, isRecentCuda } from './cuda';
import {
  cpuReason,
  FIX_HINT,
  formatDevices,
  type GpuFacts,
  gpuFacts,
  requestedDevice,
  unsupportedReason,
} from './device';
import { ENGINE_PACKAGE, ENGINE_VERSION, findEngine } from './engine';
import { findLibtensorflow, LIBRARIES, type Libtensorflow } from './libtensorflow';
import { checkThreadCounts, cores, cpuQuota, glibcVersion, isaLevel, memoryBytes, processor } from './machine';
import { compilerProblem, findNative, type NativeModules } from './native';
import { findNpm } from './npm';
import type { Nvidia } from './nvidia';
import { cacheFolder, TENSORFLOW_VERSION } from './paths';
import type { Probe } from './probe';
import { findCompiler, findPip, findProgram, versionLine } from './process';
import { wheelFor } from './wheel';

/** `fail`: nothing runs without it. `warn`: it runs, but something is missing or unused. */
export type Status = 'ok' | 'warn' | 'fail';

export interface DiagnosisRow {
  readonly name: string;
  readonly status: Status;
  readonly value: string;
  /** Advice; present if `status` is not `ok`. */
  readonly advice?: string;
}

export interface Report {
  /** Whether no row failed. */
  readonly ok: boolean;
  readonly rows: readonly DiagnosisRow[];
}

const SETUP = 'Run `npx sparsevila setup`.';
const PROBE_TIMEOUT_MS = 60_000;

/** Examines the machine and starts TensorFlow once, in another process; takes about a second. */
export async function diagnose(): Promise<Report> {
  const libtensorflow = attempt(() => findLibtensorflow());
  const native = attempt(() => (libtensorflow.value ? findNative(libtensorflow.value) : undefined));
  const installed = native.value !== undefined;
  const facts = gpuFacts(libtensorflow.value);
  const engine = findEngine();
  const isSetUp = installed && engine !== undefined;
  // In the order of installation: a row depends only on rows above it.
  const rows = [
    nodeRow(),
    systemRow(libtensorflow.value !== undefined),
    processorRow(),
    coresRow(),
    memoryRow(),
    cacheRow(),
    ...packageRows(),
    npmRow(engine !== undefined),
    pipRow(libtensorflow.value !== undefined),
    ...compilerRows(installed),
    ffmpegRow(),
    engineRow(engine),
    libtensorflowRow(libtensorflow),
    nativeRow(native),
    ...gpuRows(facts),
    ...backendRows(isSetUp, facts),
  ];
  return { ok: rows.every(({ status }) => status !== 'fail'), rows };
}

const MARKS: Readonly<Record<Status, string>> = { ok: 'ok  ', warn: 'warn', fail: 'FAIL' };

/** Formats the report as lines: status, name and finding, followed by advice. */
export function formatReport(report: Report): string {
  const width = Math.max(...report.rows.map(({ name }) => name.length));
  const lines = report.rows.flatMap(({ name, status, value, advice }) => {
    const indent = ' '.repeat(MARKS[status].length + width + 4);
    const [first = '', ...rest] = value.split('\n');
    return [
      `${MARKS[status]}  ${name.padEnd(width)}  ${first}`,
      ...rest.map((line) => indent + line),
      ...(advice === undefined ? [] : [`${indent}→ ${advice}`]),
    ];
  });
  return `${lines.join('\n')}\n`;
}

interface Attempt<T> {
  readonly value?: T | undefined;
  readonly error?: string;
}

function attempt<T>(make: () => T): Attempt<T> {
  try {
    return { value: make() };
  } catch (error) {
    return { error: messageOf(error) };
  }
}

function row(name: string, status: Status, value: string, advice: string): DiagnosisRow {
  return status === 'ok' ? { name, status, value } : { name, status, value, advice };
}

function nodeRow(): DiagnosisRow {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const fits = (major === 20 && minor >= 19) || (major === 22 && minor >= 12) || major >= 24;
  return row('Node', fits ? 'ok' : 'warn', process.version, 'Tested are Node 20.19, 22.12 and 24, or later of each.');
}

/** One row if all packages are present, else one for each missing package. */
function packageRows(): DiagnosisRow[] {
  const problems = packageProblems();
  if (problems.length === 0) return [row('packages', 'ok', 'all that package.json names', '')];
  return problems.map(({ name, found, command }) => row(name, 'fail', found, `Run \`${command}\` in your project.`));
}

/** A program that set-up calls; it is not needed any more after set-up. */
function toolRow(name: string, version: string | undefined, done: boolean, advice: string): DiagnosisRow {
  const missing = done ? 'warn' : 'fail';
  return row(name, version === undefined ? missing : 'ok', version ?? 'not found', advice);
}

function npmRow(fetched: boolean): DiagnosisRow {
  const [npm, ...args] = findNpm() ?? [];
  const version = npm && versionLine(npm, [...args, '--version']);
  return toolRow(
    'npm',
    version,
    fetched,
    'Install npm, which comes with Node (`apt install npm`): set-up fetches the engine with it.',
  );
}

function pipRow(fetched: boolean): DiagnosisRow {
  const [python, ...args] = attempt(() => findPip()).value ?? [];
  const version = python && versionLine(python, [...args, '--version']);
  const advice = 'Install Python with pip (`apt install python3-pip`): set-up fetches TensorFlow with it.';
  return toolRow('pip', version, fetched, advice);
}

function compilerRows(built: boolean): DiagnosisRow[] {
  const [compiler, cmake] = [findCompiler(), findProgram(['cmake'])];
  const install = 'Install GCC ≥ 11 or Clang ≥ 13 (`apt install g++ make`), or name it in CXX.';
  const problem = compiler && compilerProblem(compiler);
  const compilerRow = problem
    ? row('compiler', built ? 'warn' : 'fail', `${compiler}: ${problem}`, install)
    : toolRow('compiler', compiler && versionLine(compiler), built, install);
  return [
    compilerRow,
    toolRow('CMake', cmake && versionLine(cmake), built, 'Install CMake ≥ 3.16 (`apt install cmake`).'),
  ];
}

/** Only video files need it. */
function ffmpegRow(): DiagnosisRow {
  const [ffmpeg, ffprobe] = [findProgram(['ffmpeg']), findProgram(['ffprobe'])];
  const version = ffmpeg && ffprobe && versionLine(ffmpeg, ['-version'])?.replace(/ Copyright.*/, '');
  return toolRow('ffmpeg', version, true, 'Video files need it: install FFmpeg (`apt install ffmpeg`).');
}

/** Whether there is a libtensorflow for this system. */
function systemRow(fetched: boolean): DiagnosisRow {
  const glibc = glibcVersion();
  const value = `${process.platform} ${process.arch}, ${glibc ? `glibc ${glibc}` : 'not glibc'}`;
  const { error } = attempt(() => wheelFor());
  return row('system', error === undefined || fetched ? 'ok' : 'fail', value, error ?? '');
}

function processorRow(): DiagnosisRow {
  const found = processor();
  const { model, arch, features } = found;
  const level = attempt(() => isaLevel(found));
  const asked = process.env.SPARSEVILA_ISA ? ', as SPARSEVILA_ISA asks' : '';
  const text = `${model} (${arch}): ${features.join(' ') || 'no vector extensions known to us'}`;
  if (level.value === undefined) return row('processor', 'fail', text, `${level.error}`);
  return row('processor', 'ok', `${text}\nkernels use: ${level.value}${asked}`, '');
}

function coresRow(): DiagnosisRow {
  const quota = cpuQuota();
  const { error } = attempt(() => checkThreadCounts());
  const text = `${cores()}${quota === undefined ? '' : ` (the container's quota is ${quota.toFixed(1)})`}`;
  return row('cores', error === undefined ? 'ok' : 'fail', text, error ?? '');
}

function memoryRow(): DiagnosisRow {
  const bytes = memoryBytes();
  const advice = 'The demo needs 1 GB, an 8B model in 4 bits about 8 GB.';
  return row('memory', bytes < 4e9 ? 'warn' : 'ok', `${(bytes / 1e9).toFixed(1)} GB`, advice);
}

function cacheRow(): DiagnosisRow {
  const packed = join(cacheFolder(), 'packed');
  const { value: bytes = 0 } = attempt(() =>
    filesBelow(packed).reduce((sum, file) => sum + statSync(join(packed, file)).size, 0),
  );
  const weights = bytes === 0 ? '' : `\npacked weights: ${(bytes / 1e9).toFixed(1)} GB (\`sparsevila cache\`)`;
  return row('cache', 'ok', `${cacheFolder()}${weights}`, '');
}

function engineRow(engine: string | undefined): DiagnosisRow {
  const name = `${ENGINE_PACKAGE} ${ENGINE_VERSION}`;
  return row('engine', engine === undefined ? 'fail' : 'ok', engine ? `${name} in ${engine}` : 'not there yet', SETUP);
}

function libtensorflowRow({ value, error }: Attempt<Libtensorflow | undefined>): DiagnosisRow {
  if (value === undefined) return row('libtensorflow', 'fail', error ? 'not usable' : 'not there yet', error ?? SETUP);
  const bytes = LIBRARIES.reduce(
    (sum, name) => sum + (statSync(join(value.lib, name), { throwIfNoEntry: false })?.size ?? 0),
    0,
  );
  const source =
    value.source === 'wheel' ? `${TENSORFLOW_VERSION} from the wheel` : 'given by SPARSEVILA_LIBTENSORFLOW';
  return row('libtensorflow', 'ok', `${source}, ${Math.round(bytes / 1e6)} MB in ${value.lib}`, '');
}

function nativeRow({ value, error }: Attempt<NativeModules | undefined>): DiagnosisRow {
  const found = value?.folder ?? (error ? 'not found' : 'not compiled for the present sources');
  return row('native modules', value ? 'ok' : 'fail', found, error ?? SETUP);
}

/** TensorFlow, and the device that it uses. */
function backendRows(installed: boolean, facts: GpuFacts): DiagnosisRow[] {
  if (!installed) return [row('TensorFlow', 'fail', 'not started: set-up is not complete', SETUP)];
  const probe = runProbe();
  if (!probe.ok) {
    const advice =
      'If the message says nothing to do, remove the cache folder and run `npx sparsevila setup`; then report this.';
    return [row('TensorFlow', 'fail', probe.message, advice)];
  }
  const value = `${probe.tensorflow}, tfjs ${probe.tfjs}, device ${probe.device}; 40 + 2 = 42`;
  return [row('TensorFlow', 'ok', value, ''), deviceRow(probe, facts)];
}

function deviceRow({ device, deviceReport }: Extract<Probe, { ok: true }>, facts: GpuFacts): DiagnosisRow {
  if (device === 'GPU') return row('device', 'ok', `GPU: ${formatDevices(deviceReport)}`, '');
  const { why, advice } = cpuReason(requestedDevice(), facts, deviceReport);
  return row('device', advice === undefined ? 'ok' : 'warn', `CPU: ${why}`, advice ?? '');
}

function gpuRows(facts: GpuFacts): DiagnosisRow[] {
  return [driverRow(facts.nvidia), hardwareRow(facts.nvidia), cudaRow(), libraryRow(facts)];
}

function driverRow({ driver, version, devices }: Nvidia): DiagnosisRow {
  if (driver === undefined) return row('NVIDIA driver', 'ok', 'none (no libcuda.so.1)', '');
  const idle = devices.length === 0 ? ', but no device for it' : '';
  return row('NVIDIA driver', 'ok', `${version ?? 'version unknown'}, ${driver}${idle}`, '');
}

function hardwareRow({ gpus, devices }: Nvidia): DiagnosisRow {
  const listed = gpus.map(
    ({ name, memoryBytes: bytes, capability }) =>
      `${name}, ${(bytes / 1e9).toFixed(0)} GB, compute capability ${capability}`,
  );
  const unnamed = devices.length === 0 ? 'none' : `${devices.join(', ')} (nvidia-smi does not say which)`;
  return row('GPUs', 'ok', listed.join('\n') || unnamed, '');
}

function cudaRow(): DiagnosisRow {
  const cuda = findCuda();
  const tooOld = installedCuda().filter(({ version }) => !isRecentCuda(version));
  const passed = tooOld.map(({ nvcc, version }) => `\nnot used: ${nvcc} is CUDA ${version}, older than 12.4`).join('');
  const found =
    cuda === undefined
      ? `not found; set-up fetches CUDA ${CUDA_VERSION} from PyPI when it builds the GPU library`
      : `CUDA ${cuda.version} from ${cuda.source}, ${cuda.nvcc}`;
  return row('CUDA compiler', 'ok', found + passed, '');
}

function libraryRow({ nvidia, library, failure, cuda }: GpuFacts): DiagnosisRow {
  if (library) return row('GPU library', 'ok', `${library.path} (CUDA ${library.cuda})`, '');
  if (failure) return row('GPU library', 'warn', `could not be built: ${failure.message}`, FIX_HINT);
  // The row `device` reports what keeps the machine from using it.
  return unsupportedReason(nvidia, cuda)
    ? row('GPU library', 'ok', 'not built', '')
    : row('GPU library', 'warn', 'not built', SETUP);
}

function runProbe(): Probe {
  const program = join(__dirname, 'probe.js');
  const child = spawnSync(process.execPath, [program], { encoding: 'utf8', timeout: PROBE_TIMEOUT_MS });
  const last = child.stdout?.trim().split('\n').at(-1) ?? '';
  if (child.status === 0 && last.startsWith('{')) return JSON.parse(last) as Probe;
  const how = child.error
    ? messageOf(child.error)
    : child.signal
      ? `signal ${child.signal}`
      : `exit code ${child.status}`;
  const words = (child.stderr ?? '').trim().split('\n').slice(-5).join('\n');
  return { ok: false, message: `it ended with ${how}${words ? `:\n${words}` : ''}` };
}
