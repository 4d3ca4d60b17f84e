// `bench ops`: the big cases of the op table, each checked against its reference and then timed against the limit that the machine's
// bandwidth and peak set.

import type { CommandModule } from 'yargs';
import { COLD_BYTES, type OpCase } from '../../testing/ops/cases/case';
import { OP_CASES, titleOf } from '../../testing/ops/cases/index';
import { TOLERANCES, within } from '../../testing/ops/tolerance';
import { describeMachine, limitOf, type Machine, spreadPeaks } from './machine';
import { medianTime } from './timing';

interface Options {
  filter: string | undefined;
  json: boolean;
  small: boolean;
  check: boolean;
}

interface Measured {
  readonly item: OpCase;
  readonly us: number;
  readonly bytes: number;
  readonly flops: number;
}

/** A row of the last line: `limit` in microseconds; `share` = limit / us, which exceeds 1 where a peak was measured too low. */
interface Row {
  readonly op: string;
  readonly case: string;
  readonly dtype: string;
  readonly us: number;
  readonly limit: number;
  readonly share: number;
}

export const OPS: CommandModule<object, Options> = {
  command: 'ops',
  describe: 'Time of every op, as a share of what this machine can do',
  builder: (yargs) =>
    yargs
      .option('filter', { type: 'string', describe: 'Only cases whose title contains this text' })
      .option('json', { type: 'boolean', default: false, describe: 'Print the JSON line only' })
      .option('small', { type: 'boolean', default: false, describe: "The specs' small cases too" })
      .option('check', { type: 'boolean', default: true, describe: 'Check each case first (--no-check: do not)' })
      .example('$0 ops', 'all big cases')
      .example('$0 ops --filter decoderLayer', 'one op')
      .example('SPARSEVILA_ISA=avx2 SPARSEVILA_THREADS=1 $0 ops --json', 'another level, one thread, for a program'),
  handler: (options) => benchOps(options),
};

function benchOps({ filter = '', json, small, check }: Options): void {
  const say = (text: string) => void (json || process.stdout.write(`${text}\n`));
  const items = OP_CASES.filter((item) => (item.big || small) && titleOf(item).includes(filter));
  if (items.length === 0)
    throw new Error(`Expected a part of a case's title for --filter but no case has '${filter}'.`);
  const peaks = spreadPeaks();
  say(describeMachine(peaks.best()));
  say(`cold       memory-bound cases take turns with ${COLD_BYTES / 2 ** 20} MB of weights or cache\n`);
  say(line('case', 'us', 'GB/s', 'GOP/s', 'limit', 'share'));
  const measured: Measured[] = [];
  for (const item of items) {
    const result = measure(item, check);
    measured.push(result);
    peaks.tryAgain();
    say(describe(result, peaks.best()));
  }
  peaks.tryAgain(0);
  const machine = peaks.best();
  say(`\nbest of ${peaks.tries()} tries of each peak\n${describeMachine(machine)}`);
  const beyond = measured.filter((result) => limit(result, machine) > result.us).map(({ item }) => titleOf(item));
  if (beyond.length > 0) say(`faster than the peaks measured here: ${beyond.join(', ')}`);
  process.stdout.write(`${JSON.stringify({ machine, rows: measured.map((result) => rowOf(result, machine)) })}\n`);
}

function measure(item: OpCase, check: boolean): Measured {
  const prepared = item.prepare();
  try {
    if (check)
      for (const { output, error } of prepared.check())
        if (!within(error, item.tolerance)) {
          const allowed = `${item.tolerance} (${TOLERANCES[item.tolerance]})`;
          throw new Error(
            `${titleOf(item)}: ${output} has NMSE ${error}, not within ${allowed}. A fast wrong answer counts not.`,
          );
        }
    const us = medianTime(() => {
      for (const output of prepared.run()) output.dispose();
    });
    return { item, us, bytes: prepared.bytes, flops: prepared.flops };
  } finally {
    prepared.dispose();
  }
}

function limit({ item, bytes, flops }: Measured, machine: Machine): number {
  // Exact 4-bit products multiply two planes of activations.
  if (item.dtype === 'int4') return limitOf(machine, { bytes, flops: 2 * flops, in: 'int8' });
  if (item.dtype === 'int4 fast' || item.dtype === 'int8') return limitOf(machine, { bytes, flops, in: 'int8' });
  return limitOf(machine, { bytes, flops, in: item.dtype === 'bf16 dot' ? 'bf16' : 'f32' });
}

function rowOf(result: Measured, machine: Machine): Row {
  const least = limit(result, machine);
  const { op, name, dtype } = result.item;
  return { op, case: name, dtype, us: result.us, limit: least, share: least / result.us };
}

function describe(result: Measured, machine: Machine): string {
  const { item, us, bytes, flops } = result;
  const least = limit(result, machine);
  const rate = (amount: number) => (amount === 0 ? '-' : (amount / us / 1e3).toFixed(1));
  return line(
    titleOf(item),
    us.toFixed(1),
    rate(bytes),
    rate(flops),
    least.toFixed(1),
    `${((100 * least) / us).toFixed(0)} %`,
  );
}

function line(title: string, ...numbers: readonly string[]): string {
  return title.padEnd(82) + numbers.map((text) => text.padStart(10)).join('');
}
