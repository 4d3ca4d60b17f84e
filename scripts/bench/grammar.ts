// `bench grammar`: what it costs a token that the answer is held to a JSON schema: random schemas, a decoder of real shape with random 4-bit weights.
// Each answer is also given without a schema, in turns. A random decoder draws any allowed token, so that the answers visit more states of a schema,
// and need more new masks, than those of a trained one.

import type { CommandModule } from 'yargs';
import { randomSchema, randomVocabulary } from '../../spec/support/random_schemas';
import { SparseVilaError } from '../../src/errors';
import type { AnswerFormat, ConstrainedModel } from '../../src/grammar/constraint';
import { decoder } from '../../src/models/decoder';
import { start } from '../../src/runtime/start';
import { chooser } from '../../src/session/choose';
import { pointAt, startConversation, truncateTo } from '../../src/session/conversation';
import { fixedView, plainSteps, type StepContext } from '../../src/session/steps';
import { createSampler } from '../../src/text/sampling';
import { loadTokenizer } from '../../src/text/tokenizer';
import { decoderConfig, SHAPES, type Shape } from './model';
import { randomWeights } from './random_weights';
import { median } from './timing';

const pace = async (): Promise<void> => undefined;
/** Seed of the first schema. */
const SEED = 1000;
/** Shorter answers give no time per token. */
const LEAST = 5;

interface Options {
  shape: Shape;
  schemas: number;
  tokens: number;
  tokenizer: string | undefined;
}

export const GRAMMAR: CommandModule<object, Options> = {
  command: 'grammar',
  describe: 'What a JSON schema adds to the time of a token (the bar: 10 %); 4-bit random weights, random schemas',
  builder: (yargs) =>
    yargs
      .option('shape', {
        choices: Object.keys(SHAPES) as Shape[],
        default: 'tiny-0.39b' as Shape,
        describe: 'Decoder; qwen2-0.5b is the same with 151,936 tokens',
      })
      .option('schemas', { type: 'number', default: 60, describe: 'Number of schemas' })
      .option('tokens', { type: 'number', default: 40, describe: 'Maximum number of tokens of an answer' })
      .option('tokenizer', {
        type: 'string',
        describe: 'Folder of a tokenizer.json',
        defaultDescription: 'random words',
      })
      .example('$0 grammar --shape qwen2-0.5b', ''),
  handler: (options) => benchGrammar(options),
};

/** Milliseconds of choosing tokens and of decoder steps. */
interface Times {
  readonly tokens: number;
  readonly choose: number;
  readonly step: number;
}

async function benchGrammar(o: Options): Promise<void> {
  const { native } = start();
  const config = decoderConfig(o.shape, 2 * o.tokens);
  const weights = randomWeights(
    'awq',
    config.hiddenSize * Math.max(config.intermediateSize, config.vocabSize),
    'exact',
    /embed_tokens/,
  );
  const model = await decoder(config, weights, pace);
  weights.close();
  const constrained: ConstrainedModel =
    o.tokenizer === undefined
      ? randomVocabulary(config.vocabSize)
      : { tokenizer: loadTokenizer(o.tokenizer), stopIds: [], decoder: { config } };
  const conversation = startConversation(model.cache('bf16'));
  const context: StepContext = { model: { decoder: model }, conversation, pace };
  const answer = answerer({ ...constrained, decoder: model } as Parameters<typeof chooser>[0], context, o.tokens);
  const pairs: { readonly plain: Times; readonly held: Times }[] = [];
  // The vocabulary is read once for a model.
  await answer({ type: 'json' }, 0);
  for (let seed = 0; seed < o.schemas; seed++) {
    const plain = await answer(undefined, seed);
    const held = await answer({ type: 'schema', schema: randomSchema(SEED + seed) }, seed);
    if (plain !== undefined && held !== undefined && Math.min(plain.tokens, held.tokens) >= LEAST)
      pairs.push({ plain, held });
  }
  const figures = summary(pairs);
  const machine = { isa: native.isa(), threads: native.threads() };
  process.stdout.write(
    `${o.shape}, 4 bits, ${config.vocabSize} tokens, ${machine.isa}, ${machine.threads} threads; ${pairs.length} schemas\n` +
      `step ${figures.stepMs.toFixed(2)} ms; choosing ${figures.plainMs.toFixed(2)} ms, held to a schema ${figures.heldMs.toFixed(2)} ms\n` +
      `overhead of a token: ${percent(figures.overhead)}; by schema median ${percent(figures.median)}, p90 ${percent(figures.p90)}\n`,
  );
  process.stdout.write(`${JSON.stringify({ shape: o.shape, vocabulary: config.vocabSize, ...machine, ...figures })}\n`);
}

/** Gives answers to an empty prompt; undefined for a schema that no text satisfies. */
function answerer(model: Parameters<typeof chooser>[0], context: StepContext, most: number) {
  const { conversation } = context;
  return async (format: AnswerFormat | undefined, seed: number): Promise<Times | undefined> => {
    const point = pointAt(conversation);
    const steps = plainSteps(context, fixedView(undefined));
    let choices: ReturnType<typeof chooser>;
    try {
      const options = { format, logprobs: undefined, logitBias: undefined };
      choices = chooser(model, createSampler({ temperature: 1, seed }), options);
    } catch (error) {
      if (error instanceof SparseVilaError) return undefined;
      throw error;
    }
    let [tokens, choose, step] = [0, 0, 0];
    let scores = await steps.next(0, most);
    try {
      while (tokens < most) {
        const begin = performance.now();
        const { id } = choices.choose(scores, conversation.ids);
        choose += performance.now() - begin;
        tokens++;
        if (model.stopIds.includes(id) || choices.isOver) break;
        scores.dispose();
        const middle = performance.now();
        scores = await steps.next(id, 1);
        step += performance.now() - middle;
      }
    } finally {
      scores.dispose();
      choices.dispose();
      truncateTo(conversation, point);
    }
    return { tokens, choose, step };
  };
}

function summary(pairs: readonly { readonly plain: Times; readonly held: Times }[]) {
  const all = (of: (times: Times) => number, which: 'plain' | 'held'): number =>
    pairs.reduce((sum, pair) => sum + of(pair[which]), 0);
  const perToken = (which: 'plain' | 'held', name: 'choose' | 'step'): number =>
    all((times) => times[name], which) / all(({ tokens }) => tokens, which);
  const [plainMs, heldMs] = [perToken('plain', 'choose'), perToken('held', 'choose')];
  // One time of a step for all, since it does not depend on the schema.
  const stepMs = median(
    pairs.flatMap(({ plain, held }) => [plain, held].map(({ step, tokens }) => step / (tokens - 1))),
  );
  const overheads = pairs
    .map(({ plain, held }) => (held.choose / held.tokens - plain.choose / plain.tokens) / (stepMs + plainMs))
    .sort((a, b) => a - b);
  return {
    ...{ stepMs, plainMs, heldMs, overhead: (heldMs - plainMs) / (stepMs + plainMs), median: median(overheads) },
    p90: overheads[Math.floor(0.9 * overheads.length)] ?? Number.NaN,
    tokens: all(({ tokens }) => tokens, 'held'),
  };
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
