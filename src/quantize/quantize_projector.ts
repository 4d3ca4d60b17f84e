// The projector of a VILA checkpoint in 4 bits: AWQ where a norm precedes a linear layer and takes scales up, clipped ranges and error
// feedback everywhere, judged by the projector's output. Memory: while pictures are read, the loaded model; the tower's features
// of all of them (f32), and the inputs of the linear layers for `rows` rows.
// Source: AWQ (arXiv 2306.00978).

import { join } from 'node:path';
import { SparseVilaError } from '../errors';
import { readJson } from '../json';
import { breather } from '../models/breath';
import { planOf } from '../models/load';
import type { ProjectorStep } from '../models/projector';
import { readQuantization } from '../models/quantized_config';
import { linear } from '../ops/linear';
import { layerNorm } from '../ops/norm';
import { quantizeMatrix } from '../ops/quantize';
import { float32, floats } from '../ops/run';
import { packArrays } from '../ops/weights';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { spread } from './calibration';
import { asSource, quantizedConfig } from './export';
import { packQuantized } from './formats';
import { collectInputs, outputError, type SearchedGroup, searchGroups } from './group_search';
import { type CheckedOptions, checkShapes } from './options';
import type { GroupError } from './quantize_layer';
import type { Matrix, QuantizedMatrix } from './round';
import type { TensorSource } from './safetensors_writer';
import { dividedNorm, type Norm } from './smooth';
import { openTensors, type Tensors } from './tensors';
import { encodePicture, floatSource, fromPictures, type PictureOptions, writePart } from './tower';

/** The folder of the projector in a VILA checkpoint. */
export const PROJECTOR = 'mm_projector';

export interface QuantizeProjectorResult {
  readonly linears: number;
  /** Pictures calibrated on; 0 for round-to-nearest. */
  readonly images: number;
  /** What the search did to each linear layer; empty for round-to-nearest. */
  readonly errors: readonly GroupError[];
}

type LinearLayer = Extract<ProjectorStep, { kind: 'linear' }>;

/**
 * The projector's layers.
 * @throws SparseVilaError `ERR_ALREADY_QUANTIZED`, `ERR_CONFIG_…`; `ERR_QUANTIZE_SHAPE` where the format cannot hold a matrix
 */
export function checkedProjectorLayers(model: string, options: CheckedOptions): readonly ProjectorStep[] {
  const file = join(model, PROJECTOR, 'config.json');
  if (readQuantization(join(model, PROJECTOR)) !== undefined) {
    throw new SparseVilaError(
      'ERR_ALREADY_QUANTIZED',
      `${file}: this projector is quantised already. Quantise its float original, or leave the projector alone.`,
    );
  }
  const layers = planOf(model).projector;
  const shapes = linearsOf(layers).map(({ name, rows, cols }) => [`${name} of the projector`, [rows, cols]] as const);
  checkShapes(Object.fromEntries(shapes), options);
  return layers;
}

const linearsOf = (layers: readonly ProjectorStep[]): LinearLayer[] =>
  layers.flatMap((layer) => (layer.kind === 'linear' ? [layer] : []));

/**
 * Writes the 4-bit projector of `model` into `folder`: model.safetensors and config.json.
 * @throws SparseVilaError as `checkedProjectorLayers`; `ERR_CALIBRATION` (no pictures, or one that cannot be read), `ERR_NOT_FINITE`,
 *   `ERR_WEIGHT_…`, `ERR_DISK_FULL`, and what loading throws; `signal.reason`
 */
export async function quantizeProjector(
  pictures: PictureOptions,
  options: CheckedOptions,
  folder: string,
): Promise<QuantizeProjectorResult> {
  const { model, signal, onProgress = () => undefined } = pictures;
  const { format, groupSize, symmetric } = options;
  const layers = checkedProjectorLayers(model, options);
  const tensors = openTensors(join(model, PROJECTOR));
  const projector = readProjector(tensors, layers);
  const features = options.method === 'awq' ? await pictureFeatures(pictures) : [];
  onProgress({ step: 'quantise projector', done: 0, total: 1 });
  const made =
    features.length > 0
      ? await searchProjector(projector, features, options, breather(signal))
      : rounded(projector, options);
  const matrices = linearsOf(layers).flatMap(({ name }) =>
    packQuantized(made.linears[name] as QuantizedMatrix, format, symmetric).map((part) => asSource(part, `${name}.`)),
  );
  const config = readJson(join(model, PROJECTOR, 'config.json'));
  const facts = { format, groupSize, symmetric, ignore: [] };
  await writePart(folder, tensors, [...matrices, ...made.changed], quantizedConfig(config, facts), signal);
  onProgress({ step: 'quantise projector', done: 1, total: 1 });
  return { linears: linearsOf(layers).length, images: features.length, errors: made.errors };
}

/** A projector's weights in f32, by its layers' names. */
interface Projector {
  readonly layers: readonly ProjectorStep[];
  readonly norms: Readonly<Record<string, Norm>>;
  readonly matrices: Readonly<Record<string, Matrix>>;
  readonly biases: Readonly<Record<string, Float32Array>>;
}

function readProjector(tensors: Tensors, layers: readonly ProjectorStep[]): Projector {
  const vector = (name: string, width: number): Float32Array => tensors.floats(name, [width]);
  const norms: Record<string, Norm> = {};
  const matrices: Record<string, Matrix> = {};
  const biases: Record<string, Float32Array> = {};
  for (const layer of layers) {
    const { name } = layer;
    if (layer.kind === 'norm') {
      norms[name] = { weight: vector(`${name}.weight`, layer.width), bias: vector(`${name}.bias`, layer.width) };
    } else {
      matrices[name] = tensors.matrix(`${name}.weight`, layer.rows, layer.cols);
      biases[name] = vector(`${name}.bias`, layer.rows);
    }
  }
  return { layers, norms, matrices, biases };
}

/** The tower's features of each picture, merged as the projector takes them, f32 [tokens, width]. */
const pictureFeatures = (pictures: PictureOptions): Promise<Float32Array[]> =>
  fromPictures(pictures, async (model, path) => {
    const { signal } = pictures;
    const encoded = await encodePicture(model, path, signal);
    try {
      return floats(encoded.features).slice();
    } finally {
      encoded.dispose();
    }
  });

/**
 * The projector's output for rows that enter layer `from`, f32 [t, d] of f32 [t, width].
 * @param see receives what enters each linear layer on the way
 */
function project(
  { layers, norms, matrices, biases }: Projector,
  rows: Float32Array,
  from: number,
  see: (name: string, input: Float32Array) => void = () => undefined,
): Float32Array {
  const { tf } = start();
  const first = layers[from] as ProjectorStep;
  const width = first.kind === 'norm' ? first.width : first.cols;
  const vector = (values: Float32Array | undefined): Tensor => float32(values ?? [], [values?.length ?? 0]);
  const output = tf.tidy(() => {
    let x = float32(rows, [rows.length / width, width]);
    for (const layer of layers.slice(from)) {
      const { name } = layer;
      if (layer.kind === 'norm') {
        x = layerNorm(x, vector(norms[name]?.weight), vector(norms[name]?.bias), float32([layer.eps], [1]));
        continue;
      }
      see(name, floats(x));
      const w = packArrays([(matrices[name] as Matrix).values], layer.cols);
      x = linear(x, w, vector(biases[name]), layer.activation);
    }
    return x;
  });
  const values = floats(output).slice();
  output.dispose();
  return values;
}

interface QuantizedProjector {
  readonly linears: Readonly<Record<string, QuantizedMatrix>>;
  /** Norms that have taken scales up, in f32, so that norm and weights are of the same s. */
  readonly changed: readonly TensorSource[];
  readonly errors: readonly GroupError[];
}

function rounded({ matrices }: Projector, { groupSize: group, symmetric }: CheckedOptions): QuantizedProjector {
  const linears = Object.entries(matrices).map(([name, matrix]) => [
    name,
    quantizeMatrix(matrix, { group, symmetric }),
  ]);
  return { linears: Object.fromEntries(linears), changed: [], errors: [] };
}

async function searchProjector(
  projector: Projector,
  features: readonly Float32Array[],
  { groupSize: group, symmetric, rounding, rows: budget }: CheckedOptions,
  breathe: () => Promise<void>,
): Promise<QuantizedProjector> {
  const { layers, norms, matrices } = projector;
  const [first] = layers;
  const width = first?.kind === 'norm' ? first.width : (first?.cols ?? 1);
  const total = features.reduce((sum, { length }) => sum + length / width, 0);
  const collectors = new Map(linearsOf(layers).map(({ name, cols }) => [name, collectInputs(cols, group, total)]));
  for (const picture of features) {
    project(projector, picture, 0, (name, input) => collectors.get(name)?.see(input));
    await breathe();
  }
  const inputs = new Map<string, Float32Array>();
  const target = project(projector, heldRows(features, width, budget), 0, (name, input) =>
    inputs.set(name, input.slice()),
  );
  const groups = layers.flatMap((layer, i): SearchedGroup<string, string>[] => {
    if (layer.kind === 'norm') return [];
    const { name } = layer;
    const [input, collector] = [inputs.get(name), collectors.get(name)];
    if (input === undefined || collector === undefined) throw new Error(`nothing has entered ${name}`);
    const loss = ([matrix]: readonly Matrix[]): number => {
      const changed = { ...projector, matrices: { ...matrices, ...(matrix && { [name]: matrix }) } };
      return outputError([project(changed, input, i)], [target]);
    };
    const scaled = layers[i - 1]?.kind === 'norm';
    return [{ site: name, linears: [name], scaled, isClipped: () => true, statistics: collector.finish(), loss }];
  });
  const searched = Object.fromEntries(
    Object.entries(matrices).map(([name, matrix]) => [name, { matrix, input: name }] as const),
  );
  const context = { round: { group, symmetric }, feedback: rounding === 'feedback', breathe };
  const { linears, scales, errors } = await searchGroups(searched, groups, context);
  const changed = layers.flatMap(({ kind, name }, i) => {
    const s = kind === 'norm' ? scales[layers[i + 1]?.name ?? ''] : undefined;
    if (s === undefined) return [];
    const parts = Object.entries(dividedNorm(norms[name] as Norm, s));
    return parts.map(([part, values]) => floatSource(`${name}.${part}`, values));
  });
  return { linears, changed, errors };
}

/** `count` rows, evenly spread over all pictures, end to end. */
function heldRows(features: readonly Float32Array[], width: number, count: number): Float32Array {
  const rows = features.flatMap((values) =>
    Array.from({ length: values.length / width }, (_, i) => values.subarray(i * width, (i + 1) * width)),
  );
  const chosen = spread(rows, count);
  const held = new Float32Array(chosen.length * width);
  for (const [i, row] of chosen.entries()) held.set(row, i * width);
  return held;
}
