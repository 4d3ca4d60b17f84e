// Compares a quantized checkpoint, and round-to-nearest, with the float original: features of the
// tower and rows of the projector, hidden states after each layer, the next token's distribution along the float model's answers, and numbers of correct and changed answers.
// One model is in memory at a time; the float model's results are held for a bounded number of conversations.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadModel } from '../models/load';
import type { VisionLanguageModel } from '../models/model';
import { pacer } from '../models/pacer';
import { float32, floats } from '../ops/run';
import { writeError } from '../runtime/atomic';
import type { OnProgress } from '../runtime/progress';
import type { Tensor } from '../runtime/tensor';
import { answered, type CalibrationSample, eachSample, readCalibration, sequenceOf } from './calibration';
import { outputError } from './loss';
import { packagedScenes } from './options';
import { encodePicture } from './pictures';
import { type QuantizeOptions, quantize } from './quantize';
import type { GroupError } from './search';

/** The options that round-to-nearest shares with the checkpoint. A tower in 8 bits is the same in both. */
type SharedOptions = Pick<
  QuantizeOptions,
  'model' | 'groupSize' | 'symmetric' | 'modules' | 'tower' | 'calibration' | 'samples' | 'rows'
>;

export interface ReportOptions extends SharedOptions {
  readonly quantized: string;
  /** JSON lines as for calibration, with `truth` for accuracy; default the packaged scenes that are not used for calibration. */
  readonly evaluation?: string | undefined;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** One 4-bit model compared with the float one. */
export interface VariantReport {
  readonly name: 'round-to-nearest' | 'quantized';
  /** NMSE of the tower's features, and of the projector's rows, of the pictures. */
  readonly features: { readonly tower: number; readonly projector: number };
  /** Mean KL(float || this) of the next token, nats. */
  readonly kl: number;
  /** Share of tokens of the float model's answers that are still the most likely. */
  readonly tokens: number;
  /** Answers equal to the float model's. */
  readonly agreeing: number;
  /** Answers equal to the truth, if it is known. */
  readonly right: number;
}

export interface Report {
  readonly questions: number;
  readonly withTruth: number;
  readonly float: { readonly right: number };
  readonly variants: readonly VariantReport[];
}

/** Conversations whose features and logits are held. */
const HELD = 32;

/** One model's answers to all questions, and its logits along given answers. */
interface Observation {
  /** The samples with its answers. */
  readonly said: readonly CalibrationSample[];
  /** Per picture of the held conversations. */
  readonly pictures: readonly { readonly tower: Float32Array; readonly projector: Float32Array }[];
  /** Per held conversation. */
  readonly traces: readonly {
    readonly logits: Float32Array;
    readonly next: readonly number[];
  }[];
}

/** Makes the report. @throws errors of loading and quantizing; `signal.reason` */
export async function report(options: ReportOptions): Promise<Report> {
  const { quantized, evaluation, ...shared } = options;
  const samples = evaluation === undefined ? packagedScenes('evaluation') : readCalibration(evaluation);
  const float = await observe(options.model, samples, undefined, 'float', options);
  const variants: VariantReport[] = [];
  let folder: string | undefined;
  try {
    folder = mkdtempSync(join(tmpdir(), 'sparsevila-report-'));
    const rtn = join(folder, 'rtn');
    await quantize({ ...shared, out: rtn, method: 'rtn', format: 'compressed-tensors' });
    for (const [name, source] of [
      ['round-to-nearest', rtn],
      ['quantized', quantized],
    ] as const) {
      const observed = await observe(source, samples, float.said, name, options);
      variants.push({ name, ...compare(float, observed), ...count(observed, float) });
    }
  } catch (error) {
    throw writeError(error, tmpdir());
  } finally {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  }
  const turns = turnsOf(float);
  const withTruth = turns.filter(({ truth }) => truth !== undefined).length;
  return { questions: turns.length, withTruth, float: { right: count(float, float).right }, variants };
}

const turnsOf = ({ said }: Observation): CalibrationSample['turns'] => said.flatMap(({ turns }) => turns);

function count(own: Observation, float: Observation): { agreeing: number; right: number } {
  const turns = turnsOf(own);
  return {
    agreeing: turnsOf(float).filter(({ answer }, i) => answer === turns[i]?.answer).length,
    right: turns.filter(({ answer, truth }) => answer === truth).length,
  };
}

async function observe(
  folder: string,
  samples: readonly CalibrationSample[],
  reference: readonly CalibrationSample[] | undefined,
  name: string,
  { signal, onProgress }: ReportOptions,
): Promise<Observation> {
  const model = await loadModel(folder, signal === undefined ? {} : { signal });
  try {
    const asking = { step: `ask the ${name} model` };
    const said = await eachSample({ samples, onProgress }, asking, (sample) =>
      answered(model, sample, 'forget', signal),
    );
    const [pictures, traces] = [[], []] as [Observation['pictures'][number][], Observation['traces'][number][]];
    for (const sample of (reference ?? said).slice(0, HELD)) {
      for (const path of sample.images) pictures.push(await featuresAndRows(model, path, signal));
      traces.push(await trace(model, sample, signal));
    }
    return { said, pictures, traces };
  } finally {
    model.dispose();
  }
}

/** The model's features and rows of a picture. */
async function featuresAndRows(model: VisionLanguageModel, path: string, signal?: AbortSignal) {
  const encoded = await encodePicture(model, path, signal);
  const projected = model.project(encoded.features, encoded.layout);
  try {
    return { tower: floats(encoded.features).slice(), projector: floats(projected).slice() };
  } finally {
    projected.dispose();
    encoded.dispose();
  }
}

/** Logits along given answers. */
async function trace(model: VisionLanguageModel, sample: CalibrationSample, signal?: AbortSignal) {
  const { x, positions, answers, ...sequence } = await sequenceOf(model, sample, signal);
  const { decoder } = model;
  const cache = decoder.cache('f32', positions.length);
  const input = float32(x, [positions.length, decoder.config.hiddenSize]);
  const added = sequence.added?.map((rows) => float32(rows, [positions.length, decoder.config.hiddenSize]));
  const made: Tensor[] = [input, ...(added ?? [])];
  try {
    const y = await decoder.forward(input, [{ cache, positions, added }], { pace: pacer(signal) });
    made.push(y);
    const scores = decoder.scores(
      y,
      answers.map(({ row }) => row),
    );
    made.push(scores);
    return { logits: floats(scores).slice(), next: answers.map(({ next }) => next) };
  } finally {
    for (const tensor of made) tensor.dispose();
    cache.dispose();
  }
}

function compare(float: Observation, other: Observation): Pick<VariantReport, 'features' | 'kl' | 'tokens'> {
  const seen = (part: 'tower' | 'projector'): number =>
    outputError(
      other.pictures.map((picture) => picture[part]),
      float.pictures.map((picture) => picture[part]),
    );
  const features = { tower: seen('tower'), projector: seen('projector') };
  let [kl, agreeing, tokens] = [0, 0, 0];
  for (const [i, { logits, next }] of float.traces.entries())
    for (const [row, id] of next.entries()) {
      const width = logits.length / next.length;
      const at = (values: Float32Array): Float32Array => values.subarray(row * width, (row + 1) * width);
      const theirs = at(other.traces[i]?.logits as Float32Array);
      kl += divergence(at(logits), theirs);
      agreeing += theirs.every((value) => value <= (theirs[id] as number)) ? 1 : 0;
      tokens++;
    }
  return { features, kl: kl / tokens, tokens: agreeing / tokens };
}

/** KL(softmax p || softmax q), nats. */
function divergence(p: Float32Array, q: Float32Array): number {
  const [logP, logQ] = [logSoftmax(p), logSoftmax(q)];
  return logP.reduce((sum, value, i) => sum + Math.exp(value) * (value - (logQ[i] as number)), 0);
}

function logSoftmax(logits: Float32Array): Float64Array {
  const top = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const total = logits.reduce((sum, value) => sum + Math.exp(value - top), 0);
  return Float64Array.from(logits, (value) => value - top - Math.log(total));
}

/** Formats the report as a table; `groups` are the named results of the searches. */
export function formatReport(result: Report, groups: readonly GroupError[]): string {
  const { questions, withTruth, float, variants } = result;
  const share = (part: number, whole: number): string => (whole === 0 ? '-' : `${((100 * part) / whole).toFixed(1)} %`);
  const row = (...cells: readonly string[]): string =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(28) : cell.padStart(18))).join('');
  const line = (name: string, value: (variant: VariantReport) => string, original = '') =>
    row(name, original, ...variants.map(value));
  const lines = [
    row(`${questions} questions`, 'float', ...variants.map(({ name }) => name)),
    line('right answers', ({ right }) => share(right, withTruth), share(float.right, withTruth)),
    line('answers as float', ({ agreeing }) => share(agreeing, questions)),
    line('tokens as float', ({ tokens }) => `${(100 * tokens).toFixed(2)} %`),
    line('KL of next token, nats', ({ kl }) => kl.toExponential(2)),
    ...(['tower', 'projector'] as const)
      .filter((part) => variants.some(({ features }) => features[part] > 0))
      .map((part) => line(`NMSE after the ${part}`, ({ features }) => features[part].toExponential(2))),
    ...(groups.length > 0
      ? ['', 'NMSE of the output of each group of matrices that is scaled together, on the calibration rows']
      : []),
    ...groups.map(({ group, rtn, chosen }) => row(`  ${group}`, '', rtn.toExponential(2), chosen.toExponential(2))),
  ];
  return `${lines.join('\n')}\n`;
}
