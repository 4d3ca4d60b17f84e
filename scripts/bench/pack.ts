// `bench pack`: the speed of repacking 4-bit matrices of each file format into the kernels' form, which takes most of the time of
// loading a quantized checkpoint. Rates are of packed bytes, with random nibbles and scales in memory.

import type { CommandModule } from 'yargs';
import { type Int4Format, packInt4 } from '../../src/ops/weights';
import { start } from '../../src/runtime/start';
import { medianTime } from './timing';

const FORMATS: readonly Int4Format[] = ['awq-gemm', 'awq-gemv', 'awq-gemv-fast', 'pack-quantized', 'gptq'];
const GROUP = 128;

interface Options {
  rows: number;
  inputs: number;
}

export const PACK: CommandModule<object, Options> = {
  command: 'pack',
  describe: 'GB/s at which 4-bit checkpoint formats are repacked',
  builder: (yargs) =>
    yargs
      .option('rows', { type: 'number', default: 11008, describe: 'Outputs, a multiple of 16' })
      .option('inputs', { type: 'number', default: 4096, describe: `Inputs, a multiple of ${GROUP}` })
      .example('SPARSEVILA_THREADS=1 $0 pack', 'per core'),
  handler: benchPack,
};

function benchPack({ rows, inputs }: Options): void {
  if (rows % 16 !== 0 || inputs % GROUP !== 0)
    throw new Error('Expected rows of 16 and inputs of 128 times something.');
  const { native } = start();
  const words = Uint32Array.from({ length: (rows * inputs) / 8 }, (_, i) => Math.imul(i + 1, 0x9e3779b1));
  // Zero words are at least 8 scales wide in AutoAWQ's gemv layouts.
  const halves = new Uint16Array(rows * (inputs / GROUP + 8)).fill(0x2000);
  const [weight, scale] = [native.openMemory(words), native.openMemory(halves)];
  const rates: Record<string, number> = {};
  try {
    for (const format of FORMATS) {
      const place = (source: number) => ({ source, offset: 0 });
      const part = { rows, weight: place(weight), scales: place(scale), zeros: place(scale) };
      const layout = { format, k: inputs, group: GROUP, storedGroup: GROUP, scaleType: 'f16' as const };
      const us = medianTime(() => packInt4([part], layout).tensor.dispose());
      rates[format] = (rows * inputs) / 2 / us / 1e3;
      process.stdout.write(`${format.padEnd(16)} ${rates[format].toFixed(2)} GB/s\n`);
    }
  } finally {
    for (const source of [weight, scale]) native.release(source);
  }
  process.stdout.write(`${JSON.stringify({ threads: native.threads(), rows, inputs, packedGBs: rates })}\n`);
}
