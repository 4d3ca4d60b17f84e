// Writes the files of a quantized checkpoint: one per finished block during the run, and the whole folder at its end, in the names and the
// layout of the original.

import { mkdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { asSource, eightBitConfig, isWeightFile, mergedTensors, quantizedConfig } from '../checkpoint/export';
import { packQuantized } from '../checkpoint/formats';
import { encodeFloats } from '../checkpoint/half';
import { openCheckpoint } from '../checkpoint/safetensors';
import { copyOf, type TensorSource, writeSafetensors } from '../checkpoint/safetensors_writer';
import type { WorkFolder } from '../checkpoint/work_folder';
import type { Changes } from '../checkpoint/write_copy';
import { SparseVilaError } from '../errors';
import { type Json, readJson } from '../json';
import { PARTS, type PartName, type Plan } from '../models/plan';
import { moduleOf } from '../models/weight_index';
import { type QuantizedMatrix, quantizeMatrix } from '../ops/quantize';
import { withImpliedTemplate } from '../text/template_file';
import type { CheckedOptions } from './options';
import { fileName, floatLinears, floatsOf, HEAD, type OpenPart, type Part, WIDENED_LAYERS } from './parts';
import type { VectorType } from './search';
import type { Int8Matrix } from './smooth';

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

/** The differences between the quantized checkpoint and the original. */
export function changesOf(
  plan: Plan,
  options: CheckedOptions,
  parts: readonly OpenPart[],
  work: WorkFolder,
  signal: AbortSignal | undefined,
): Changes {
  const folders = [...new Set(parts.filter(isNamed).map(({ folder }) => folder))];
  const [weights, configs] = [new Map<string, TensorSource[]>(), new Map<string, Json>()];
  const root = withImpliedTemplate(plan.root.json, plan.text.folder, plan.folder);
  if (root !== plan.root.json) configs.set('config.json', root);
  for (const folder of folders) {
    const own = parts.filter((part) => part.folder === folder);
    const path = join(folder, 'config.json');
    weights.set(folder, tensorsOf(plan, options, own, work));
    configs.set(path, configOf(configs.get(path) ?? readJson(join(plan.folder, path)), options, own));
  }
  const isReplaced = (path: string): boolean => folders.some((folder) => join(folder, basename(path)) === path);
  return {
    ...{ weights, configs, parts: Object.values(plan.sources).map(({ folder }) => folder), signal },
    skip: (path) => configs.has(path) || (isWeightFile(path) && isReplaced(path)),
  };
}

/** Whether anything of a part is changed. */
export const isNamed = ({ bits, head }: OpenPart): boolean => bits !== undefined || head;

/** The tensors of a folder that parts have in common. */
function tensorsOf(plan: Plan, options: CheckedOptions, own: readonly OpenPart[], work: WorkFolder): TensorSource[] {
  const made = own.flatMap((open) => [
    ...(open.bits === undefined ? [] : stepsOf(open.part)).flatMap((step) =>
      [...openCheckpoint(join(work.folder, step)).values()].map((entry) => copyOf(entry)),
    ),
    ...(open.head ? headTensors(plan, open, options) : []),
  ]);
  return mergedTensors([...(own[0] as OpenPart).index.entries.values()], made);
}

function configOf(json: Json, { format, groupSize, symmetric }: CheckedOptions, own: readonly OpenPart[]): Json {
  const float = PARTS.flatMap((name) => own.filter(({ part }) => part.name === name).map(floatLinears));
  const ignore = [...float.flatMap((one) => one.own), ...(float[0]?.unread ?? [])];
  const config = own.some(({ bits }) => bits === 8)
    ? eightBitConfig(json, ignore)
    : quantizedConfig(json, { format, groupSize, symmetric, ignore });
  return own.reduce((changed, { part }) => withWidth(changed, part), config);
}

/** A config with the new width of the tower's MLP. */
function withWidth(json: Json, { block, wide }: Part): Json {
  const [before, after] = [block(0), wide(0)].map(
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
