// Makes a quantized checkpoint from a float one, block by block: vision tower and projector first, which are fast, then the decoder, then
// all under the final name. Memory: while the calibration set is encoded, the embedding, tower and projector (the whole model where
// answers have to be generated); then one block in f32, as read and packed while calibration rows run through it, as read and two thirds
// of it packed while it is searched. On top, in f32, `calibration rows x d` for the hidden states, `rows x (10 d + 5 ffn)` for the search,
// and in f64 `512 x (3 d + ffn)`. Of a 7B model (d 3584, ffn 18944, 28 layers; `bench checkpoint`) with --samples 3 --rows 128 at most
// 3.9 GB were resident, with Qwen2.5-VL's tower and embedding 6.2 GB.

import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { readQuantization } from '../checkpoint/quantized_config';
import { openWorkFolder, runKey, type WorkFolder } from '../checkpoint/work_folder';
import { installCopy } from '../checkpoint/write_copy';
import { SparseVilaError } from '../errors';
import { planOf } from '../models/load';
import { pacer } from '../models/pacer';
import type { PartName, Plan } from '../models/plan';
import { guardedCallback } from '../options';
import { writeError } from '../runtime/atomic';
import { type CalibrationSample, readCalibration, readCalibrationText, spread } from './calibration';
import { type CheckedOptions, checkQuantizeOptions, invalid, packagedScenes, type QuantizeOptions } from './options';
import { changesOf, isNamed, stepsOf } from './output';
import { HEAD, type OpenPart, openParts, type Part } from './parts';
import { type CalibrationCounts, countFinished, type Finished, quantizePart, type Run } from './run_part';
import type { GroupError } from './search';

export type { QuantizeOptions } from './options';

export interface QuantizeResult {
  readonly out: string;
  /** The results of the search for each layer of the decoder; no errors for round-to-nearest. */
  readonly layers: readonly { readonly layer: number; readonly errors: readonly GroupError[] }[];
  /** For the decoder. */
  readonly calibration: CalibrationCounts | undefined;
  /** Blocks that an earlier run had finished. */
  readonly resumed: number;
  /** `images`: number of calibration pictures, 0 for round-to-nearest. `errors`: those of each searched block, none in 8 bits. */
  readonly tower:
    | { readonly blocks: number; readonly images: number; readonly errors: readonly (readonly GroupError[])[] }
    | undefined;
  readonly projector:
    | { readonly linears: number; readonly images: number; readonly errors: readonly GroupError[] }
    | undefined;
}

/**
 * Quantizes a checkpoint folder into a new one. After an interruption the same call continues.
 * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_CALIBRATION`, `ERR_QUANTIZE_SHAPE`, `ERR_ALREADY_QUANTIZED`, `ERR_NOT_FINITE`,
 *   `ERR_OUTPUT_EXISTS`, `ERR_RESUME_MISMATCH`, `ERR_BUSY`, `ERR_DISK_FULL`, and errors of loading; `signal.reason`
 */
export async function quantize(given: QuantizeOptions): Promise<QuantizeResult> {
  const options = checkQuantizeOptions(given);
  const plan = planOf(options.model);
  const parts = openParts(plan, options);
  const changed = parts.filter(isNamed);
  for (const part of changed) checkPart(plan, part, options);
  checkFolders(changed);
  const { signal } = given;
  const onProgress = guardedCallback('onProgress', given.onProgress ?? (() => undefined));
  const samples = spread(conversationsOf(options), options.samples);
  // The output must be outside of all inputs.
  const { model, calibration: set } = options;
  const key = keyOf(options, changed);
  const work = openWorkFolder(options.out, key, set === undefined ? [model] : [model, set]);
  try {
    const run: Run = { options, samples, work, signal, onProgress, pace: pacer(signal) };
    let resumed = 0;
    let calibration: QuantizeResult['calibration'];
    for (const one of changed.filter(({ bits }) => bits !== undefined)) {
      const first = countFinished(work, one.part);
      resumed += first;
      const counts = await quantizePart(run, one, first);
      if (one.part.name === 'decoder') calibration = counts;
    }
    const results = resultsOf(changed, work);
    const changes = changesOf(plan, options, parts, work, signal);
    await installCopy(plan.folder, changes, { work, key, step: 'write checkpoint', onProgress });
    return { out: resolve(options.out), calibration, resumed, ...results };
  } catch (error) {
    throw writeError(error, work.folder);
  } finally {
    work.close();
  }
}

/** The results of the searches for each group of matrices that is scaled together, with readable names. */
export function searchedGroups({ layers, tower, projector }: QuantizeResult): readonly GroupError[] {
  const named = (place: string, errors: readonly GroupError[]): GroupError[] =>
    errors.map((error) => ({ ...error, group: `${place}, ${error.group}` }));
  return [
    ...(tower?.errors ?? []).flatMap((errors, block) => named(`tower block ${block}`, errors)),
    ...named('projector', projector?.errors ?? []),
    ...layers.flatMap(({ layer, errors }) => named(`layer ${layer}`, errors)),
  ];
}

/** Checks everything that can be checked before a folder is made. */
function checkPart(plan: Plan, { part, index, bits, head }: OpenPart, options: CheckedOptions): void {
  const { folder, quantization } = plan.sources[part.name];
  if ((readQuantization(folder) ?? quantization) !== undefined) {
    throw new SparseVilaError(
      'ERR_ALREADY_QUANTIZED',
      `${folder}: ${part.called} is quantized already. Quantize its float original, leave it alone, or change its format with \`convert\`.`,
    );
  }
  if (bits === 4) checkShapes(part, options);
  if (!head || index.find(HEAD) !== undefined) return;
  throw new SparseVilaError(
    'ERR_OPTION_INVALID',
    `Expected a checkpoint with a head of its own for modules "head": in ${folder} it is tied to the embedding, which stays in floating point.`,
  );
}

function nothing(called: string): SparseVilaError {
  return invalid(
    'modules',
    `parts with linear layers; ${called} of this family is a matrix that no quantized format names`,
    'one',
  );
}

/** Checks the matrices [outputs, inputs] of a part against the limits of the format. @throws SparseVilaError `ERR_QUANTIZE_SHAPE` */
function checkShapes({ name, called, blocks, block, wide }: Part, { groupSize, format }: CheckedOptions): void {
  if (block(0).linears.length === 0) throw nothing(called);
  // A padded MLP fits.
  const fixed = blocks.flatMap((_, index) => {
    const { linears } = wide(index);
    return block(index).linears.filter((one, i) => isDeepStrictEqual(one, linears[i]));
  });
  for (const { name: linear, rows, cols } of fixed) {
    if (cols % groupSize === 0 && (format !== 'autoawq' || rows % 8 === 0)) continue;
    const fits = [128, 64, 32].filter((size) => fixed.every((one) => one.cols % size === 0));
    const shown = `${linear.replace(/^(self_attn|mlp)\./, '')}${name === 'decoder' ? '' : ` of ${called}`}`;
    throw new SparseVilaError(
      'ERR_QUANTIZE_SHAPE',
      `Expected inputs that are a multiple of the group size ${groupSize}` +
        `${format === 'autoawq' ? ' and outputs that are a multiple of 8' : ''}, received ${shown} with ${cols} inputs and ${rows} outputs.` +
        `${fits.length > 0 ? ` Try --group-size ${fits.join(' or ')}.` : ` No group size fits ${called}.`}`,
    );
  }
}

/** Checks that parts in one folder agree, because a folder has one quantization_config. */
function checkFolders(changed: readonly OpenPart[]): void {
  const eight = changed.find(({ bits }) => bits === 8);
  const other = changed.find((part) => part !== eight && part.folder === eight?.folder);
  if (other === undefined) return;
  const expected = `4 bits, as ${other.part.called} in the same folder, or a checkpoint in folders of parts`;
  throw invalid('the tower', expected, '8 bits');
}

/** The calibration set; empty if everything is rounded to nearest. */
function conversationsOf({ calibration, method, tower, modules }: CheckedOptions): CalibrationSample[] {
  if (tower === undefined && (method === 'rtn' || modules.every((module) => module === 'head'))) return [];
  return calibration === undefined ? packagedScenes('calibration') : readCalibration(calibration);
}

/** The inputs of a run, which must be equal when it is resumed. */
function keyOf({ out: _, model: __, calibration, ...rest }: CheckedOptions, changed: readonly OpenPart[]): string {
  const set = calibration && createHash('sha256').update(readCalibrationText(calibration)).digest('hex');
  return runKey(
    [rest, set],
    changed.flatMap(({ index }) => [...index.entries.values()]),
  );
}

function resultsOf(
  changed: readonly OpenPart[],
  { finished }: WorkFolder,
): Pick<QuantizeResult, 'layers' | 'tower' | 'projector'> {
  const of = (name: PartName): { part: Part; blocks: Finished[]; images: number } | undefined => {
    const part = changed.find((one) => one.part.name === name && one.bits !== undefined)?.part;
    if (part === undefined) return undefined;
    const blocks = stepsOf(part).map((step) => finished.get(step) as Finished);
    return { part, blocks, images: blocks[0]?.sequences ?? 0 };
  };
  const [decoder, tower, projector] = [of('decoder'), of('tower'), of('projector')];
  const errors = tower?.blocks.map((block) => block.errors).filter((found) => found.length > 0) ?? [];
  return {
    layers: decoder?.blocks.map((block, layer) => ({ layer, errors: block.errors })) ?? [],
    tower: tower && { blocks: tower.blocks.length, images: tower.images, errors },
    projector: projector && {
      linears: projector.part.block(0).linears.length,
      images: projector.images,
      errors: projector.blocks.flatMap((block) => block.errors),
    },
  };
}
