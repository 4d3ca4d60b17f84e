// Checks of a device before anything is computed on it: bits survive copies to it and back, ops run in order, memory
// is freed; and the cost of calls and copies. `node dist/scripts/gpu/device_checks.js`, on the device that SPARSEVILA_DEVICE selects.
// The last line is JSON; exit code 1 if a check fails. Knows none of our ops.

import { type Runtime, start } from '../../src/runtime/start';
import type { Tensor } from '../../src/runtime/tensor';
import { medianTime, time } from '../bench/timing';

const SIZES = [1, 3, 1000, 65_537, 4_194_305];
const COPIED = 16_777_216; // floats: 64 MiB
const STEPS = 300;

interface Check {
  readonly name: string;
  readonly ok: boolean;
  readonly what: string;
}

/** Any bits: numbers of all sizes, infinities, NaNs with payloads, both zeros. */
function anyBits(length: number): Float32Array {
  const bits = new Uint32Array(length);
  let state = 2463534242;
  for (let i = 0; i < length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bits[i] = state;
  }
  bits.set([0x7fc01234, 0x80000000, 0xff800000].slice(0, length));
  return new Float32Array(bits.buffer);
}

const sameBits = (a: Float32Array, b: Float32Array) => Buffer.from(a.buffer).equals(Buffer.from(b.slice().buffer));

/** What `make` computes, read; it is not returned through tf.tidy, which would walk through all its numbers as keys. */
function read(make: () => Tensor): Float32Array {
  const x = make();
  const values = x.dataSync() as Float32Array;
  x.dispose();
  return values;
}

/** Copies to the device and back; on the device it is copied once, so that the result cannot be the host's own memory. */
function roundTrips({ tf, backend }: Runtime): Check[] {
  const attrs = [{ name: 'T', type: backend.binding.TF_ATTR_TYPE, value: backend.binding.TF_FLOAT }];
  return SIZES.map((length) => {
    const sent = anyBits(length);
    const come = read(() => tf.tidy(() => backend.executeSingleOutput('Identity', attrs, [tf.tensor1d(sent)])));
    return { name: `round trip of ${length}`, ok: sameBits(sent, come), what: 'bits survive' };
  });
}

/** Each result is the next one's input, and used tensors are freed at once so that their memory is reused. */
function order({ tf }: Runtime): Check {
  let x: Tensor = tf.zeros([1021]);
  for (let i = 1; i <= STEPS; i++) {
    const next = tf.tidy(() => tf.add(tf.mul(x, 0.5), i));
    x.dispose();
    x = next;
  }
  let expected = 0;
  for (let i = 1; i <= STEPS; i++) expected = Math.fround(Math.fround(expected * 0.5) + i);
  const values = x.dataSync();
  x.dispose();
  const wrong = values.findIndex((value) => value !== expected);
  const what = wrong < 0 ? `${STEPS} steps in order` : `expected ${expected}, received ${values[wrong]} at ${wrong}`;
  return { name: 'order', ok: wrong < 0, what };
}

function costs({ tf }: Runtime): Record<string, number> {
  const small = tf.zeros([256]);
  const call = medianTime(() => tf.add(small, small).dispose());
  const answer = medianTime(() => {
    const sum = tf.add(small, small);
    sum.dataSync();
    sum.dispose();
  });
  const floats = anyBits(COPIED);
  const ways = [0, 1, 2].map(() => {
    const x = tf.tensor1d(floats);
    // A tensor goes to the device when it is first used; the one element that is read waits for all of it.
    const there = time(() => read(() => tf.slice(x, [COPIED - 1], [1])));
    const back = time(() => read(() => tf.reshape(x, [2, COPIED / 2])));
    x.dispose();
    return { there, back };
  });
  small.dispose();
  const gigabytes = (microseconds: number) => (COPIED * 4) / microseconds / 1e3;
  return {
    callMicroseconds: call,
    callAndReadMicroseconds: answer,
    toDeviceGBs: gigabytes(Math.min(...ways.map(({ there }) => there))),
    toHostGBs: gigabytes(Math.min(...ways.map(({ back }) => back))),
  };
}

function main(): void {
  const runtime = start();
  const before = runtime.tf.memory().numTensors;
  const checks = [...roundTrips(runtime), order(runtime)];
  const measured = costs(runtime);
  const left = runtime.tf.memory().numTensors - before;
  checks.push({ name: 'tensors', ok: left === 0, what: `${left} left over` });
  for (const { name, ok, what } of checks) process.stdout.write(`${ok ? 'ok  ' : 'FAIL'}  ${name}: ${what}\n`);
  for (const [name, value] of Object.entries(measured)) process.stdout.write(`      ${name}: ${value.toFixed(2)}\n`);
  const { device, deviceReport } = runtime;
  process.stdout.write(`${JSON.stringify({ device, deviceReport, checks, ...measured })}\n`);
  if (checks.some(({ ok }) => !ok)) process.exitCode = 1;
}

main();
