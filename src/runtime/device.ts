// Decides which device TensorFlow runs on, and the reason for not using the GPU, from facts about the machine and SPARSEVILA_DEVICE. Changes
// nothing and loads nothing.

import { SparseVilaError } from '../errors';
import { CUDA_VERSION, findCuda } from './cuda';
import { type DeviceLibrary, findDeviceLibrary, type GpuFailure, gpuFailure } from './device_library';
import type { Libtensorflow } from './libtensorflow';
import { type Nvidia, nvidia } from './nvidia';
import type { Environment } from './paths';

/** `auto`: the GPU if it can be used, else the CPU. `standin`: the GPU's stand-in on a processor, for tests. */
export const DEVICES = ['auto', 'cpu', 'gpu', 'standin'] as const;
export type DeviceRequest = (typeof DEVICES)[number];

/** The value of SPARSEVILA_DEVICE. @throws SparseVilaError `ERR_BAD_DEVICE` */
export function requestedDevice(env: Environment = process.env): DeviceRequest {
  const asked = env.SPARSEVILA_DEVICE || 'auto';
  const requested = DEVICES.find((name) => name === asked);
  if (requested !== undefined) return requested;
  throw new SparseVilaError(
    'ERR_BAD_DEVICE',
    `Expected one of ${DEVICES.join(', ')} for SPARSEVILA_DEVICE but received '${asked}'. Unset it for auto.`,
  );
}

const SETUP = 'Run `npx sparsevila setup`.';
/** Advice after a failed build. */
export const FIX_HINT =
  'Fix what the row `GPU library` of `npx sparsevila doctor` says, then run `npx sparsevila setup --gpu`.';

/** Why the GPU is not used. */
export interface Reason {
  readonly why: string;
  /** Advice; undefined if nothing is wrong: a machine without a GPU, or a user who selected the CPU. */
  readonly advice?: string;
}

/** The oldest GPU that the library has code for, and the oldest driver for each version of CUDA. */
const OLDEST_CAPABILITY = 8.0;
const OLDEST_DRIVER: Readonly<Record<number, string>> = { 12: '525.60.13', 13: '580.65.06' };

/** Why this machine's hardware or driver cannot run a library built with a version of CUDA; undefined if it can. */
export function unsupportedReason({ devices, driver, version, gpus }: Nvidia, cuda: string): Reason | undefined {
  if (devices.length === 0) {
    return { why: `no NVIDIA GPU (/dev/nvidia0)${driver ? '' : ' and no NVIDIA driver (libcuda.so.1)'}` };
  }
  if (driver === undefined) {
    return {
      why: `${devices.join(', ')}, but no NVIDIA driver (libcuda.so.1)`,
      advice: 'Install the driver, or start the container with the GPU (`docker run --gpus all`).',
    };
  }
  const major = Number.parseInt(cuda, 10);
  const needed = OLDEST_DRIVER[major];
  if (version !== undefined && needed !== undefined && isOlder(version, needed)) {
    const older = isOlder(version, OLDEST_DRIVER[12] ?? '')
      ? ''
      : ', or point CUDA_HOME to a CUDA 12.4 or later that is no CUDA 13 and run `npx sparsevila setup`';
    return {
      why: `the NVIDIA driver is too old for CUDA ${major}: found ${version}, need ${needed}`,
      advice: `Install driver ${needed} or later${older}.`,
    };
  }
  if (gpus.length > 0 && gpus.every(({ capability }) => Number(capability) < OLDEST_CAPABILITY)) {
    const found = gpus.map(({ name, capability }) => `${name} has ${capability}`).join(', ');
    return {
      why: `the GPU is older than compute capability 8.0 (sm_80): ${found}`,
      advice: 'Use an A100, RTX 30 or later; SPARSEVILA_DEVICE=cpu says that the CPU is meant.',
    };
  }
  return undefined;
}

function isOlder(version: string, than: string): boolean {
  const [a, b] = [version, than].map((text) => text.split('.').map(Number));
  const at = (b ?? []).findIndex((part, i) => part !== (a?.[i] ?? 0));
  return at >= 0 && (a?.[at] ?? 0) < (b?.[at] ?? 0);
}

/** The facts that decide whether the GPU can be used. */
export interface GpuFacts {
  readonly nvidia: Nvidia;
  /** The GPU's library, if it is built. */
  readonly library: DeviceLibrary | undefined;
  /** Why it could not be built. */
  readonly failure: GpuFailure | undefined;
  /** The CUDA that the library is or would be built with. */
  readonly cuda: string;
}

/** Examines the machine and the cache. Runs nvidia-smi and nvcc, so it is too slow for every start. */
export function gpuFacts(libtensorflow: Libtensorflow | undefined, env: Environment = process.env): GpuFacts {
  const library = libtensorflow && findDeviceLibrary('gpu', libtensorflow, env);
  return {
    nvidia: nvidia(env),
    library,
    failure: libtensorflow && gpuFailure(libtensorflow, env),
    cuda: library?.cuda ?? findCuda(env)?.version ?? CUDA_VERSION,
  };
}

/** The built library of a requested device; undefined when there is none. */
export function requestedLibrary(
  requested: DeviceRequest,
  libtensorflow: Libtensorflow,
  env: Environment = process.env,
): DeviceLibrary | undefined {
  if (requested === 'cpu') return undefined;
  return findDeviceLibrary(requested === 'standin' ? 'standin' : 'gpu', libtensorflow, env);
}

/** Why TensorFlow is on the CPU. `libraryReport` is the library's message when it was loaded; empty if it was not. */
export function cpuReason(requested: DeviceRequest, facts: GpuFacts, libraryReport: string): Reason {
  if (requested === 'cpu') return { why: 'SPARSEVILA_DEVICE=cpu' };
  if (requested === 'standin') {
    const advice = 'It is for the tests: `npm test` builds it.';
    return { why: libraryReport || 'the stand-in of the GPU is not built', advice };
  }
  const { nvidia, library, failure, cuda } = facts;
  const amiss = unsupportedReason(nvidia, cuda);
  if (amiss !== undefined) return amiss;
  if (library !== undefined) {
    return {
      why: libraryReport || 'the GPU library found no device',
      advice: 'See `nvidia-smi`, and CUDA_VISIBLE_DEVICES.',
    };
  }
  if (failure !== undefined) {
    const [first = ''] = failure.message.split('\n');
    return { why: `the GPU library could not be built: ${first}`, advice: FIX_HINT };
  }
  return { why: 'the GPU library is not built', advice: SETUP };
}

/** The devices in a library's report, one per line. A text that is not the library's JSON is returned unchanged. */
export function formatDevices(report: string): string {
  if (!report.startsWith('{')) return report;
  const { devices, runtime } = JSON.parse(report) as { devices: ReportedDevice[]; runtime: string };
  const line = ({ name, memory, capability }: ReportedDevice) =>
    `${name}, ${(memory / 1e9).toFixed(0)} GB, compute capability ${capability}, CUDA ${runtime}`;
  return devices.map(line).join('\n');
}

interface ReportedDevice {
  readonly name: string;
  readonly memory: number;
  readonly capability: string;
}

/** The error of a request that cannot be fulfilled. */
export function noDevice(requested: DeviceRequest, { why, advice }: Reason): SparseVilaError {
  return new SparseVilaError(
    'ERR_NO_GPU',
    `Expected a device for SPARSEVILA_DEVICE=${requested} but ${why}. ` +
      `${advice ?? 'Unset SPARSEVILA_DEVICE for whatever this machine has.'}`,
  );
}
