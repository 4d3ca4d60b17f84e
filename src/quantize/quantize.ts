// Makes a 4-bit checkpoint from a float one, layer by layer. Memory: while the calibration set is encoded, the embedding, tower and
// projector (the whole model where answers have to be asked for); then one layer in f32, as read and packed while conversations run
// through it, as read and two thirds of it packed while it is searched. On top, in f32, `calibration rows x d` for the hidden states,
// `rows x (10 d + 5 ffn)` for the search, and in f64 `512 x (3 d + ffn)`. Of a 7B model (d 3584, ffn 18944, 28 layers;
// `bench checkpoint`) with --samples 3 --rows 128 at most 3.9 GB were resident.

import { createHash } from 'node:crypto';
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { SparseVilaError } from '../errors';
import { breather } from '../models/breath';
import { type DecoderConfig, ropeInverseFrequencies } from '../models/config';
import { loadModel, loadRowModel } from '../models/load';
import type { LoadOptions } from '../models/model';
import { ropeTable } from '../ops/rope';
import { float32, floats } from '../ops/run';
import { guardedCallback } from '../options';
import { writeError } from '../runtime/atomic';
import {
  type CalibrationSample,
  completeSample,
  isComplete,
  readCalibration,
  readCalibrationBytes,
  type Sequence,
  sequenceOf,
  spread,
  withSample,
} from './calibration';
import { finishCheckpoint, writeLayer } from './checkpoint';
import { floatLayer, type LayerWeights, readLayer } from './layer';
import {
  type CheckedOptions,
  checkedDecoderConfig,
  checkQuantizeOptions,
  decoderFolder,
  inputsOf,
  packagedScenes,
  type QuantizeOptions,
} from './options';
import { awqLayer, type GroupError, roundLayer } from './quantize_layer';
import { collectStatistics, drawSampling, type StatisticsCollector } from './statistics';
import { openTensors, type Tensors } from './tensors';
import { openWorkFolder, type WorkFolder } from './work_folder';

export type { QuantizeOptions } from './options';

export interface QuantizeResult {
  readonly out: string;
  /** What the search did to each layer; empty for round-to-nearest. */
  readonly layers: readonly { readonly layer: number; readonly errors: readonly GroupError[] }[];
  readonly calibration:
    | { readonly conversations: number; readonly visualRows: number; readonly textRows: number }
    | undefined;
  /** Layers that an earlier run had finished. */
  readonly resumed: number;
}

/** What the steps of one run share. */
interface Run {
  readonly options: CheckedOptions;
  readonly config: DecoderConfig;
  readonly tensors: Tensors;
  readonly work: WorkFolder;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: NonNullable<QuantizeOptions['onProgress']>;
}

/**
 * Quantises a checkpoint folder into a new one. Interrupted, the same call continues where it was.
 * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_CALIBRATION`, `ERR_QUANTIZE_SHAPE`, `ERR_ALREADY_QUANTIZED`, `ERR_NOT_FINITE`,
 *   `ERR_OUTPUT_EXISTS`, `ERR_RESUME_MISMATCH`, `ERR_BUSY`, `ERR_DISK_FULL`, and what loading throws; `signal.reason`
 */
export async function quantize(given: QuantizeOptions): Promise<QuantizeResult> {
  const options = checkQuantizeOptions(given);
  const folder = decoderFolder(options.model);
  const config = checkedDecoderConfig(folder, options);
  const tensors = openTensors(folder);
  const { signal } = given;
  const onProgress = guardedCallback('onProgress', given.onProgress ?? (() => undefined));
  const work = openWorkFolder(options.out, keyOf(options, tensors), inputsOf(options));
  try {
    const run: Run = { options, config, tensors, work, signal, onProgress };
    const resumed = options.modules.includes('decoder') ? countFinished(work, config) : 0;
    const calibration = options.modules.includes('decoder') ? await quantizeLayers(run, resumed) : undefined;
    const layers = [...work.finished.values()] as QuantizeResult['layers'];
    await finishCheckpoint(options, tensors, config, work, { signal, onProgress });
    return { out: resolve(options.out), layers, calibration, resumed };
  } catch (error) {
    throw writeError(error, work.folder);
  } finally {
    work.close();
  }
}

/** Of what a run depends on: a resumed run must have the same. */
function keyOf(options: CheckedOptions, { entries }: Tensors): string {
  const { out: _, model: __, calibration, ...rest } = options;
  const hash = createHash('sha256').update(JSON.stringify(rest));
  if (calibration !== undefined) hash.update(readCalibrationBytes(calibration));
  const files = new Set<string>();
  for (const { name, dtype, shape, offset, file } of entries.values()) {
    hash.update(JSON.stringify([name, dtype, shape, offset]));
    files.add(file);
  }
  for (const file of [...files].sort()) {
    const { size, mtimeMs } = statSync(file);
    hash.update(JSON.stringify([size, mtimeMs]));
  }
  return hash.digest('hex');
}

const stepOf = (layer: number): string => `layer-${layer}`;

function countFinished(work: WorkFolder, config: DecoderConfig): number {
  let layer = 0;
  while (layer < config.layers && work.finished.has(stepOf(layer))) layer++;
  return layer;
}

async function quantizeLayers(run: Run, first: number): Promise<QuantizeResult['calibration']> {
  const { options, config, tensors } = run;
  if (first === config.layers) return undefined;
  if (options.method === 'rtn') {
    for (let i = first; i < config.layers; i++) {
      const round = { group: options.groupSize, symmetric: options.symmetric };
      const weights = readLayer(tensors, config, i);
      await writeLayer(run.work, i, weights, roundLayer(weights, round), options);
      run.work.finish(stepOf(i), { layer: i, errors: [] });
      run.onProgress({ step: 'quantise layers', done: i + 1, total: config.layers, unit: 'layers' });
      await breather(run.signal)();
    }
    return undefined;
  }
  const sequences = await calibrationSequences(run);
  const sampling = drawSampling(sequences, options.rows);
  for (let i = 0; i < config.layers; i++) {
    const weights = readLayer(tensors, config, i);
    const collector = i < first ? undefined : collectStatistics(sequences, sampling, config, options.groupSize);
    await advance(run, i, weights, sequences, collector);
    if (collector !== undefined) await searchLayer(run, i, weights, sequences, collector);
  }
  const { visual, text } = sampling.counts;
  return { conversations: sequences.length, visualRows: visual, textRows: text };
}

async function calibrationSequences({ options, signal, onProgress }: Run): Promise<Sequence[]> {
  const { calibration: file } = options;
  const samples = spread(file === undefined ? packagedScenes('calibration') : readCalibration(file), options.samples);
  const load = { onProgress, ...(signal === undefined ? {} : { signal }) };
  const { model, complete } = samples.every(isComplete)
    ? { model: await loadRowModel(options.model, load), complete: async (sample: CalibrationSample) => sample }
    : await wholeModel(options.model, load);
  try {
    const sequences: Sequence[] = [];
    for (const [i, sample] of samples.entries()) {
      onProgress({ step: 'read calibration set', done: i, total: samples.length, unit: 'conversations' });
      sequences.push(await withSample(sample, async () => sequenceOf(model, await complete(sample), signal)));
    }
    onProgress({ step: 'read calibration set', done: samples.length, total: samples.length, unit: 'conversations' });
    return sequences;
  } finally {
    model.dispose();
  }
}

/** The model with its decoder, to be asked for answers. */
async function wholeModel(path: string, load: LoadOptions) {
  const model = await loadModel(path, load);
  return { model, complete: (sample: CalibrationSample) => completeSample(model, sample, load.signal) };
}

/** Runs every sequence through float layer `i`, in place. */
async function advance(
  { config, signal }: Run,
  i: number,
  weights: LayerWeights,
  sequences: readonly Sequence[],
  collector: StatisticsCollector | undefined,
): Promise<void> {
  const breathe = breather(signal);
  const frequencies = ropeInverseFrequencies(config);
  const layer = floatLayer(weights, config);
  try {
    for (const [s, sequence] of sequences.entries()) {
      const x = float32(sequence.x, [sequence.positions.length, config.hiddenSize]);
      const table = ropeTable(sequence.positions, frequencies);
      const y = layer.run(x, table, collector && ((site, input) => collector.see(s, site, input)));
      sequence.x = floats(y).slice();
      for (const tensor of [x, table, y]) tensor.dispose();
      if (!sequence.x.every(Number.isFinite)) {
        throw new SparseVilaError(
          'ERR_NOT_FINITE',
          `Layer ${i} of the float model gives NaN or infinity for calibration conversation ${s + 1}. Does the model answer it in f32?`,
        );
      }
      await breathe();
    }
  } finally {
    layer.dispose();
  }
}

/** Trials of one layer, for the progress bar: about 20 per group and the clip search. */
const TRIALS = 100;

async function searchLayer(
  { options, config, work, signal, onProgress }: Run,
  i: number,
  weights: LayerWeights,
  sequences: readonly Sequence[],
  collector: StatisticsCollector,
): Promise<void> {
  const breathe = breather(signal);
  let trials = 0;
  const report = async (): Promise<void> => {
    trials = Math.min(trials + 1, TRIALS - 1);
    onProgress({ step: 'quantise layers', done: i + trials / TRIALS, total: config.layers });
    await breathe();
  };
  const round = { group: options.groupSize, symmetric: options.symmetric };
  const quantized = await awqLayer(weights, collector.finish(), {
    ...{ config, sequences, round, breathe: report },
    feedback: options.rounding === 'feedback',
  });
  await writeLayer(work, i, weights, quantized, options);
  work.finish(stepOf(i), { layer: i, errors: quantized.errors });
  onProgress({ step: 'quantise layers', done: i + 1, total: config.layers });
}
