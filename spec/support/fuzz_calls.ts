// Seeded calls of the public API that need no model: factories, helpers, pictures of answers, and long operations.

import * as api from '../../src';
import { scene } from './assets';
import { method } from './fuzz_method';
import { junk, type Maker, options, pick, question, type Random, signal, some } from './fuzz_values';

export function factory(random: Random): () => unknown {
  const { cdPruner, dart, divPrune, downsample, fastV, hiPrune, holoV, mmTok, pruMerge, pruMergePlus, pyramidDrop } =
    api;
  const { quest, random: drawn, randomDeep, snapKv } = api;
  const { evs, infiniPotV, pixelPrune, quota, reKv, stcCacher, storm, vCast, vidCom2, videoScan } = api;
  const { sparseVila, sparseVlm, sparseVlmPlus, uniform, vScan, visionZip, METHODS } = api;
  const share: Maker = () => random();
  const given = options(
    random,
    {
      prefillSparsity: share,
      decodeSparsity: share,
      positions: () => 'compact',
      layer: () => 1,
      seed: () => 1,
      frames: () => 2,
      localFrames: () => 2,
    },
    0.3,
  );
  const make = pick<(given: never) => unknown>(random, [
    ...[divPrune, fastV, hiPrune, pruMerge, pruMergePlus, pyramidDrop, quest, drawn, snapKv],
    ...[evs, infiniPotV, pixelPrune, quota, reKv, stcCacher, storm, vCast, vidCom2, videoScan],
    ...[cdPruner, dart, downsample, holoV, mmTok, randomDeep],
    ...[sparseVila, sparseVlm, sparseVlmPlus, uniform, vScan, visionZip],
    ...METHODS.map((entry) => (of: api.MethodRatios) => entry.create(of)),
  ]);
  return () => make(given as never);
}

export function helper(random: Random): () => unknown {
  const [a, b] = [method(random), method(random)] as [api.SparsityMethod, api.SparsityMethod];
  return pick<() => unknown>(random, [
    () => api.compose(a, b),
    () => api.observed(a),
    () =>
      api.topK(
        (random() < 0.5 ? new Float32Array(9).fill(random()) : junk(random)) as Float32Array,
        (random() < 0.5 ? 3 : junk(random)) as number,
      ),
    () => api.budget((random() < 0.5 ? 9 : junk(random)) as number, (random() < 0.5 ? 0.5 : junk(random)) as number),
  ]);
}

export function explain(random: Random, answers: readonly api.Answer[]): () => unknown {
  const stats = answers.map((answer) => answer.stats).find((made) => made !== undefined && made.media.length > 0);
  const turn = options(random, {
    question: () => question(random),
    answer: () => 'red',
    images: () => (stats?.media ?? []).map(() => scene(0)),
    stats: () => stats,
    relevance: () => [],
  });
  const turns = random() < 0.8 ? [turn] : junk(random);
  const given = options(random, { title: () => 'title', signal: () => signal(random) });
  return () => api.explain(turns as api.ExplainedTurn[], given as api.ExplainOptions);
}

/** Calls of long operations with an invalid argument, so that only their validation runs. */
export function job(random: Random): () => unknown {
  const withUnknown = { 'no such option': 1, ...some(random, { signal: () => signal(random) }, 0.1) };
  const given = random() < 0.8 ? withUnknown : pick<unknown>(random, [null, 7, 'x', [], () => 1]);
  return pick<() => unknown>(random, [
    () => api.setup(given as never),
    () => api.quantize(given as never),
    () => api.convert(given as never),
    () => api.evaluate(given as never),
    () => api.readDataSet((random() < 0.5 ? 'no/such.jsonl' : junk(random)) as never),
    () =>
      api.scenesSet(
        (random() < 0.5 ? { scenes: 1, turns: 1, frames: junk(random), seed: 'x' } : junk(random)) as never,
      ),
  ]);
}
