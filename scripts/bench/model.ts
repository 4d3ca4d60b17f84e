// `bench model`: prefill, dense and sparse decoding at the shapes of real decoders, and a vision tile, with random weights.
// On the CPU each figure has its limit: bytes over measured bandwidth. A GPU's limit is measured by scripts/gpu/bench.py.

import type { CommandModule } from 'yargs';
import type { DecoderConfig } from '../../src/models/config';
import { type Decoder, decoder } from '../../src/models/decoder';
import type { KvCache } from '../../src/models/kv_cache';
import { squarePatches } from '../../src/models/patches';
import type { LayerView } from '../../src/models/segments';
import { buildTower } from '../../src/models/tower';
import { PLAIN_VIT } from '../../src/models/tower_config';
import { int32 } from '../../src/ops/run';
import { sample } from '../../src/ops/sample';
import type { Precision } from '../../src/ops/weights';
import { start } from '../../src/runtime/start';
import { type RandomFormat, randomWeights } from './random_weights';
import { median } from './timing';

/** hidden, layers, ffn, heads, kv heads, vocabulary. `tiny-0.39b` is Qwen2-0.5B with a 32k vocabulary. */
export const SHAPES = {
  'tiny-0.39b': [896, 24, 4864, 14, 2, 32000],
  'qwen2-0.5b': [896, 24, 4864, 14, 2, 151936],
  'qwen2-1.5b': [1536, 28, 8960, 12, 2, 151936],
  'qwen2-7b': [3584, 28, 18944, 28, 4, 152064],
} as const;
export type Shape = keyof typeof SHAPES;

const CHUNK = 512;
const DECODED = 24;
const GREEDY = { temperature: 0, topK: 0, topP: 1, uniform: 0 };
const pace = async (): Promise<void> => undefined;

interface Options {
  shape: Shape;
  weights: 'bf16' | 'awq';
  head: 'bf16' | 'awq';
  precision: Precision;
  context: number;
  visual: number;
  'decode-sparsity': number;
  batch?: number | undefined;
  vision?: 'bf16' | 'w8a8' | undefined;
  rounds: number;
}

export const MODEL: CommandModule<object, Options> = {
  command: 'model',
  describe:
    'Tokens per second of a whole decoder, dense and sparse, and a vision tile, at a real shape with random weights',
  builder: (yargs) =>
    yargs
      .option('shape', { choices: Object.keys(SHAPES) as Shape[], default: 'qwen2-0.5b' as Shape, describe: 'Decoder' })
      .option('weights', {
        choices: ['bf16', 'awq'] as const,
        default: 'bf16' as Options['weights'],
        describe: 'Storage',
      })
      .option('precision', {
        choices: ['exact', 'fast'] as const,
        default: 'exact' as Precision,
        describe: 'Of 4-bit products',
      })
      .option('head', {
        choices: ['bf16', 'awq'] as const,
        default: 'bf16' as Options['head'],
        describe: 'Storage of lm_head, where the layers are in 4 bits',
      })
      .option('context', { type: 'number', default: 4096, describe: 'Rows in the cache before decoding' })
      .option('visual', { type: 'number', default: 4000, describe: 'How many of them are visual' })
      .option('decode-sparsity', { type: 'number', default: 0.9, describe: 'Share of the visual rows left out' })
      .option('batch', { type: 'number', describe: 'Also dense decoding of so many sequences at once' })
      .option('vision', {
        choices: ['bf16', 'w8a8'] as const,
        describe: 'Also a 448 x 448 tile through a 300M tower with such weights',
      })
      .option('rounds', { type: 'number', default: 3, describe: 'Interleaved rounds, of which the median counts' })
      .example('$0 model --shape qwen2-0.5b --context 4096 --visual 4000 --decode-sparsity 0.9', ''),
  handler: (options) => benchModel(options),
};

async function benchModel(o: Options): Promise<void> {
  if (o.visual >= o.context)
    throw new Error(`Expected fewer visual rows than --context ${o.context}, received ${o.visual}.`);
  const { native, device } = start();
  const readGBs = device === 'CPU' ? native.measure('read') / 1e9 : undefined;
  const where =
    readGBs === undefined ? device : `${native.isa()}, ${native.threads()} threads, read ${readGBs.toFixed(1)} GB/s`;
  process.stdout.write(`${o.shape}, ${o.weights}, ${where}\n`);
  const config = decoderConfig(o.shape, o.context + CHUNK);
  const weights = randomWeights(
    o.weights,
    config.hiddenSize * Math.max(config.intermediateSize, config.vocabSize),
    o.precision,
    o.head === 'awq' ? /embed_tokens/ : undefined,
  );
  const model = await decoder(config, weights, pace);
  weights.close();
  const cache = model.cache('bf16');
  const prefillTokPerS = await prefill(model, cache, o);
  const caches = Array.from({ length: o.batch ?? 0 }, () => cache.fork());
  const dense: number[] = [];
  const sparse: number[] = [];
  const batched: number[] = [];
  const views = sparseViews(config.layers, o);
  for (let round = 0; round < o.rounds; round++) {
    dense.push(await decode(model, [cache], o.context, undefined));
    sparse.push(await decode(model, [cache], o.context, views));
    if (caches.length > 0) batched.push(await decode(model, caches, o.context, undefined));
  }
  const kvBytes = 2 * config.layers * config.kvHeads * config.headDim * 2;
  const limit = (rows: number, sequences = 1): number | undefined =>
    readGBs &&
    (sequences * readGBs * 1e9) / (weights.matrixBytes - embeddingBytes(config) + sequences * rows * kvBytes);
  const kept = o.context - o.visual + Math.round(o.visual * (1 - o['decode-sparsity']));
  const together = batched.length === 0 ? undefined : batchFigures(batched, dense, limit(o.context, o.batch));
  const result = {
    ...{
      device,
      shape: o.shape,
      weights: o.weights,
      head: o.head,
      precision: o.precision,
      isa: native.isa(),
      threads: native.threads(),
    },
    ...{ context: o.context, visual: o.visual, prefillTokPerS },
    ...{ decodeTokPerS: median(dense), sparseDecodeTokPerS: median(sparse) },
    ...{ limitTokPerS: limit(o.context), sparseLimitTokPerS: limit(kept), readGBs },
    ...(together && { batch: o.batch, ...together }),
    ...(o.vision ? { vision: o.vision, visionTileMs: await visionTile(o.vision, o.rounds) } : {}),
  };
  const share = (value: number, of: number | undefined): string =>
    of === undefined ? '' : `, ${((100 * value) / of).toFixed(0)} % of ${of.toFixed(1)}`;
  process.stdout.write(
    `prefill of ${o.context}: ${prefillTokPerS.toFixed(0)} tok/s\n` +
      `dense decode at ${o.context}: ${result.decodeTokPerS.toFixed(1)} tok/s${share(result.decodeTokPerS, result.limitTokPerS)}\n` +
      `sparse decode (${kept} rows): ${result.sparseDecodeTokPerS.toFixed(1)} tok/s${share(result.sparseDecodeTokPerS, result.sparseLimitTokPerS)}\n` +
      (together === undefined
        ? ''
        : `dense decode of ${o.batch} at once: ${together.batchDecodeTokPerS.toFixed(1)} tok/s` +
          `${share(together.batchDecodeTokPerS, together.batchLimitTokPerS)}, ${together.batchSpeedup.toFixed(2)}x of one\n`) +
      ('visionTileMs' in result ? `vision tile: ${result.visionTileMs?.toFixed(0)} ms\n` : ''),
  );
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

function batchFigures(batched: readonly number[], dense: readonly number[], batchLimitTokPerS: number | undefined) {
  const batchDecodeTokPerS = median(batched);
  return { batchDecodeTokPerS, batchLimitTokPerS, batchSpeedup: batchDecodeTokPerS / median(dense) };
}

export function decoderConfig(shape: Shape, maxPositions: number): DecoderConfig {
  const [hiddenSize, layers, intermediateSize, heads, kvHeads, vocabSize] = SHAPES[shape];
  return {
    ...{ hiddenSize, layers, intermediateSize, heads, kvHeads, vocabSize, maxPositions, headDim: hiddenSize / heads },
    ...{ ropeTheta: 1e6, ropeScaling: { type: 'default' }, rmsNormEps: 1e-6, hiddenAct: 'silu' },
    ...{ attentionBias: { qkv: true, o: false }, tieWordEmbeddings: false },
  };
}

/** The table that only `embed` reads, a row per token; the head is read whole. */
function embeddingBytes({ vocabSize, hiddenSize }: DecoderConfig): number {
  return vocabSize * hiddenSize * 2;
}

const idsOf = (count: number): number[] => Array.from({ length: count }, (_, i) => (i * 7919) % 31991);

/** Fills the cache to `context` in chunks; returns tokens per second of the whole, after a warm-up with the first chunk. */
async function prefill(model: Decoder, cache: KvCache, { context }: Options): Promise<number> {
  await prefillRows(model, cache, Math.min(CHUNK, context));
  cache.truncate([]);
  const begin = performance.now();
  await prefillRows(model, cache, context);
  return context / ((performance.now() - begin) / 1000);
}

async function prefillRows(model: Decoder, cache: KvCache, context: number): Promise<void> {
  for (let at = 0; at < context; at += CHUNK) {
    const n = Math.min(CHUNK, context - at);
    const x = model.embed(idsOf(n));
    const y = await model.forward(x, [{ cache, positions: Array.from({ length: n }, (_, i) => at + i) }], { pace });
    // A GPU has computed when something of its last result has been read.
    if (at + n === context)
      start().tf.tidy(() =>
        start()
          .tf.slice(y, [n - 1, 0], [1, 1])
          .dataSync(),
      );
    x.dispose();
    y.dispose();
  }
}

/** Tokens per second of a few greedy steps of each sequence from the same place; the head included. */
async function decode(
  model: Decoder,
  caches: readonly KvCache[],
  context: number,
  views: readonly LayerView[] | undefined,
): Promise<number> {
  const begin = performance.now();
  let ids: ArrayLike<number> = caches.map(() => 1);
  for (let i = 0; i < DECODED; i++) {
    const x = model.embed(Array.from(ids));
    const batch = caches.map((cache) => ({ cache, positions: [context + i], views }));
    const y = await model.forward(x, batch, { pace });
    const scores = model.scores(y, [...caches.keys()]);
    const chosen = sample(scores, ...caches.map(() => GREEDY));
    ids = chosen.dataSync();
    for (const tensor of [x, y, scores, chosen]) tensor.dispose();
  }
  const seconds = (performance.now() - begin) / 1000;
  for (const cache of caches) cache.truncate(cache.lengths.map(() => context));
  return (caches.length * DECODED) / seconds;
}

/** Visual rows first, then text: per layer a different scattered selection of the visual rows. */
export function sparseViews(
  layers: number,
  { visual, 'decode-sparsity': sparsity }: Pick<Options, 'visual' | 'decode-sparsity'>,
): LayerView[] {
  const keep = Math.max(1, Math.round(visual * (1 - sparsity)));
  return Array.from({ length: layers }, (_, layer) => {
    const chosen = new Set<number>();
    for (let i = 0; chosen.size < keep; i++) chosen.add(((i + layer) * 2654435761) % visual);
    return { rows: int32([...chosen].sort((a, b) => a - b)), tail: visual };
  });
}

/** Milliseconds of one 448 x 448 tile through an InternViT-300M-shaped tower. */
async function visionTile(format: RandomFormat, rounds: number): Promise<number> {
  const e = 1024;
  const weights = randomWeights(format, e * 4096, 'exact');
  const shape = { hiddenSize: e, intermediateSize: 4096, layers: 24, heads: 16, imageSize: 448, patchSize: 14 };
  const tower = await buildTower(
    {
      ...PLAIN_VIT,
      ...shape,
      ...{ normEps: 1e-6, activation: 'gelu', patchBias: true, classToken: false, preNorm: false },
      depth: shape.layers,
    },
    weights,
    pace,
  );
  weights.close();
  const values = Float32Array.from({ length: 3 * 448 * 448 }, (_, i) => Math.sin(i));
  const patches = squarePatches(1, 32, 14);
  const times: number[] = [];
  for (let i = 0; i <= rounds; i++) {
    const begin = performance.now();
    (await tower.run(patches, () => values, {}, pace)).features.dispose();
    times.push(performance.now() - begin);
  }
  weights.dispose();
  return median(times.slice(1));
}
