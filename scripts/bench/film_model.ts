// Models for `bench film`: a decoder of a real shape with random weights behind random visual features, and one frame through a real tower.

import { evenCells } from '../../src/image/cells';
import type { DecoderConfig } from '../../src/models/config';
import { decoder } from '../../src/models/decoder';
import { resized } from '../../src/models/families/vila_layouts';
import type { MediumLayout } from '../../src/models/media';
import type { VisionLanguageModel } from '../../src/models/model';
import { squarePatches } from '../../src/models/patches';
import { buildTower } from '../../src/models/tower';
import { PLAIN_VIT } from '../../src/models/tower_config';
import { float32 } from '../../src/ops/run';
import { uniform } from '../../src/text/random';
import type { FilmShape } from './film_counts';
import { randomWeights } from './random_weights';
import { median } from './timing';

const PATCH = 14;
const pace = async (): Promise<void> => undefined;

export interface FilmModel {
  readonly model: VisionLanguageModel;
  readonly contextLength: number;
  /** Milliseconds of the head for one row. */
  headMs(): number;
  dispose(): void;
}

export interface FilmModelOptions {
  readonly visual: number;
  /** Of a frame. */
  readonly tokens: number;
  readonly layers: number;
  readonly answer: number;
  readonly weights: 'bf16' | 'awq';
  readonly precision: 'exact' | 'fast';
}

/** `base` with `layers` of the decoder, and a tower that gives random features and salience at once. */
export async function filmModel(
  base: VisionLanguageModel,
  { decoder: [hiddenSize, , intermediateSize, heads, kvHeads, vocabSize] }: FilmShape,
  { visual, tokens, layers, answer, weights: format, precision }: FilmModelOptions,
): Promise<FilmModel> {
  const contextLength = visual + answer + 512;
  const largest = hiddenSize * Math.max(intermediateSize, vocabSize);
  const weights = randomWeights(format, largest, precision, /embed_tokens/);
  const config: DecoderConfig = {
    ...{ hiddenSize, layers, intermediateSize, heads, kvHeads, vocabSize, maxPositions: contextLength },
    ...{ headDim: hiddenSize / heads, ropeTheta: 1e6, ropeScaling: { type: 'default' }, rmsNormEps: 1e-6 },
    ...{ hiddenAct: 'silu', attentionBias: { qkv: true, o: false }, tieWordEmbeddings: false },
  };
  const llm = await decoder(config, weights, pace);
  weights.close();
  const random = uniform(1);
  const features = float32(
    Float32Array.from({ length: visual * hiddenSize }, () => random() - 0.5),
    [visual, hiddenSize],
  );
  const salience = Float32Array.from({ length: visual }, random);
  const layout = filmLayout(visual / tokens, tokens);
  const size = { kind: 'image', width: tokens, height: 1, frames: 1 } as const;
  const canvases = layout.canvases.map(() => ({ width: 1, height: 1, data: new Uint8Array(3) }));
  const model: VisionLanguageModel = {
    ...{ ...base, decoder: llm },
    prepare: async (media) => media.map(() => ({ layout, made: { size, turn: { media: 1 } }, canvases })),
    encode: async () => {
      const own = features.clone();
      return { layout, tokens: visual, features: own, salience: [salience], keys: [], dispose: () => own.dispose() };
    },
    project: (rows) => rows.clone(),
  };
  const row = llm.embed([1]);
  const head = (): number => {
    const begin = performance.now();
    llm.logits(row, true);
    return performance.now() - begin;
  };
  return {
    model,
    contextLength,
    headMs: () => median(Array.from({ length: 9 }, head)),
    dispose: () => {
      for (const tensor of [row, features]) tensor.dispose();
      weights.dispose();
    },
  };
}

/** Frames as planes of tokens in a row. */
function filmLayout(frames: number, tokens: number): MediumLayout {
  const cells = evenCells({ width: tokens, height: 1 }, 1, tokens);
  const shown = Array.from({ length: frames }, (_, frame) => frame);
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
    grids: [{ t: frames, h: 1, w: tokens, frames: shown, cells }],
    runs: [{ grid: 0, from: 0, to: frames * tokens }],
  };
}

/** Median seconds of one frame through the tower in bf16. Windows are not modelled: every patch attends all of its frame. */
export async function frameSeconds({ tower: [e, layers, ffn, , patches] }: FilmShape, rounds: number): Promise<number> {
  const weights = randomWeights('bf16', e * ffn, 'exact');
  const side = Math.sqrt(patches);
  const sizes = { hiddenSize: e, intermediateSize: ffn, layers, heads: 16, imageSize: side * PATCH, patchSize: PATCH };
  const tower = await buildTower(
    {
      ...{ ...PLAIN_VIT, ...sizes, depth: layers, normEps: 1e-6, activation: 'gelu' },
      ...{ patchBias: true, classToken: false, preNorm: false },
    },
    weights,
    pace,
  );
  weights.close();
  const values = Float32Array.from({ length: 3 * (side * PATCH) ** 2 }, (_, i) => Math.sin(i));
  const of = squarePatches(1, side, PATCH);
  const times: number[] = [];
  for (let i = 0; i <= rounds; i++) {
    const begin = performance.now();
    (await tower.run(of, () => values, { salience: [-1] }, pace)).features.dispose();
    times.push((performance.now() - begin) / 1000);
  }
  weights.dispose();
  return median(times.slice(1));
}
