// `bench dispatch`: the overhead of calling a decoder layer from JavaScript: the whole call on a tiny layer,
// disposal of its outputs included, as a decode loop makes it. The bar is 25 microseconds.

import type { CommandModule } from 'yargs';
import { decoderLayers } from '../../src/ops/decoder_layer';
import { rmsNorm } from '../../src/ops/norm';
import { ropeTable } from '../../src/ops/rope';
import { float32, int32 } from '../../src/ops/run';
import { start } from '../../src/runtime/start';
import type { Tensor } from '../../src/runtime/tensor';
import { keeper } from '../../testing/ops/cases/case';
import {
  type DecoderLayerSizes,
  decoderLayerData,
  decoderLayerWeights,
  weightTensors,
} from '../../testing/ops/cases/decoder_layer';
import { filledCache } from '../../testing/ops/cases/kv_cache';
import { inverseFrequencies } from '../../testing/ops/cases/rope';
import { median, time } from './timing';

const BAR = 16;
const LAYERS = 24;
const TOKENS = 20;

const TINY: DecoderLayerSizes = {
  ...{ t: 1, d: 16, heads: 2, kvHeads: 1, c: 8, ffn: 16, length: 5, tail: 0, listed: 0 },
  ...{ type: 'f32', kvType: 'bf16' },
};

interface Options {
  rounds: number;
  json: boolean;
}

export const DISPATCH: CommandModule<object, Options> = {
  command: 'dispatch',
  describe: `Microseconds of a decoder layer's call on a tiny layer (the bar: ${BAR})`,
  builder: (yargs) =>
    yargs
      .option('rounds', { type: 'number', default: 60, describe: 'Interleaved rounds, of which the median counts' })
      .option('json', { type: 'boolean', default: false, describe: 'Print the JSON line only' })
      .example('$0 dispatch', '')
      .example('SPARSEVILA_THREADS=1 $0 dispatch', 'without the thread pool'),
  handler: (options) => benchDispatch(options),
};

/** The loops are interleaved, so that a slow moment of the machine affects all of them. */
function benchDispatch({ rounds, json }: Options): void {
  if (!(rounds >= 1)) throw new Error(`Expected at least one round for --rounds but received ${rounds}.`);
  const keep = keeper();
  const loops = [
    { name: 'decoderLayers, a call per layer', body: decodeLoop(keep, 1) },
    { name: 'decoderLayers, all in one call', body: decodeLoop(keep, LAYERS) },
    { name: 'rmsNorm, 3 inputs, for comparison', body: normLoop(keep) },
  ].map((loop) => ({ ...loop, times: [] as number[] }));
  for (let round = 0; round < rounds + 5; round++)
    for (const { body, times } of loops) {
      const us = time(() => {
        for (let token = 0; token < TOKENS; token++) body();
      });
      if (round >= 5) times.push(us / TOKENS / LAYERS);
    }
  keep.dispose();
  const { native } = start();
  if (!json) process.stdout.write(`${native.isa()}, ${native.threads()} threads; microseconds per call, bar ${BAR}\n`);
  for (const { name, times } of loops) {
    const best = Math.min(...times).toFixed(1);
    if (!json) process.stdout.write(`${name.padEnd(36)} median ${median(times).toFixed(1)}, best ${best}\n`);
  }
  process.stdout.write(
    `${JSON.stringify({
      usPerDecoderLayer: median(loops[0]?.times ?? []),
      usPerDecoderLayerOfMany: median(loops[1]?.times ?? []),
    })}\n`,
  );
}

type Keeper = ReturnType<typeof keeper>;

/** One token through all layers, several per call: each has its own weights and cache, ranges are made once per token. */
function decodeLoop(keep: Keeper, perCall: number): () => void {
  const data = decoderLayerData(TINY);
  const layers = Array.from({ length: LAYERS }, (_, i) => {
    const weights = decoderLayerWeights(data, TINY, i);
    for (const tensor of weightTensors(weights)) keep.tensor(tensor);
    const cache = { kvHeads: TINY.kvHeads, c: TINY.c, type: TINY.kvType, spare: 1 };
    return { weights, kv: keep.tensor(filledCache(data.k, data.v, cache)) };
  });
  const input = keep.tensor(float32(data.x, [1, TINY.d]));
  const table = keep.tensor(ropeTable(data.positions, inverseFrequencies(TINY.c)));
  const rows = keep.tensor(int32([]));
  const segments = keep.tensor(int32([1]));
  return () => {
    const ranges = int32(layers.flatMap(() => [TINY.tail, TINY.length, 0]));
    let x = input;
    for (let at = 0; at < LAYERS; at += perCall) {
      const called = layers.slice(at, at + perCall);
      const cached = called.map(({ weights, kv }) => ({ weights, sequences: [{ kv, rows }] }));
      const [y, columns] = decoderLayers(x, table, { segments, ranges }, cached);
      columns.dispose();
      if (x !== input) x.dispose();
      x = y;
    }
    if (x !== input) x.dispose();
    ranges.dispose();
  };
}

function normLoop(keep: Keeper): () => void {
  const x: Tensor = keep.tensor(float32(new Float32Array(TINY.d).fill(1), [1, TINY.d]));
  const weight = keep.tensor(float32(new Float32Array(TINY.d).fill(1), [TINY.d]));
  const eps = keep.tensor(float32([1e-6], [1]));
  return () => {
    for (let i = 0; i < LAYERS; i++) rmsNorm(x, weight, eps).dispose();
  };
}
