// Quantizes one part block by block: calibration rows run through each float block while the inputs of its linear layers are recorded; then the
// block is searched, rounded or smoothed. Blocks that an earlier run has finished only run.

import type { WorkFolder } from '../checkpoint/work_folder';
import { SparseVilaError } from '../errors';
import type { Block } from '../models/blocks';
import { quantizeMatrix } from '../ops/quantize';
import { float32, floats } from '../ops/run';
import type { OnProgress } from '../runtime/progress';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { type BlockWeights, floatOps, readBlock } from './block_weights';
import type { CalibrationSample } from './calibration';
import type { CheckedOptions } from './options';
import { type MadeBlock, stepsOf, writeBlock } from './output';
import { floatsOf, type OpenPart, type Part, type Rows, rowsOf, WIDENED_LAYERS } from './parts';
import { type GroupError, searchBlock } from './search';
import { smoothBlock, takeLargest } from './smooth';
import { collectStatistics, type Sampling } from './statistics';

/** The settings that the steps of one run share. */
export interface Run {
  readonly options: CheckedOptions;
  readonly samples: readonly CalibrationSample[];
  readonly work: WorkFolder;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: OnProgress;
  readonly pace: () => Promise<void>;
}

/** The record of a finished block in the work folder. */
export interface Finished {
  readonly errors: readonly GroupError[];
  /** Calibration sequences. */
  readonly sequences: number;
}

/** Blocks that an earlier run had finished. */
export function countFinished(work: WorkFolder, part: Part): number {
  const steps = stepsOf(part);
  const next = steps.findIndex((step) => !work.finished.has(step));
  return next < 0 ? steps.length : next;
}

/** The calibration rows of a part. */
export interface CalibrationCounts {
  readonly conversations: number;
  readonly visualRows: number;
  readonly textRows: number;
}

/** Quantizes the blocks of a part from `first` on; returns its calibration rows. */
export async function quantizePart(run: Run, open: OpenPart, first: number): Promise<CalibrationCounts | undefined> {
  const { options, work, onProgress, pace } = run;
  const { part, bits } = open;
  const total = part.blocks.length;
  if (first === total) return undefined;
  const isCalibrated = options.method === 'awq' || bits === 8;
  const sequences = isCalibrated ? await rowsOf(part, { ...run, model: options.model }) : [];
  const sampling = part.sample(sequences, options.rows);
  const step = part.name === 'decoder' ? 'quantize layers' : `quantize ${part.name}`;
  for (let i = isCalibrated ? 0 : first; i < total; i++) {
    const float = readBlock(part.block(i), (name, shape) => floatsOf(open, (part.blocks[i] as string) + name, shape));
    const weights = part.widen(float);
    const report = trialReporter((share) => onProgress({ step, done: i + share, total }), pace);
    const collector = i < first ? undefined : collectorOf(run, open, i, sequences, sampling);
    if (isCalibrated) await advance(run, part, i, weights, sequences, collector?.see);
    if (collector === undefined) continue;
    const { errors, ...made } = await collector.make(weights, report);
    const vectors = new Map(made.vectors);
    if (weights !== float)
      for (const name of WIDENED_LAYERS) {
        const bias = weights.biases[name];
        if (bias !== undefined && !vectors.has(`${name}.bias`)) vectors.set(`${name}.bias`, bias);
      }
    await writeBlock(work, open, i, { ...made, vectors }, options);
    work.finish(stepsOf(part)[i] as string, { errors, sequences: sequences.length } satisfies Finished);
    onProgress({ step, done: i + 1, total });
    await pace();
  }
  const { visual, text } = sampling.counts;
  return isCalibrated ? { conversations: sequences.length, visualRows: visual, textRows: text } : undefined;
}

/** Trials of one block, for the progress bar: about 20 per group and the clip search. */
const TRIALS = 100;

function trialReporter(onShare: (share: number) => void, pace: () => Promise<void>): () => Promise<void> {
  let trials = 0;
  return async () => {
    trials = Math.min(trials + 1, TRIALS - 1);
    onShare(trials / TRIALS);
    await pace();
  };
}

/** Runs every sequence through float block `i`, in place. */
async function advance(
  { pace }: Run,
  part: Part,
  i: number,
  weights: BlockWeights,
  sequences: Rows[],
  see: Collector['see'] | undefined,
): Promise<void> {
  const { tf } = start();
  const wide = part.wide(i);
  const ops = floatOps(wide, weights);
  try {
    for (const [s, sequence] of sequences.entries()) {
      const x = float32(sequence.x, [sequence.visual.length, sequence.x.length / sequence.visual.length]);
      const own = { ...ops, attend: part.attend(sequence, i) };
      const y = tf.tidy(() => wide.run(own, x, see && ((site, input) => see(s, site, input))));
      const added = sequence.added?.[i];
      const next = floats(y).slice();
      sequences[s] = { ...sequence, x: added === undefined ? next : next.map((value, at) => value + (added[at] ?? 0)) };
      for (const tensor of [x, y]) tensor.dispose();
      if (sequences[s]?.x.some((value) => !Number.isFinite(value))) {
        throw new SparseVilaError(
          'ERR_NOT_FINITE',
          `${part.blockCalled} ${i} of the float model gives NaN or infinity for calibration ${part.name === 'decoder' ? 'conversation' : 'picture'} ${s + 1}. ` +
            'Are the weights whole, and does the model run in f32?',
        );
      }
      await pace();
    }
  } finally {
    ops.dispose();
  }
}

/** Records the inputs of a block's linear layers while calibration rows run through it, and then quantizes it. */
interface Collector {
  see(sequence: number, site: string, input: Tensor): void;
  make(
    weights: BlockWeights,
    report: () => Promise<void>,
  ): Promise<MadeBlock & { readonly errors: readonly GroupError[] }>;
}

function collectorOf(
  { options }: Run,
  { part, bits }: OpenPart,
  block: number,
  sequences: readonly Rows[],
  sampling: Sampling,
): Collector {
  const { method, groupSize: group, symmetric, rounding } = options;
  const round = { group, symmetric };
  if (bits === 8) return smoothing(part.wide(block));
  if (method === 'rtn') {
    return {
      see: () => undefined,
      make: async ({ linears }) => {
        const made = Object.entries(linears).map(([name, matrix]) => [name, quantizeMatrix(matrix, round)]);
        return { linears: Object.fromEntries(made), vectors: new Map(), errors: [] };
      },
    };
  }
  const { vectors } = part;
  const wide = part.wide(block);
  const collector = collectStatistics(sequences, sampling, wide.sites, group);
  const attend = (s: number) => part.attend(sequences[s] as Rows, block);
  const search = { round, feedback: rounding === 'feedback', vectors, attend };
  return {
    see: collector.see,
    make: (weights, pace) => searchBlock(wide, weights, collector.finish(), { ...search, pace }),
  };
}

function smoothing(wide: Block): Collector {
  const sites = wide.sites.filter(({ absorbedBy }) => absorbedBy && 'norm' in absorbedBy);
  const largest = new Map(sites.map(({ name, width }) => [name, new Float32Array(width)]));
  return {
    see: (_, site, input) => {
      const known = largest.get(site);
      if (known !== undefined) takeLargest(known, floats(input));
    },
    make: async (weights) => ({ ...smoothBlock(wide, weights, largest), errors: [] }),
  };
}
