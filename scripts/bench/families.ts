// `bench families`: tower and decoder of each family at the widths of a published model, with random bf16 weights: the share of the machine's
// limit beside that of VILA's, measured alternately, and which fused ops ran. Options of the family (norms, windows, positions, gates) come from
// its plan for a fixture whose config has other widths. Also what attention within windows costs, of attention to everything.

import { cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { readJson } from '../../src/json';
import { isStateLayer } from '../../src/models/config';
import { type Decoder, decoder } from '../../src/models/decoder';
import type { KvCache } from '../../src/models/kv_cache';
import { planOf } from '../../src/models/load';
import type { Plan } from '../../src/models/plan';
import { buildTower } from '../../src/models/tower';
import { attention } from '../../src/ops/attention';
import { float32, int32 } from '../../src/ops/run';
import { packageFolder } from '../../src/runtime/paths';
import { start } from '../../src/runtime/start';
import { layerSize, towerOperations } from './family_operations';
import { type Fields, MODELS, type Row } from './family_shapes';
import { randomWeights } from './random_weights';
import { median } from './timing';

const LAYERS = 2;
/** Weights of all decoder layers: enough of them that a call's fixed cost is small. */
const WEIGHTS = 1.5e8;
const ROWS_OF_PROMPT = 512;
/** Rows in the cache while a token is decoded. */
const CONTEXT = 1024;

export const FAMILIES: CommandModule<object, { rounds: number }> = {
  command: 'families',
  describe: "Tower and decoder of every family at a published width: shares of the machine's limit beside VILA's",
  builder: (yargs) =>
    yargs
      .option('rounds', { type: 'number', default: 7, describe: 'Interleaved rounds, of which the median counts' })
      .example('$0 families', ''),
  handler: ({ rounds }) => benchFamilies(rounds),
};

async function benchFamilies(rounds: number): Promise<void> {
  if (!(rounds >= 1)) throw new Error(`Expected at least one round for --rounds but received ${rounds}.`);
  const { native } = start();
  process.stdout.write(`${native.isa()}, ${native.threads()} threads\n`);
  const [first, ...others] = MODELS;
  const vila = await candidate(first as Row);
  const results: Fields[] = [];
  for (const row of [first as Row, ...others]) results.push(await beside(row, vila, rounds));
  vila.dispose();
  const windows = windowShare(rounds);
  process.stdout.write(
    `attention of 4,096 patches in windows of 64: ${(100 * windows).toFixed(1)} % of full attention\n`,
  );
  process.stdout.write(
    `${JSON.stringify({ isa: native.isa(), threads: native.threads(), families: results, windows })}\n`,
  );
}

/** Work of which the time is measured: operations or bytes, and what runs it once. */
interface Work {
  readonly least: (peaks: { flops: number; read: number }) => number;
  readonly run: () => Promise<void>;
}

const PARTS = ['tower', 'prefill', 'decode'] as const;
type Part = (typeof PARTS)[number];

interface Candidate {
  readonly works: Readonly<Record<Part, Work>>;
  readonly rows: number;
  dispose(): void;
}

/** Measures a family, VILA and the machine's limits alternately; prints shares of the limits, of which the best tries count. */
async function beside(row: Row, vila: Candidate, rounds: number) {
  const { native } = start();
  const peaks = { flops: 0, read: 0 };
  const own = await candidate(row);
  const ops = await opsOf(own);
  const shares: Record<string, number> = {};
  const ratios: Record<string, number> = {};
  const times: Record<Part, readonly number[][]> = { tower: [[], []], prefill: [[], []], decode: [[], []] };
  for (const part of PARTS) {
    for (let round = 0; round <= rounds; round++) {
      peaks.flops = Math.max(peaks.flops, native.measure('bf16') || native.measure('f32'));
      peaks.read = Math.max(peaks.read, native.measure('read'));
      for (const [i, one] of [own, vila].entries()) {
        const begin = performance.now();
        await one.works[part].run();
        if (round > 0) times[part][i]?.push((performance.now() - begin) / 1e3);
      }
    }
  }
  for (const part of PARTS) {
    const [mine = 0, theirs = 0] = [own, vila].map(
      (one, i) => one.works[part].least(peaks) / median(times[part][i] ?? []),
    );
    shares[part] = mine;
    ratios[part] = mine / theirs;
  }
  own.dispose();
  const percent = (part: string): string =>
    `${part} ${(100 * (shares[part] ?? 0)).toFixed(0)} % (${(ratios[part] ?? 0).toFixed(2)} of VILA's)`;
  process.stdout.write(
    `${row.model.padEnd(22)} ${own.rows} patches: ${percent('tower')}, ${percent('prefill')}, ${percent('decode')}; ${ops}\n`,
  );
  return { model: row.model, patches: own.rows, shares, ratios, ops };
}

/** The plan of a fixture's copy whose config has other widths and few layers. */
function planAt({ fixture, vision, text, pixels, root: more }: Row): Plan {
  const folder = mkdtempSync(join(tmpdir(), 'sparsevila-'));
  try {
    cpSync(join(packageFolder(), 'spec', 'fixtures', fixture), folder, { recursive: true });
    const put = (path: string, change: (config: Fields) => Fields): void =>
      writeFileSync(join(folder, path), JSON.stringify(change(readJson(join(folder, path)))));
    const { mrope_section, ...sizes } = text;
    const withText = (config: Fields): Fields => {
      const rope = (key: string): Fields =>
        config[key] ? { [key]: { ...(config[key] as Fields), mrope_section } } : {};
      const sections = mrope_section === undefined ? {} : { ...rope('rope_scaling'), ...rope('rope_parameters') };
      return {
        ...config,
        num_hidden_layers: layersOf(text),
        ...sizes,
        ...sections,
        layer_types: undefined,
        max_position_embeddings: 4096,
      };
    };
    const layers = 'depth' in (visionOf(folder) ?? {}) ? { depth: LAYERS } : { num_hidden_layers: LAYERS };
    const withVision = (config: Fields): Fields => ({
      ...config,
      ...vision,
      ...layers,
      ...('fullatt_block_indexes' in config && { fullatt_block_indexes: [LAYERS - 1] }),
      ...((config.deepstack_visual_indexes as unknown[] | undefined)?.length ? { deepstack_visual_indexes: [0] } : {}),
    });
    if (visionOf(folder) === undefined) {
      put('llm/config.json', withText);
      put('vision_tower/config.json', withVision);
    } else {
      put('config.json', (config) => {
        const root = { ...config, ...more };
        const nested = 'text_config' in root ? { text_config: withText(root.text_config as Fields) } : {};
        const base = 'text_config' in root ? root : withText(root);
        return { ...base, ...nested, vision_config: withVision(root.vision_config as Fields) };
      });
    }
    for (const path of readdirSync(folder, { recursive: true, encoding: 'utf8' }))
      if (path.endsWith('preprocessor_config.json')) put(path, (config) => ({ ...config, ...pixels }));
      else if (path === 'processor_config.json')
        put(path, (config) => {
          const [image_processor, video_processor] = [config.image_processor, config.video_processor].map((of) => ({
            ...(of as Fields),
            ...pixels,
          }));
          return { ...config, image_processor, video_processor };
        });
    return planOf(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const visionOf = (folder: string): Fields | undefined =>
  readJson(join(folder, 'config.json')).vision_config as Fields | undefined;

const pace = async (): Promise<void> => undefined;

async function candidate(row: Row): Promise<Candidate> {
  const plan = planAt(row);
  const { tower: t, decoder: given } = plan;
  const config = { ...given, vocabSize: 2048, maxPositions: 4096, tieWordEmbeddings: false };
  const largest = Math.max(config.hiddenSize * config.intermediateSize, t.hiddenSize * t.intermediateSize) * 2;
  const weights = randomWeights('bf16', largest, 'exact');
  const tower = await buildTower({ ...t, deepstack: [] }, weights, pace);
  const model = await decoder(config, weights, pace);
  weights.close();
  const { patches } = plan.layout({ kind: 'image', width: 448, height: 448, frames: 1 }, { media: 1 });
  const n = patches.corners.length / 3;
  const width = 3 * t.patchFrames * t.patchSize ** 2;
  const values = new Float32Array(n * width).map((_, i) => Math.sin(i));
  const run = async (): Promise<void> => {
    const seen = await tower.run(patches, (from, to) => values.subarray(from * width, to * width), {}, pace);
    seen.features.dispose();
  };
  const cache = model.cache('bf16', 4096);
  return {
    rows: n,
    works: {
      tower: { least: ({ flops }) => towerOperations(plan, patches, n) / flops, run },
      ...decoderWorks(model, cache),
    },
    dispose: () => {
      cache.dispose();
      weights.dispose();
    },
  };
}

/** A prefill from empty, and one token behind CONTEXT rows. */
function decoderWorks(model: Decoder, cache: KvCache): Record<'prefill' | 'decode', Work> {
  const { config } = model;
  const { layers, heads, kvHeads, headDim: c } = config;
  const rowsFrom = async (from: number, count: number): Promise<void> => {
    const x = model.embed(Array.from({ length: count }, (_, i) => (i * 7) % 2000));
    const positions = Array.from({ length: count }, (_, i) => from + i);
    const y = await model.forward(x, [{ cache, positions }], { pace });
    for (const tensor of [x, y]) tensor.dispose();
  };
  const restore = (length: number): void =>
    cache.truncate(
      cache.lengths.map(() => length),
      length,
    );
  const all = Array.from({ length: layers }, (_, layer) => layer);
  const weights = all.reduce((sum, layer) => sum + layerSize(config, layer), 0);
  const attending = all.filter((layer) => !isStateLayer(config, layer)).length;
  return {
    prefill: {
      least: ({ flops }) => (2 * ROWS_OF_PROMPT * (weights + ROWS_OF_PROMPT * attending * heads * c)) / flops,
      run: async () => {
        restore(0);
        await rowsFrom(0, ROWS_OF_PROMPT);
        restore(0);
      },
    },
    decode: {
      least: ({ read }) => (2 * weights + 4 * CONTEXT * attending * kvHeads * c) / read,
      run: async () => {
        if ((cache.lengths[0] ?? 0) === 0) {
          await rowsFrom(0, CONTEXT);
          cache.save(CONTEXT);
        }
        await rowsFrom(CONTEXT, 1);
        restore(CONTEXT);
      },
    },
  };
}

function layersOf({ hidden_size, intermediate_size }: Fields): number {
  const [d, m] = [Number(hidden_size), Number(intermediate_size)];
  return Math.ceil(WEIGHTS / (4 * d * d + 3 * d * m));
}

/** The ops of this package that run, with their number, as the backend sees them. */
async function opsOf({ works }: Candidate): Promise<string> {
  const { backend } = start();
  const seen = new Map<string, number>();
  const original = backend.executeMultipleOutputs;
  backend.executeMultipleOutputs = (op, ...rest) => {
    seen.set(op, (seen.get(op) ?? 0) + 1);
    return original.call(backend, op, ...rest);
  };
  try {
    for (const part of ['tower', 'prefill'] as const) await works[part].run();
  } finally {
    backend.executeMultipleOutputs = original;
  }
  return [...seen]
    .filter(([op]) => /VisionBlock|DecoderLayer|Attention/.test(op))
    .map(([op, count]) => `${count} ${op}`)
    .join(', ');
}

/** Time of attention of 4,096 patches in windows of 64 as a share of attention to all of them, 16 heads of 80. */
function windowShare(rounds: number): number {
  const [n, heads, c, window] = [4096, 16, 80, 64];
  const values = float32(
    new Float32Array(n * heads * c).map((_, i) => Math.sin(i)),
    [n, heads, c],
  );
  const spans = int32(Array.from({ length: n }, (_, i) => [i - (i % window), i - (i % window) + window]).flat(), [
    n,
    2,
  ]);
  const times: number[][] = [[], []];
  for (let round = 0; round <= rounds; round++)
    for (const [i, given] of [{ spans }, {}].entries()) {
      const begin = performance.now();
      const { out, columns } = attention(values, values, values, given);
      for (const tensor of [out, columns]) tensor.dispose();
      if (round > 0) times[i]?.push(performance.now() - begin);
    }
  for (const tensor of [values, spans]) tensor.dispose();
  return median(times[0] ?? []) / median(times[1] ?? []);
}
