// Writes the files of a quantized checkpoint: one per finished block during the run, and the whole folder at its end, in the names and the
// layout of the original.

import { mkdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
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
import { openCheckpoint } from '../checkpoint/safetensors';
import { copyOf, type TensorSource, writeSafetensors } from '../checkpoint/safetensors_writer';
import type { WorkFolder } from '../checkpoint/work_folder';
import { SparseVilaError } from '../errors';
import { type Json, readJson } from '../json';
import { PARTS, type PartName, type Plan } from '../models/plan';
import { moduleOf } from '../models/weight_index';
import { type QuantizedMatrix, quantizeMatrix } from '../ops/quantize';
import { requireSpace } from '../runtime/atomic';
import type { OnProgress } from '../runtime/progress';
import { withImpliedTemplate } from '../text/template_file';
import type { CheckedOptions } from './options';
import { fileName, floatLinears, floatsOf, HEAD, type OpenPart, type Part, WIDENED_LAYERS } from './parts';
import type { VectorType } from './search';
import type { Int8Matrix } from './smooth';

const KEPT = 'Free some, and run the same command again; what is finished is kept.';

/** Replacements for tensors of a block. */
export interface MadeBlock {
  readonly linears: Readonly<Record<string, QuantizedMatrix | Int8Matrix>>;
  /** Changed vectors, by their name in the block. */
  readonly vectors: ReadonlyMap<string, Float32Array>;
}

const stepOf = (part: PartName, i: number): string => `${part}-${i}`;

/** The steps of a part's blocks, in their order. */
export const stepsOf = ({ name, blocks }: Part): string[] => blocks.map((_, i) => stepOf(name, i));

/** Writes the tensors of block `i` of a part that quantization changed. */
export async function writeBlock(
  work: WorkFolder,
  open: OpenPart,
  i: number,
  { linears, vectors }: MadeBlock,
  options: CheckedOptions,
): Promise<void> {
  const { part } = open;
  const at = part.blocks[i] as string;
  const tensors = Object.entries(linears).flatMap(([name, matrix]) => {
    const weight = fileName(open, `${at}${name}.weight`);
    return 'zero' in matrix ? fourBits(matrix, moduleOf(weight), options) : eightBits(matrix, weight);
  });
  for (const [name, values] of vectors) tensors.push(vectorSource(fileName(open, at + name), values, part.vectors));
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

/** Joins the new tensors and the rest of the original under the final name. */
export async function writeOutput(
  plan: Plan,
  options: CheckedOptions,
  parts: readonly OpenPart[],
  work: WorkFolder,
  { signal, onProgress }: { signal: AbortSignal | undefined; onProgress: OnProgress },
): Promise<void> {
  const folders = [...new Set(parts.filter(isNamed).map(({ folder }) => folder))];
  const targets = folders.map((folder) => {
    return targetOf(
      plan,
      options,
      parts.filter((part) => part.folder === folder),
      work,
    );
  });
  const total = targets.flatMap(({ tensors }) => tensors).reduce((sum, { byteLength }) => sum + byteLength, 0);
  let done = 0;
  const onBytes = (bytes: number): void => {
    done += bytes;
    onProgress({ step: 'write checkpoint', done, total, unit: 'B' });
  };
  const skip = (path: string): boolean =>
    isWeightFile(path) && folders.some((folder) => join(folder, basename(path)) === path);
  await work.install(async (out) => {
    await requireSpace(out, total, KEPT);
    await copyTree(plan.folder, out, { skip, parts: Object.values(plan.sources).map(({ folder }) => folder), signal });
    const root = withImpliedTemplate(plan.root.json, plan.text.folder, plan.folder);
    if (root !== plan.root.json) writeJson(join(out, 'config.json'), root);
    for (const { folder, tensors, config } of targets) {
      const file = join(out, folder, 'config.json');
      writeJson(file, config(readJson(file)));
      await writeCheckpoint(join(out, folder), tensors, { onBytes, signal });
      openCheckpoint(join(out, folder)); // reads the headers back
    }
  });
}

/** Whether anything of a part is changed. */
export const isNamed = ({ bits, head }: OpenPart): boolean => bits !== undefined || head;

/** The folder that some parts share. */
function targetOf(plan: Plan, options: CheckedOptions, own: readonly OpenPart[], work: WorkFolder): Target {
  const [first] = own as [OpenPart, ...OpenPart[]];
  const made = own.flatMap((open) => [
    ...(open.bits === undefined ? [] : stepsOf(open.part)).flatMap((step) =>
      [...openCheckpoint(join(work.folder, step)).values()].map((entry) => copyOf(entry)),
    ),
    ...(open.head ? headTensors(plan, open, options) : []),
  ]);
  const float = PARTS.flatMap((name) => own.filter(({ part }) => part.name === name).map(floatLinears));
  const ignore = [...float.flatMap((one) => one.own), ...(float[0]?.unread ?? [])];
  const { format, groupSize, symmetric } = options;
  return {
    folder: first.folder,
    tensors: mergedTensors([...first.index.entries.values()], made),
    config: (json) => {
      const config = own.some(({ bits }) => bits === 8)
        ? eightBitConfig(json, ignore)
        : quantizedConfig(json, { format, groupSize, symmetric, ignore });
      return own.reduce((changed, { part }) => withWidth(changed, part), config);
    },
  };
}

/** A config with the new width of the tower's MLP. */
function withWidth(json: Json, { block, wide }: Part): Json {
  const [before, after] = [block, wide].map(
    ({ linears }) => linears.find(({ name }) => WIDENED_LAYERS.some((one) => one === name))?.rows,
  );
  if (before === after) return json;
  const width = { intermediate_size: after };
  const inner = json.vision_config;
  return typeof inner === 'object' && inner !== null
    ? { ...json, vision_config: { ...inner, ...width } }
    : { ...json, ...width };
}

function headTensors(
  { decoder: { vocabSize: rows, hiddenSize: cols } }: Plan,
  open: OpenPart,
  options: CheckedOptions,
): TensorSource[] {
  const { groupSize: group, symmetric } = options;
  const quantized = quantizeMatrix({ rows, cols, values: floatsOf(open, HEAD, [rows, cols]) }, { group, symmetric });
  return fourBits(quantized, moduleOf(fileName(open, HEAD)), options);
}
