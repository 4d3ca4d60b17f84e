// The files of a quantised checkpoint: one per finished layer while the run goes on, and the whole folder at its end. Knows where
// a VILA checkpoint keeps its decoder; knows nothing of searches.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { SparseVilaError } from '../errors';
import { readJson } from '../json';
import type { DecoderConfig } from '../models/config';
import { quantizeMatrix } from '../ops/quantize';
import { requireSpace } from '../runtime/atomic';
import type { OnProgress } from '../runtime/progress';
import { copyTree } from './copy_tree';
import { asSource, isWeightFile, mergedTensors, quantizedConfig, writeCheckpoint, writeJson } from './export';
import { packQuantized, type RawTensor } from './formats';
import { encodeFloats } from './half';
import { type LayerWeights, LINEAR_NAMES, LINEARS, type Linear } from './layer';
import { keepTemplate } from './layout';
import type { CheckedOptions } from './options';
import type { QuantizedLayer } from './quantize_layer';
import { type TensorSource, writeSafetensors } from './safetensors_writer';
import { openTensors, type Tensors } from './tensors';
import type { WorkFolder } from './work_folder';

/** The folder of the decoder in a VILA checkpoint. */
const DECODER = 'llm';
const HEAD = 'lm_head';
const KEPT = 'Free some, and run the same command again; what is finished is kept.';

const layerFolder = (work: WorkFolder, layer: number): string => join(work.folder, `layer-${layer}`);

/** Writes what quantising changed in layer `i`: its linear layers, and the norms and biases that took scales up. */
export async function writeLayer(
  work: WorkFolder,
  i: number,
  before: LayerWeights,
  after: QuantizedLayer,
  { format, symmetric }: CheckedOptions,
): Promise<void> {
  const at = `model.layers.${i}.`;
  const tensors = LINEARS.flatMap((name) =>
    packQuantized(after.linears[name], format, symmetric).map((part) => asSource(part, `${at}${LINEAR_NAMES[name]}.`)),
  );
  const changed = (name: string, from: Float32Array | undefined, to: Float32Array | undefined): void => {
    if (to !== undefined && to !== from) tensors.push(asSource(halfTensor(at + name, to)));
  };
  changed('input_layernorm.weight', before.inputNorm, after.inputNorm);
  changed('post_attention_layernorm.weight', before.postNorm, after.postNorm);
  for (const name of Object.keys(after.biases) as Linear[])
    changed(`${LINEAR_NAMES[name]}.bias`, before.biases[name], after.biases[name]);
  const folder = layerFolder(work, i);
  await mkdir(folder, { recursive: true });
  await writeSafetensors(join(folder, 'model.safetensors'), tensors);
}

function halfTensor(name: string, values: Float32Array): RawTensor {
  if (values.some((value) => !(Math.abs(value) < 65520)))
    throw new SparseVilaError('ERR_NOT_FINITE', `"${name}" does not fit binary16 after scaling. Try --method rtn.`);
  return { name, dtype: 'F16', shape: [values.length], bytes: encodeFloats(values, 'F16') };
}

/** Puts the finished layers and everything else of the original together under the final name. */
export async function finishCheckpoint(
  options: CheckedOptions,
  tensors: Tensors,
  config: DecoderConfig,
  work: WorkFolder,
  { signal, onProgress }: { signal: AbortSignal | undefined; onProgress: OnProgress },
): Promise<void> {
  const { model, groupSize, symmetric, format, modules } = options;
  const replaced = options.modules.includes('decoder') ? layerTensors(work, config) : new Map<string, TensorSource>();
  if (modules.includes('head')) for (const source of headTensors(options, tensors)) replaced.set(source.name, source);
  const all = mergedTensors(tensors, replaced);
  const total = all.reduce((sum, { byteLength }) => sum + byteLength, 0);
  let done = 0;
  const onBytes = (bytes: number): void => {
    done += bytes;
    onProgress({ step: 'write checkpoint', done, total, unit: 'B' });
  };
  const ignore = modules.includes('head') ? [] : [HEAD];
  const configFile = join(DECODER, 'config.json');
  const skip = (path: string): boolean =>
    path === configFile || (path.startsWith(join(DECODER, '/')) && isWeightFile(path));
  await work.install(async (folder) => {
    await requireSpace(folder, total, KEPT);
    await copyTree(model, folder, { skip, signal });
    keepTemplate(model, folder);
    writeJson(
      join(folder, configFile),
      quantizedConfig(readJson(join(model, configFile)), { format, groupSize, symmetric, ignore }),
    );
    await writeCheckpoint(join(folder, DECODER), all, { onBytes, signal });
    openTensors(join(folder, DECODER)); // reads back what the headers say
  });
}

/** The tensors of all finished layers, by name. */
function layerTensors(work: WorkFolder, { layers }: DecoderConfig): Map<string, TensorSource> {
  const found = new Map<string, TensorSource>();
  for (let i = 0; i < layers; i++) {
    const part = openTensors(layerFolder(work, i));
    for (const name of part.entries.keys()) found.set(name, part.copy(name));
  }
  return found;
}

function headTensors({ format, groupSize, symmetric }: CheckedOptions, tensors: Tensors): TensorSource[] {
  const entry = tensors.entries.get(`${HEAD}.weight`);
  if (entry === undefined) {
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected a checkpoint with a head of its own for modules "head": in ${tensors.folder} it is tied to the embedding, which stays in floating point.`,
    );
  }
  const [rows, cols] = entry.shape as [number, number];
  const quantized = quantizeMatrix(tensors.matrix(entry.name, rows, cols), { group: groupSize, symmetric });
  return packQuantized(quantized, format, symmetric).map((part) => asSource(part, `${HEAD}.`));
}
