// `bench overhead`: what SparseVILA's salience, relevance and selections cost, as shares of the dense prefill and of the
// tower they come on top of. A decoder of real shape with random weights answers through the session itself, dense and
// sparse in turns; salience is measured on a vision block of SigLIP-so400m's shape, of which VILA runs one more for it.

import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { decoder } from '../../src/models/decoder';
import { loadModel } from '../../src/models/load';
import type { VisionLanguageModel } from '../../src/models/model';
import { keeper } from '../../src/ops/cases/case';
import { visionBlockData, visionBlockWeights } from '../../src/ops/cases/vision_block';
import { float32 } from '../../src/ops/run';
import { visionBlock } from '../../src/ops/vision_block';
import { packageFolder } from '../../src/runtime/paths';
import { start } from '../../src/runtime/start';
import { createSession, type Session, type TurnStats } from '../../src/session/session';
import { dense } from '../../src/sparsity/dense';
import { sparseVila } from '../../src/sparsity/sparse_vila';
import { uniform } from '../../src/text/random';
import { decoderConfig, SHAPES, type Shape } from './model';
import { randomWeights } from './random_weights';
import { median, time } from './timing';

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

/** Milliseconds; shares of 1. */
interface Overhead {
  readonly visual: number;
  readonly questionTokens: number;
  /** The decoder's dense prefill of the image and the question. */
  readonly prefill: number;
  /** The question alone, later in the conversation: dense, and what relevance and the 24 selections of `retrieve` add. */
  readonly question: number;
  readonly relevance: number;
  readonly retrieve: number;
  /** One selection among all visual tokens, and the salience of as many images as have them unmerged. */
  readonly prune: number;
  readonly salience: number;
  /** Everything SparseVILA adds before the first token, of `prefill`. */
  readonly share: number;
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
  say(`${shape} in bf16, random weights, ${machine.isa}, ${machine.threads} threads, medians of ${rounds} rounds\n`);
  const tower = benchTower(rounds);
  say(
    `salience of ${PATCHES} patches: ${tower.alone.toFixed(1)} ms in a block of its own, ${percent(tower.shareAlone)} of the tower; ` +
      `${tower.beside.toFixed(1)} ms beside its features, ${percent(tower.shareBeside)}\n`,
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
  const wants = [
    { features: true, columns: false },
    { features: true, columns: true },
    { features: false, columns: true },
  ];
  const times = wants.map((): number[] => []);
  for (let round = -WARM_UP; round < rounds; round++)
    for (const [i, want] of wants.entries()) {
      const us = time(() => {
        for (const tensor of visionBlock(x, weights, want)) tensor.dispose();
      });
      if (round >= 0) times[i]?.push(us / 1e3);
    }
  keep.dispose();
  const [block = 0, both = 0, alone = 0] = times.map(median);
  const [plain = [], withColumns = []] = times;
  const beside = median(withColumns.map((ms, i) => ms - (plain[i] ?? Number.NaN)));
  const whole = FEATURE_BLOCKS * block;
  return { block, both, alone, beside, shareAlone: alone / whole, shareBeside: beside / (whole + block) };
}

async function benchDecoder(shape: Shape, visual: number, rounds: number, salienceMs: number): Promise<Overhead> {
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
  const sparse = createSession(model, { method: sparseVila({ prefillSparsity: 0 }), history: 'evict' });
  const plain = createSession(model, { method: dense(), history: 'evict' });
  await ask(sparse, true); // warms up as well
  const { ms: whole, tokens } = await ask(plain, true);
  const without: TurnStats[] = [];
  const extra: TurnStats[] = [];
  for (let round = -WARM_UP; round < rounds; round++) {
    const turns = [await ask(plain, false), await ask(sparse, false)] as const;
    if (round < 0) continue;
    without.push(turns[0]);
    extra.push(turns[1]);
  }
  for (const part of [plain, sparse, base, weights]) part.dispose();
  const question = median(without.map(({ ms }) => ms.prefill));
  const relevance = median(extra.map(({ ms }, i) => ms.prefill - (without[i]?.ms.prefill ?? Number.NaN)));
  const retrieve = median(extra.map(({ ms }) => ms.retrieve));
  const prune = pruneTime(visual, rounds);
  const salience = Math.ceil(visual / PATCHES) * salienceMs;
  return {
    ...{ visual, questionTokens: tokens.prompt - visual, prefill: whole.prefill, question },
    ...{ relevance, retrieve, prune, salience },
    share: (relevance + retrieve + prune + salience) / whole.prefill,
  };
}

/** The model with a tower that gives one image of `tokens` random features at once. */
function withImages(model: VisionLanguageModel, tokens: number, d: number): VisionLanguageModel {
  const random = uniform(1);
  const values = Float32Array.from({ length: tokens * d }, () => random() - 0.5);
  const salience = Float32Array.from({ length: tokens }, random);
  return {
    ...model,
    prepareImage: async () => ({ pixels: new Float32Array(), width: 0, height: 0 }),
    encodeImage: async () => {
      const features = float32(values, [tokens, d]);
      return {
        grid: { rows: 1, cols: tokens },
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

async function ask(session: Session, first: boolean): Promise<TurnStats> {
  const image = { data: new Uint8Array(3), width: 1, height: 1, channels: 3 } as const;
  const answer = session.ask(QUESTION, { images: first ? [image] : [], maxTokens: 1 });
  await answer.text();
  if (answer.stats === undefined) throw new Error('Expected statistics of a complete answer.');
  return answer.stats;
}

/** Milliseconds of SparseVILA's choice among the tokens of one image. */
function pruneTime(tokens: number, rounds: number): number {
  const random = uniform(2);
  const salience = Float32Array.from({ length: tokens }, random);
  const none = () => ({ data: new Float32Array(), width: 0 });
  const view = { tokens, grid: { rows: 1, cols: tokens }, salience: () => salience, keys: none, features: none };
  const method = sparseVila();
  const times: number[] = [];
  for (let round = -WARM_UP; round < rounds; round++) {
    const us = time(() => void method.prune?.([{ ...view, projected: none }]));
    if (round >= 0) times.push(us / 1e3);
  }
  return median(times);
}

const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;

function describe(row: Overhead): string {
  const part = (name: string, ms: number): string =>
    `  ${name.padEnd(44)}${ms.toFixed(2).padStart(10)} ms${percent(ms / row.prefill).padStart(10)}\n`;
  const turn = (row.relevance + row.retrieve) / row.question;
  return (
    `${row.visual} visual tokens and a question of ${row.questionTokens}: dense prefill ${row.prefill.toFixed(0)} ms\n` +
    part(`salience, ${Math.ceil(row.visual / PATCHES)} images`, row.salience) +
    part('prune: one selection', row.prune) +
    part('relevance of every visual row in every layer', row.relevance) +
    part('retrieve: a selection in every layer', row.retrieve) +
    part('together', row.share * row.prefill) +
    `  a later question alone takes ${row.question.toFixed(1)} ms dense; relevance and retrieve add ${percent(turn)}\n`
  );
}
