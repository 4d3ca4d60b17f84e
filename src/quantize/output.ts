// The files of a quantised checkpoint: one per finished block while the run goes on, and the whole folder at its end, in the names and the
// layout of the original.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { copyTree } from '../checkpoint/copy_tree';
import {
  asSource,
  eightBitConfig,
  isWeightFile,
  mergedTensors,
  quantizedConfig,
  writeCheckpoint,
  writeJson,
} from '../checkpoint/export';
import { packQuantized } from '../checkpoint/formats';
import { encodeFloats } from '../checkpoint/half';
import { type TensorSource, writeSafetensors } from '../checkpoint/safetensors_writer';
import { openTensors } from '../checkpoint/tensors';
import type { WorkFolder } from '../checkpoint/work_folder';
import { SparseVilaError } from '../errors';
import { type Json, readJson } from '../json';
import { PARTS, type PartName, type Plan } from '../models/plan';
import { type QuantizedMatrix, quantizeMatrix } from '../ops/quantize';
import { requireSpace } from '../runtime/atomic';
import type { OnProgress } from '../runtime/progress';
import { withImpliedTemplate } from '../text/template_file';
import type { CheckedOptions } from './options';
import { moduleOf, openPartFiles, type PartFiles } from './part_files';
import type { Part } from './parts';
import { partOf, WIDENED_LAYERS } from './parts';
import type { VectorType } from './search';
import type { Int8Matrix } from './smooth';

export const HEAD = 'lm_head.weight';
const KEPT = 'Free some, and run the same command again; what is finished is kept.';

/** What stands in for tensors of a block. */
export interface MadeBlock {
  readonly linears: Readonly<Record<string, QuantizedMatrix | Int8Matrix>>;
  /** Vectors that are not as they were, by their name in the block. */
  readonly vectors: ReadonlyMap<string, Float32Array>;
}

/** A part that is changed. */
export interface ChangedPart {
  readonly part: Part;
  readonly files: PartFiles;
}

const stepOf = (part: PartName, i: number): string => `${part}-${i}`;

/** The steps of a part's blocks, in their order. */
export const stepsOf = ({ name, blocks }: Part): string[] => blocks.map((_, i) => stepOf(name, i));

/** Writes what quantising changed in block `i` of a part. */
export async function writeBlock(
  work: WorkFolder,
  { part, files }: ChangedPart,
  i: number,
  { linears, vectors }: MadeBlock,
  options: CheckedOptions,
): Promise<void> {
  const at = part.blocks[i] as string;
  const tensors = Object.entries(linears).flatMap(([name, matrix]) => {
    const weight = files.fileName(`${at}${name}.weight`);
    return 'zero' in matrix ? fourBits(matrix, moduleOf(weight), options) : eightBits(matrix, weight);
  });
  for (const [name, values] of vectors) tensors.push(vectorSource(files.fileName(at + name), values, part.vectors));
  const folder = join(work.folder, stepOf(part.name, i));
  await mkdir(folder, { recursive: true });
  await writeSafetensors(join(folder, 'model.safetensors'), tensors);
}

const fourBits = (matrix: QuantizedMatrix, module: string, { format, symmetric }: CheckedOptions): TensorSource[] =>
  packQuantized(matrix, format, symmetric).map((part) => asSource(part, `${module}.`));

function eightBits({ rows, cols, q, scale }: Int8Matrix, name: string): TensorSource[] {
  const bytes = new Uint8Array(q.buffer, q.byteOffset, q.byteLength);
  const weight = { name, dtype: 'I8' as const, shape: [rows, cols], byteLength: q.byteLength, bytes: () => bytes };
  return [weight, { ...vectorSource(`${name}_scale`, scale, 'F32'), shape: [rows, 1] }];
}

function vectorSource(name: string, values: Float32Array, dtype: VectorType): TensorSource {
  if (dtype === 'F16' && values.some((value) => !(Math.abs(value) < 65520)))
    throw new SparseVilaError('ERR_NOT_FINITE', `"${name}" does not fit binary16 after scaling. Try --method rtn.`);
  return asSource({ name, dtype, shape: [values.length], bytes: encodeFloats(values, dtype) });
}

/** One folder of the checkpoint whose weights change. */
interface Target {
  readonly folder: string;
  readonly tensors: readonly TensorSource[];
  readonly config: (json: Json) => Json;
}

/** Puts what was made and everything else of the original together under the final name. */
export async function writeOutput(
  plan: Plan,
  options: CheckedOptions,
  changed: readonly ChangedPart[],
  work: WorkFolder,
  { signal, onProgress }: { signal: AbortSignal | undefined; onProgress: OnProgress },
): Promise<void> {
  const folders = [...new Set(changed.map(({ files }) => files.folder))];
  const targets = folders.map((folder) => targetOf(plan, options, changed, work, folder));
  const total = targets.flatMap(({ tensors }) => tensors).reduce((sum, { byteLength }) => sum + byteLength, 0);
  let done = 0;
  const onBytes = (bytes: number): void => {
    done += bytes;
    onProgress({ step: 'write checkpoint', done, total, unit: 'B' });
  };
  const skip = (path: string): boolean => isWeightFile(path) && folders.some((folder) => isDirectlyIn(path, folder));
  await work.install(async (out) => {
    await requireSpace(out, total, KEPT);
    const parts = Object.values(plan.sources).map(({ folder }) => folder);
    await copyTree(plan.folder, out, { skip, parts, signal });
    const root = withImpliedTemplate(plan.root.json, plan.text.folder, plan.folder);
    if (root !== plan.root.json) writeJson(join(out, 'config.json'), root);
    for (const { folder, tensors, config } of targets) {
      const file = join(out, folder, 'config.json');
      writeJson(file, config(readJson(file)));
      await writeCheckpoint(join(out, folder), tensors, { onBytes, signal });
      openTensors(join(out, folder)); // reads back what the headers say
    }
  });
}

const isDirectlyIn = (path: string, folder: string): boolean =>
  folder === '' ? !path.includes('/') : path.startsWith(join(folder, '/'));

function targetOf(
  plan: Plan,
  options: CheckedOptions,
  changed: readonly ChangedPart[],
  work: WorkFolder,
  folder: string,
): Target {
  const own = changed.filter(({ files }) => files.folder === folder);
  const [first] = own as [ChangedPart, ...ChangedPart[]];
  const replaced = new Map<string, TensorSource>();
  const add = (source: TensorSource): unknown => replaced.set(source.name, source);
  for (const { part, files } of own) {
    if (isChanged(part.name, options))
      for (const step of stepsOf(part)) {
        const made = openTensors(join(work.folder, step));
        for (const name of made.entries.keys()) add(made.copy(name));
      }
    if (part.name === 'decoder' && options.modules.includes('head')) headTensors(plan, files, options).forEach(add);
  }
  const ignore = floatModules(plan, options, folder);
  const isEight = own.some(({ part }) => part.name === 'tower') && options.tower !== undefined;
  const { format, groupSize, symmetric } = options;
  const widths = own.flatMap(({ part }) => (part.wide === part.block ? [] : [part]));
  return {
    folder,
    tensors: mergedTensors(first.files.tensors, replaced),
    config: (json) => {
      const config = isEight
        ? eightBitConfig(json, ignore)
        : quantizedConfig(json, { format, groupSize, symmetric, ignore });
      return widths.reduce(withWidth, config);
    },
  };
}

/** Whether the blocks of a part are changed, not only its head. */
export const isChanged = (name: PartName, { modules, tower }: CheckedOptions): boolean =>
  modules.includes(name) || (name === 'tower' && tower !== undefined);

/** A config with the width of the tower's MLP as it is now. */
function withWidth(json: Json, { block, wide }: Part): Json {
  const widthOf = ({ linears }: Part['block']): number | undefined =>
    linears.find(({ name }) => WIDENED_LAYERS.some((one) => one === name))?.rows;
  if (widthOf(block) === widthOf(wide)) return json;
  const width = { intermediate_size: widthOf(wide) };
  const inner = json.vision_config;
  return typeof inner === 'object' && inner !== null
    ? { ...json, vision_config: { ...inner, ...width } }
    : { ...json, ...width };
}

/** Linear layers in a folder that stay in floating point, by their file names. */
function floatModules(plan: Plan, options: CheckedOptions, folder: string): string[] {
  const inFolder = PARTS.map((name) => ({ name, files: openPartFiles(plan, name) })).filter(
    ({ files }) => files.folder === folder,
  );
  const own = inFolder.flatMap(({ name, files }) => {
    const { blocks, block } = partOf(plan, name, 1);
    const weights = blocks.flatMap((at) => block.linears.map((linear) => `${at}${linear.name}.weight`));
    const layers = isChanged(name, options) ? [] : weights.map((weight) => moduleOf(files.fileName(weight)));
    const head = name === 'decoder' && !options.modules.includes('head') ? [moduleOf(files.fileName(HEAD))] : [];
    return [...layers, ...head];
  });
  return [...own, ...(inFolder[0]?.files.unread ?? [])];
}

function headTensors(
  { decoder: { vocabSize: rows, hiddenSize: cols } }: Plan,
  files: PartFiles,
  options: CheckedOptions,
): TensorSource[] {
  const { groupSize: group, symmetric } = options;
  const quantized = quantizeMatrix({ rows, cols, values: files.floats(HEAD, [rows, cols]) }, { group, symmetric });
  return fourBits(quantized, moduleOf(files.fileName(HEAD)), options);
}
