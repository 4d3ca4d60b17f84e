// `bench lossless`: decoding whose drafts are verified, against dense decoding, at a real shape with random weights. A random decoder says nothing
// about acceptance, so that it is imposed: each draft step runs and is paid for, and its token is then replaced by the one of the dense answer
// with the given probability, and by another one otherwise.

import type { CommandModule } from 'yargs';
import type { DecoderConfig } from '../../src/models/config';
import { type Decoder, decoder } from '../../src/models/decoder';
import { appendKv } from '../../src/ops/kv_cache';
import { float32 } from '../../src/ops/run';
import { sample } from '../../src/ops/sample';
import { start } from '../../src/runtime/start';
import type { Tensor } from '../../src/runtime/tensor';
import type { Chooser } from '../../src/session/choose';
import { type Conversation, pointAt, startConversation, truncateTo } from '../../src/session/conversation';
import { expectedTokens, MOST_DRAFTS } from '../../src/session/draft_length';
import { fixedView, plainSteps, type Steps, type Views } from '../../src/session/steps';
import { verifiedSteps } from '../../src/session/verify';
import { uniform } from '../../src/text/random';
import { decoderConfig, SHAPES, type Shape, sparseViews } from './model';
import { randomWeights } from './random_weights';
import { median } from './timing';

const pace = async (): Promise<void> => undefined;
/** Rows of the question. */
const TEXT = 64;
const SOURCES = ['view', 'lookup'] as const;
/** Rows that are written at once. */
const CHUNK = 512;

interface Options {
  shape: Shape;
  visual: number;
  'decode-sparsity': number;
  acceptance: readonly number[];
  tokens: number;
  rounds: number;
}

export const LOSSLESS: CommandModule<object, Options> = {
  command: 'lossless',
  describe:
    'Tokens per second with verified drafts of a given acceptance, against dense decoding; 4-bit random weights',
  builder: (yargs) =>
    yargs
      .option('shape', {
        choices: Object.keys(SHAPES) as Shape[],
        default: 'tiny-0.39b' as Shape,
        describe: 'Decoder',
      })
      .option('visual', { type: 'number', default: 8192, describe: 'Visual rows in the cache' })
      .option('decode-sparsity', { type: 'number', default: 0.9, describe: 'Share of the visual rows left out' })
      .option('acceptance', {
        type: 'number',
        array: true,
        default: [0.9, 0.3] as readonly number[],
        describe: 'Probabilities that a drafted token is the dense one',
      })
      .option('tokens', { type: 'number', default: 96, describe: 'Tokens of an answer' })
      .option('rounds', { type: 'number', default: 5, describe: 'Interleaved rounds, of which the median counts' })
      .example('$0 lossless --visual 2048', ''),
  handler: (options) => benchLossless(options),
};

async function benchLossless(o: Options): Promise<void> {
  const { native } = start();
  const context = o.visual + TEXT;
  const config = decoderConfig(o.shape, context + o.tokens + MOST_DRAFTS);
  const largest = config.hiddenSize * Math.max(config.intermediateSize, config.vocabSize);
  const weights = randomWeights('awq', largest, 'exact', /embed_tokens/);
  const model = await decoder(config, weights, pace);
  weights.close();
  const conversation = startConversation(model.cache('bf16'));
  fillCache(conversation, config, context);
  for (const layer of conversation.layers) layer.length = context;
  conversation.nextPosition = context;
  const views = sparseViews(config.layers, o);
  const run = { model, conversation, tokens: o.tokens };
  const steps = { model: { decoder: model }, conversation, pace };
  const plain = (rows: Views) => (): Steps => plainSteps(steps, fixedView(rows));
  const { ids: reference } = await answer(run, plain(undefined));
  const kinds = o.acceptance.flatMap((acceptance) => SOURCES.map((source) => ({ acceptance, source })));
  const times = { dense: [] as number[], view: [] as number[], verified: kinds.map((): number[] => []) };
  const counts = kinds.map(() => ({ drafted: 0, accepted: 0 }));
  for (let round = 0; round < o.rounds; round++) {
    times.dense.push((await answer(run, plain(undefined))).perSecond);
    times.view.push((await answer(run, plain(views))).perSecond);
    for (const [i, { acceptance, source }] of kinds.entries()) {
      const token = imposed(reference, acceptance, config.vocabSize, round);
      const found = (_: unknown, most: number): number[] =>
        source === 'view' ? [] : Array.from({ length: most }, (_, k) => token(conversation.items.length + k));
      const options = { isEnd: () => false, replace: (_: number, item: number) => token(item), found };
      const result = await answer(run, () =>
        verifiedSteps(steps, fixedView(source === 'view' ? views : undefined), greedy, options),
      );
      if (result.ids.some((id, at) => id !== reference[at])) throw new Error('Expected the dense answer.');
      times.verified[i]?.push(result.perSecond);
      const own = counts[i] as (typeof counts)[number];
      own.drafted += result.drafted;
      own.accepted += result.accepted;
    }
  }
  const dense = median(times.dense);
  const share = dense / median(times.view);
  const verified = kinds.map(({ acceptance, source }, i) => ({
    ...{ source, acceptance, tokPerS: median(times.verified[i] ?? []), ...counts[i] },
    limit: limit(acceptance, source === 'view' ? share : 0),
  }));
  const line = (name: string, perSecond: number, more = ''): string =>
    `${name}: ${perSecond.toFixed(1)} tok/s, ${(perSecond / dense).toFixed(2)}x${more}\n`;
  const lines = verified.map(({ source, acceptance, tokPerS, limit, drafted, accepted }) => {
    const more = `, limit ${limit.toFixed(2)}x; ${drafted} drafted, ${accepted} accepted`;
    const how = source === 'view' ? 'drafts on the view' : 'drafts looked up';
    return line(`verified, ${how}, acceptance ${acceptance}`, tokPerS, more);
  });
  process.stdout.write(
    `${o.shape}, 4 bits, ${o.visual} visual rows, ${native.isa()}, ${native.threads()} threads; a draft on the view takes ${(100 * share).toFixed(0)} % of a dense step\n` +
      line('dense', dense) +
      line('the view alone', median(times.view)) +
      lines.join(''),
  );
  const machine = { isa: native.isa(), threads: native.threads() };
  const figures = { denseTokPerS: dense, viewTokPerS: median(times.view), verified };
  process.stdout.write(`${JSON.stringify({ shape: o.shape, visual: o.visual, ...machine, ...figures })}\n`);
}

/** Writes random rows in the place of a prefill, whose attention would take minutes at long contexts. */
function fillCache({ cache }: Conversation, { kvHeads, headDim }: DecoderConfig, rows: number): void {
  cache.reserve(rows);
  const random = uniform(7);
  const values = Float32Array.from({ length: CHUNK * kvHeads * headDim }, () => 2 * random() - 1);
  for (const layer of cache.lengths.keys())
    for (let at = 0; at < rows; at += CHUNK) {
      const n = Math.min(CHUNK, rows - at);
      const part = float32(values.slice(0, n * kvHeads * headDim), [n, kvHeads, headDim]);
      appendKv(cache.tensor(layer), part, part, at);
      part.dispose();
    }
  cache.extend(rows);
}

/** The largest speedup at an acceptance if a pass takes as long as a dense step, however many rows it has. `share`: of a dense step's time, that of a drafted token. */
function limit(acceptance: number, share: number): number {
  const speedups = Array.from({ length: MOST_DRAFTS + 1 }, (_, n) => expectedTokens(acceptance, n) / (n * share + 1));
  return Math.max(...speedups);
}

/** Drafts tokens of the reference with a probability, and otherwise others. Items are counted from the prompt's end. */
function imposed(reference: readonly number[], acceptance: number, vocabulary: number, seed: number) {
  const random = uniform(seed);
  return (item: number): number => {
    const right = reference[item + 1] ?? 0;
    return random() < acceptance ? right : (right + 1) % vocabulary;
  };
}

const chooseGreedily = (scores: Tensor) => {
  const ids = sample(scores, { temperature: 0, topK: 0, topP: 1, uniform: 0 });
  const [id = -1] = ids.dataSync<'int32'>();
  ids.dispose();
  return { id, logprob: undefined };
};
const greedy: Chooser = {
  choose: chooseGreedily,
  isOver: false,
  ahead: () => ({ choose: chooseGreedily, isOver: false }),
  dispose: () => undefined,
};

/** A greedy answer from the prompt on, which is taken back. The first token is 1. */
async function answer(
  { conversation, tokens }: { model: Decoder; conversation: Conversation; tokens: number },
  open: () => Steps,
) {
  const before = pointAt(conversation);
  const steps = open();
  const ids = [1];
  let accepted = 0;
  const begin = performance.now();
  while (ids.length < tokens) {
    const scores = await steps.next(ids.at(-1) as number, tokens - ids.length);
    const { draft } = steps;
    const { id } = greedy.choose(scores, []);
    scores.dispose();
    if (id === draft) accepted++;
    ids.push(id);
  }
  const perSecond = (tokens - 1) / ((performance.now() - begin) / 1000);
  await steps.end();
  steps.dispose();
  truncateTo(conversation, before);
  return { ids, perSecond, accepted, drafted: steps.drafted };
}
