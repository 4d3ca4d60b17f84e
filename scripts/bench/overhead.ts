// `bench overhead`: the time of SparseVILA's salience, relevance and selections, as shares of the dense prefill and of the
// tower. A decoder of real shape with random weights answers through the session itself, dense and
// sparse alternately; salience is measured on a vision block of SigLIP-so400m's shape, of which VILA runs one more for it.

import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { evenCells } from '../../src/image/cells';
import { decoder } from '../../src/models/decoder';
import { resized } from '../../src/models/families/vila_layouts';
import { loadModel } from '../../src/models/load';
import type { MediumLayout } from '../../src/models/media';
import type { VisionLanguageModel } from '../../src/models/model';
import { float32 } from '../../src/ops/run';
import { visionBlock } from '../../src/ops/vision_block';
import { packageFolder } from '../../src/runtime/paths';
import { start } from '../../src/runtime/start';
import { createSession, type Session, type TurnStats } from '../../src/session/session';
import { dense } from '../../src/sparsity/dense';
import { sparseVila } from '../../src/sparsity/sparse_vila';
import { uniform } from '../../src/text/random';
import { keeper } from '../../testing/ops/cases/case';
import { visionBlockData, visionBlockWeights } from '../../testing/ops/cases/vision_block';
import { decoderConfig, SHAPES, type Shape } from './model';
import { randomWeights } from './random_weights';
import { median } from './timing';

/** SigLIP-so400m at 448 pixels: 1,024 patches, and the blocks before the layer that VILA takes features from. */
const PATCHES = 1024;
const TOWER = { n: PATCHES, e: 1152, heads: 16, ffn: 4304, type: 'bf16', activation: 'gelu_pytorch_tanh' } as const;
const FEATURE_BLOCKS = 26;
const QUESTION = 'Where is the yellow 2 in row 7 and how many orange objects are there in the picture of this frame?';
const WARM_UP = 2;

interface Options {
  shape: Shape;
  visual: number[];
  rounds: number;
}

/** Milliseconds of wall-clock time, and of processor time over all cores. */
interface Times {
  readonly wall: number;
  readonly cpu: number;
}

interface Overhead {
  readonly visual: number;
  readonly questionTokens: number;
  /** The decoder's dense prefill of the image and the question, and of the question alone, later in the conversation. */
  readonly prefill: Times;
  readonly question: Times;
  /** The time that relevance and the selections of `retrieve` in all layers add to a question; of that the selections, wall-clock. */
  readonly relevance: Times;
  readonly retrieve: number;
  /** One selection among all visual tokens, and the salience of as many images as have them unmerged. */
  readonly prune: Times;
  readonly salience: Times;
  /** All time that SparseVILA adds before the first token, as a share of `prefill`. */
  readonly share: Times;
}

export const OVERHEAD: CommandModule<object, Options> = {
  command: 'overhead',
  describe: "What SparseVILA's salience, relevance and selections add to the dense prefill (the bar: 3 %)",
  builder: (yargs) =>
    yargs
      .option('shape', { choices: Object.keys(SHAPES) as Shape[], default: 'qwen2-0.5b' as Shape, describe: 'Decoder' })
      .option('visual', { type: 'number', array: true, default: [1000, 8000], describe: 'Visual tokens, one or more' })
      .option('rounds', { type: 'number', default: 15, describe: 'Interleaved rounds, of which the median counts' })
      .example('$0 overhead', ''),
  handler: (options) => benchOverhead(options),
};

async function benchOverhead({ shape, visual, rounds }: Options): Promise<void> {
  if (![...visual, rounds].every((n) => Number.isInteger(n) && n >= 1))
    throw new Error(`Expected whole numbers of at least 1 for --visual and --rounds, received ${visual}, ${rounds}.`);
  const { native } = start();
  const machine = { shape, isa: native.isa(), threads: native.threads() };
  const say = (text: string) => void process.stdout.write(`${text}\n`);
  say(`${shape} in bf16, random weights, ${machine.isa}, ${machine.threads} threads, medians of ${rounds} rounds`);
  say('ms by the wall, ms of all processors: on a busy machine trust the latter, with SPARSEVILA_THREADS=1\n');
  const tower = benchTower(rounds);
  say(
    `salience of ${PATCHES} patches: in a block of its own${columns(tower.alone, tower.whole)} of the tower\n` +
      `${''.padEnd(29)}beside its features ${columns(tower.beside, tower.whole)}\n`,
  );
  const rows: Overhead[] = [];
  for (const tokens of visual) {
    const row = await benchDecoder(shape, tokens, rounds, tower.alone);
    rows.push(row);
    say(describe(row));
  }
  say(JSON.stringify({ ...machine, tower, rows }));
}

/** A vision block with and without salience, in turns. VILA's features leave before the last block, its salience comes from it. */
function benchTower(rounds: number) {
  const keep = keeper();
  const sizes = { ...TOWER, features: true, columns: true };
  const data = visionBlockData(sizes);
  const weights = visionBlockWeights(data, sizes, keep);
  const x = keep.tensor(float32(data.x, [TOWER.n, TOWER.e]));
  const call = (want: { features: boolean; columns: boolean }): Times =>
    timesOf(() => {
      for (const tensor of visionBlock(x, weights, want)) tensor.dispose();
    });
  const plain: Times[] = [];
  const both: Times[] = [];
  const alone: Times[] = [];
  for (let round = -WARM_UP; round < rounds; round++) {
    const [one, two, three] = [
      call({ features: true, columns: false }),
      call({ features: true, columns: true }),
      call({ features: false, columns: true }),
    ];
    if (round < 0) continue;
    plain.push(one);
    both.push(two);
    alone.push(three);
  }
  keep.dispose();
  const block = medians(plain);
  const whole = { wall: FEATURE_BLOCKS * block.wall, cpu: FEATURE_BLOCKS * block.cpu };
  return { block, whole, alone: medians(alone), beside: medians(differences(both, plain)) };
}

async function benchDecoder(shape: Shape, visual: number, rounds: number, perImage: Times): Promise<Overhead> {
  const config = decoderConfig(shape, visual + 512);
  const weights = randomWeights(
    'bf16',
    config.hiddenSize * Math.max(config.intermediateSize, config.vocabSize),
    'exact',
  );
  const llm = await decoder(config, weights, async () => undefined);
  weights.close();
  const base = await loadModel(join(packageFolder(), 'assets', 'tiny-nvila'));
  const model = withImages({ ...base, decoder: llm }, visual, config.hiddenSize);
  // Nothing is pruned, so that both decoders have the same rows.
  const sparse = createSession(model, { method: sparseVila({ prefillSparsity: 0 }), history: 'forget' });
  const plain = createSession(model, { method: dense(), history: 'forget' });
  await ask(sparse, true); // warms up as well
  const whole = await ask(plain, true);
  const without: Asked[] = [];
  const extra: Asked[] = [];
  for (let round = -WARM_UP; round < rounds; round++) {
    const turns = [await ask(plain, false), await ask(sparse, false)] as const;
    if (round < 0) continue;
    without.push(turns[0]);
    extra.push(turns[1]);
  }
  for (const part of [plain, sparse, base, weights]) part.dispose();
  const images = Math.ceil(visual / PATCHES);
  const relevance = medians(differences(extra, without));
  const retrieve = median(extra.map(({ stats }) => stats.ms.retrieve));
  const prune = pruneTimes(visual, rounds);
  const salience = { wall: images * perImage.wall, cpu: images * perImage.cpu };
  const share = (clock: keyof Times): number => (relevance[clock] + prune[clock] + salience[clock]) / whole[clock];
  return {
    ...{ visual, questionTokens: whole.stats.tokens.prompt - visual },
    ...{ prefill: { wall: whole.wall, cpu: whole.cpu }, question: medians(without) },
    ...{ relevance, retrieve, prune, salience, share: { wall: share('wall'), cpu: share('cpu') } },
  };
}

/** The model with a tower that gives one image of `tokens` random features at once. */
function withImages(model: VisionLanguageModel, tokens: number, d: number): VisionLanguageModel {
  const random = uniform(1);
  const values = Float32Array.from({ length: tokens * d }, () => random() - 0.5);
  const salience = Float32Array.from({ length: tokens }, random);
  const layout = rowOfTokens(tokens);
  const size = { kind: 'image', width: tokens, height: 1, frames: 1 } as const;
  const canvases = layout.canvases.map(() => ({ width: 1, height: 1, data: new Uint8Array(3) }));
  return {
    ...model,
    prepare: async (media) => media.map(() => ({ layout, made: { size, turn: { media: media.length } }, canvases })),
    encode: async () => {
      const features = float32(values, [tokens, d]);
      return {
        layout,
        tokens,
        features,
        salience: [salience],
        keys: [],
        dispose: () => features.dispose(),
      };
    },
    project: (features) => features.clone(),
  };
}

/** An image whose tokens lie in one row. */
function rowOfTokens(tokens: number): MediumLayout {
  return {
    ...resized(
      {
        tower: { imageSize: 1, patchSize: 1, classToken: false },
        block: 1,
        copies: 1,
        before: undefined,
        after: undefined,
      },
      { width: 1, height: 1 },
      'bicubic',
    ),
    grids: [{ t: 1, h: 1, w: tokens, frames: [0], cells: evenCells({ width: tokens, height: 1 }, 1, tokens) }],
    runs: [{ grid: 0, from: 0, to: tokens }],
  };
}

interface Asked extends Times {
  readonly stats: TurnStats;
}

/** A turn of one token: all of it is prefill, head and selections. */
async function ask(session: Session, first: boolean): Promise<Asked> {
  const image = { data: new Uint8Array(3), width: 1, height: 1, channels: 3 } as const;
  const answer = session.ask(QUESTION, { images: first ? [image] : [], maxTokens: 1 });
  const begin = now();
  await answer.text();
  const times = since(begin);
  if (answer.stats === undefined) throw new Error('Expected statistics of a complete answer.');
  return { ...times, stats: answer.stats };
}

/** SparseVILA's choice among the tokens of one image. */
function pruneTimes(tokens: number, rounds: number): Times {
  const random = uniform(2);
  const salience = Float32Array.from({ length: tokens }, random);
  const none = () => ({ data: new Float32Array(), width: 0 });
  const grid = { t: 1, h: 1, w: tokens };
  const view = {
    medium: 0,
    share: 1,
    tokens,
    grid,
    salience: () => salience,
    keys: none,
    features: none,
    question: none,
  };
  const method = sparseVila();
  const times: Times[] = [];
  for (let round = -WARM_UP; round < rounds; round++) {
    const taken = timesOf(() => void method.prune?.select([{ ...view, projected: none }]));
    if (round >= 0) times.push(taken);
  }
  return medians(times);
}

function now(): Times {
  const { user, system } = process.cpuUsage();
  return { wall: performance.now(), cpu: (user + system) / 1e3 };
}

function since(begin: Times): Times {
  const end = now();
  return { wall: end.wall - begin.wall, cpu: end.cpu - begin.cpu };
}

function timesOf(body: () => void): Times {
  const begin = now();
  body();
  return since(begin);
}

const medians = (times: readonly Times[]): Times => ({
  wall: median(times.map(({ wall }) => wall)),
  cpu: median(times.map(({ cpu }) => cpu)),
});

const differences = (a: readonly Times[], b: readonly Times[]): Times[] =>
  a.map(({ wall, cpu }, i) => ({ wall: wall - (b[i]?.wall ?? Number.NaN), cpu: cpu - (b[i]?.cpu ?? Number.NaN) }));

const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;

/** Milliseconds and shares of a whole, by both clocks. */
function columns({ wall, cpu }: Times, of: Times): string {
  const column = (ms: number, whole: number): string =>
    `${ms.toFixed(2).padStart(11)} ms${percent(ms / whole).padStart(9)}`;
  return `${column(wall, of.wall)}${column(cpu, of.cpu)}`;
}

function describe(row: Overhead): string {
  const { prefill, salience, prune, relevance, share } = row;
  const together = { wall: share.wall * prefill.wall, cpu: share.cpu * prefill.cpu };
  const part = (name: string, times: Times, of: Times = prefill): string =>
    `  ${name.padEnd(46)}${columns(times, of)}\n`;
  return (
    `${row.visual} visual tokens and a question of ${row.questionTokens}: dense prefill ${prefill.wall.toFixed(0)} ms, ` +
    `${prefill.cpu.toFixed(0)} ms of processors\n` +
    part(`salience, ${Math.ceil(row.visual / PATCHES)} images`, salience) +
    part('prune: one selection', prune) +
    part('relevance, and a selection in every layer', relevance) +
    part('together', together) +
    `  a later question alone: ${row.question.wall.toFixed(0)} ms, ${row.question.cpu.toFixed(0)} ms of processors, ` +
    `${row.retrieve.toFixed(1)} ms of selections\n` +
    part('relevance and selections of that', relevance, row.question)
  );
}
