// Properties of this machine: processor and its features, and the cores and memory that the process may use. Reads /proc and /sys on Linux,
// asks sysctl on macOS; elsewhere uses what Node reports. Changes nothing.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { received, SparseVilaError } from '../errors';
import type { Environment } from './paths';

/** Instruction sets in ascending order of preference: those of x86-64, then those of ARM. */
export const ISA_LEVELS = [
  'portable',
  'avx2',
  'avx512',
  'avx512bf16',
  'avx512amx',
  'neon',
  'dotprod',
  'i8mm',
  'bf16',
] as const;
export type IsaLevel = (typeof ISA_LEVELS)[number];

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}

/** The number of cores that the container's quota allows; undefined without a quota. */
export function cpuQuota(readFile: (path: string) => string | undefined = read): number | undefined {
  const [limit, period] = (readFile('/sys/fs/cgroup/cpu.max') ?? '').split(' ').map(Number);
  if (limit !== undefined && period !== undefined && limit > 0 && period > 0) return limit / period;
  const v1 = ['quota', 'period'].map((name) => Number(readFile(`/sys/fs/cgroup/cpu/cpu.cfs_${name}_us`) ?? Number.NaN));
  const [quota = Number.NaN, v1Period = Number.NaN] = v1;
  return quota > 0 && v1Period > 0 ? quota / v1Period : undefined;
}

/** The number of threads that can run at once: cores of the process within the container's quota, at least 1. */
export function cores(): number {
  return Math.max(1, Math.min(availableParallelism(), Math.ceil(cpuQuota() ?? Number.POSITIVE_INFINITY)));
}

/** The version of glibc, such as 2.36; undefined on systems with another C library (Alpine Linux has musl). */
export function glibcVersion(): string | undefined {
  return (process.report.getReport() as unknown as { readonly header: { readonly glibcVersionRuntime?: string } })
    .header.glibcVersionRuntime;
}

/** Bytes of memory that the process may use: the machine's, or the container's limit if that is less. */
export function memoryBytes(): number {
  const limits = ['/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes'].map((path) =>
    Number(read(path)),
  );
  return Math.min(totalmem(), ...limits.filter((limit) => limit > 0));
}

/** Variables that TensorFlow reads when its library is loaded, and their defaults here. */
export function tensorflowDefaults(): Readonly<Record<string, string>> {
  return {
    TF_CPP_MIN_LOG_LEVEL: '3',
    TF_NUM_INTRAOP_THREADS: String(cores()),
    // Ops come one at a time from the JavaScript thread, so none run concurrently.
    TF_NUM_INTEROP_THREADS: '1',
  };
}

/** Maximum number of threads of the kernels' pool, `kMaxThreads` of native/kernels/pool.cc. */
const MOST_KERNEL_THREADS = 256;
/** TensorFlow creates as many threads as requested, at once, and aborts the process if it cannot. */
const MOST_TENSORFLOW_THREADS = 1024;

/**
 * Checks the variables for numbers of threads. An empty one counts as absent; 0 lets TensorFlow choose.
 * @throws SparseVilaError `ERR_BAD_THREADS`: the native code would use another number, or abort the process
 */
export function checkThreadCounts(env: Environment = process.env): void {
  const ranges: readonly [string, number, number][] = [
    ['SPARSEVILA_THREADS', 1, MOST_KERNEL_THREADS],
    ['TF_NUM_INTRAOP_THREADS', 0, MOST_TENSORFLOW_THREADS],
    ['TF_NUM_INTEROP_THREADS', 0, MOST_TENSORFLOW_THREADS],
  ];
  for (const [name, least, most] of ranges) {
    const asked = env[name];
    if (!asked || (/^\d{1,9}$/.test(asked) && Number(asked) >= least && Number(asked) <= most)) continue;
    throw new SparseVilaError(
      'ERR_BAD_THREADS',
      `Expected an integer from ${least} to ${most} for ${name} but received ${received(asked)}. Unset it for the best.`,
    );
  }
}

export interface Processor {
  readonly model: string;
  readonly arch: string;
  /** Of the features our kernels use, those this processor has. */
  /** 'GenuineIntel', 'AuthenticAMD', …; undefined where the kernel does not say. */
  readonly vendor: string | undefined;
  readonly features: readonly string[];
}

const USED_FEATURES = [
  'avx2',
  'fma',
  'f16c',
  'avx512f',
  'avx512bw',
  'avx512dq',
  'avx512vl',
  'avx512_vnni',
  'avx512_bf16',
  'amx_tile',
  'amx_int8',
  'amx_bf16',
  'asimd',
  'asimddp',
  'i8mm',
  'bf16',
];

/** What macOS calls the features of ARM's processors, and Linux. */
const APPLE_FEATURES: readonly (readonly [string, string])[] = [
  ['FEAT_DotProd', 'asimddp'],
  ['FEAT_I8MM', 'i8mm'],
  ['FEAT_BF16', 'bf16'],
];

/** The features of Apple's ARM processors by Linux's names. `text` is what `sysctl hw.optional.arm` prints. */
export function appleFeatures(text: string): string[] {
  const has = (name: string): boolean => new RegExp(`^hw\\.optional\\.arm\\.${name}: 1$`, 'm').test(text);
  return ['asimd', ...APPLE_FEATURES.filter(([apple]) => has(apple)).map(([, linux]) => linux)];
}

/** The text of /proc/cpuinfo, or what says the same elsewhere. */
function cpuInfo(): string {
  const text = read('/proc/cpuinfo');
  if (text !== undefined || process.platform !== 'darwin' || process.arch !== 'arm64') return text ?? '';
  const { stdout } = spawnSync('/usr/sbin/sysctl', ['hw.optional.arm'], { encoding: 'utf8', timeout: 10_000 });
  return `Features : ${appleFeatures(stdout ?? '').join(' ')}`;
}

export function processor(cpuinfo: string = cpuInfo()): Processor {
  const flags = new Set((/^(?:flags|Features)\s*:(.*)$/m.exec(cpuinfo)?.[1] ?? '').trim().split(/\s+/));
  return {
    model: /^model name\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? cpus()[0]?.model ?? 'unknown',
    arch: process.arch,
    vendor: /^vendor_id\s*:\s*(.*)$/m.exec(cpuinfo)?.[1],
    features: USED_FEATURES.filter((name) => flags.has(name)),
  };
}

/** The levels that a processor has. Each has those before it, except that a processor is x86-64 or ARM. */
function levelsOf(features: readonly string[]): IsaLevel[] {
  const has = (...names: string[]) => names.every((name) => features.includes(name));
  const needs: readonly (readonly [IsaLevel, boolean])[] = has('asimd')
    ? [
        ['neon', true],
        ['dotprod', has('asimddp')],
        ['i8mm', has('i8mm')],
        ['bf16', has('bf16')],
      ]
    : [
        ['avx2', has('avx2', 'fma', 'f16c')],
        ['avx512', has('avx512f', 'avx512bw', 'avx512dq', 'avx512vl')],
        ['avx512bf16', has('avx512_bf16')],
        ['avx512amx', has('avx512_vnni', 'amx_tile', 'amx_int8', 'amx_bf16')],
      ];
  const first = needs.findIndex(([, present]) => !present);
  return ['portable', ...needs.slice(0, first < 0 ? needs.length : first).map(([level]) => level)];
}

/**
 * The instruction-set level of the kernels: the best of the processor, or `SPARSEVILA_ISA`. The bf16 dot product is the default only on AMD's
 * processors, as in native/kernels/dispatch.cc.
 * Throws `ERR_BAD_ISA` for an unknown level, or one that the processor lacks.
 */
export function isaLevel(
  { features, vendor }: Pick<Processor, 'features' | 'vendor'>,
  env: Environment = process.env,
): IsaLevel {
  const possible = levelsOf(features);
  const top = possible.at(-1) ?? 'portable';
  const asked = env.SPARSEVILA_ISA;
  if (!asked) return top === 'avx512bf16' && vendor !== 'AuthenticAMD' ? 'avx512' : top;
  const level = possible.find((name) => name === asked);
  if (level !== undefined) return level;
  throw new SparseVilaError(
    'ERR_BAD_ISA',
    `Expected one of ${possible.join(', ')} for SPARSEVILA_ISA on this processor but received '${asked}'. Unset it for the best.`,
  );
}
