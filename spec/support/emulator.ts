// Programs for 64-bit ARM on this machine: a cross-compiler and an emulator of processors without an operating system of their own.
// Debian's packages: apt-get install g++-aarch64-linux-gnu qemu-user-static.

import { spawnSync } from 'node:child_process';
import { findProgram } from '../../src/runtime/process';

/** Processors by what they have, as qemu calls them. */
export const ARM_PROCESSORS = { neon: 'cortex-a72', dotprod: 'neoverse-n1', bf16: 'max' } as const;

export interface ArmTools {
  readonly compiler: string;
  readonly nm: string;
  /** Runs a statically linked program on a processor; returns what it prints. Throws if it fails. */
  run(processor: string, program: string, args: readonly string[]): string;
}

/** Undefined, with a word on stderr, where one of the programs is missing. */
export function findArmTools(): ArmTools | undefined {
  const compiler = findProgram(['aarch64-linux-gnu-g++']);
  const nm = findProgram(['aarch64-linux-gnu-nm']);
  const qemu = findProgram(['qemu-aarch64-static', 'qemu-aarch64']);
  if (compiler === undefined || nm === undefined || qemu === undefined) {
    process.stderr.write(
      'Tests of ARM kernels are skipped: apt-get install g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static\n',
    );
    return undefined;
  }
  const run = (processor: string, program: string, args: readonly string[]): string => {
    const { status, signal, stdout, stderr } = spawnSync(qemu, ['-cpu', processor, program, ...args], {
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    });
    if (status !== 0)
      throw new Error(`${args.join(' ')} on ${processor} ended with ${signal ?? status}.\n${stdout}${stderr}`);
    return stdout;
  };
  return { compiler, nm, run };
}
