// The NVIDIA hardware and driver of this machine, found without TensorFlow and the GPU library: device files, the driver's library, and the
// output of nvidia-smi. Changes nothing.

import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Environment } from './paths';
import { findProgram } from './process';

export interface Gpu {
  readonly name: string;
  readonly memoryBytes: number;
  /** Compute capability, `9.0`. */
  readonly capability: string;
}

export interface Nvidia {
  /** Device files; WSL has one for all. */
  readonly devices: readonly string[];
  /** Path of the driver's libcuda, if found. */
  readonly driver: string | undefined;
  /** The driver's version, `580.65.06`; undefined if it is unknown. */
  readonly version: string | undefined;
  /** The GPUs that nvidia-smi lists; empty without nvidia-smi. */
  readonly gpus: readonly Gpu[];
}

const LIBRARY_FOLDERS = [
  ...['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib64', '/usr/lib', '/lib64'],
  ...['/usr/local/nvidia/lib64', '/usr/local/cuda/compat', '/usr/lib/wsl/lib', '/run/opengl-driver/lib'],
];
const SMI_FOLDERS = ['/usr/local/nvidia/bin', '/usr/lib/wsl/lib'];
const SMI_QUERY = ['--query-gpu=name,memory.total,compute_cap,driver_version', '--format=csv,noheader,nounits'];

/** Looks for NVIDIA devices and their driver. Runs nvidia-smi once if there are devices. */
export function nvidia(env: Environment = process.env): Nvidia {
  const devices = existsSync('/dev') ? readdirSync('/dev').filter((name) => /^(nvidia\d+|dxg)$/.test(name)) : [];
  const folders = [...(env.LD_LIBRARY_PATH ?? '').split(':').filter((folder) => folder !== ''), ...LIBRARY_FOLDERS];
  const driver = folders.map((folder) => join(folder, 'libcuda.so.1')).find((path) => existsSync(path));
  const smi = devices.length === 0 ? { gpus: [], version: undefined } : parseSmi(runSmi(env));
  return {
    devices: devices.map((name) => join('/dev', name)),
    driver,
    gpus: smi.gpus,
    version: smi.version ?? (driver && driverVersion(read('/proc/driver/nvidia/version'))),
  };
}

function runSmi(env: Environment): string {
  const smi = findProgram(['nvidia-smi', ...SMI_FOLDERS.map((folder) => join(folder, 'nvidia-smi'))], env);
  if (smi === undefined) return '';
  return spawnSync(smi, SMI_QUERY, { encoding: 'utf8', timeout: 30_000 }).stdout ?? '';
}

/** Parses nvidia-smi's table. Lines that are not rows of it (errors, unknown fields) are skipped. */
export function parseSmi(text: string): Pick<Nvidia, 'gpus' | 'version'> {
  const rows = text
    .split('\n')
    .map((line) => /^(.+), (\d+), (\d+\.\d+), (\d+[.\d]*)$/.exec(line.trim()))
    .flatMap((match) => (match ? [match] : []));
  const gpus = rows.map(([, name = '', mebibytes, capability = '']) => {
    return { name, memoryBytes: Number(mebibytes) * 2 ** 20, capability };
  });
  return { gpus, version: rows[0]?.[4] };
}

/** The driver's version out of /proc/driver/nvidia/version. */
export function driverVersion(text: string): string | undefined {
  return /^NVRM version:.*?\s(\d{3}\.\d+(?:\.\d+)?)\s/m.exec(text)?.[1];
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
