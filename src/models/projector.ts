// VILA's projectors: from tower features to the decoder's width, in two steps, so that pruning falls between them:
// `merge` (space-to-depth, where the type has one) and `project` (norm and MLP on the merged rows that are kept).
// Source: VILA `llava/model/multimodal_projector/base_projector.py`.

import { type Activation, linear } from '../ops/linear';
import { layerNorm } from '../ops/norm';
import { spaceToDepth } from '../ops/space_to_depth';
import type { Tensor } from '../runtime/tensor';
import type { Weights } from './weights';

export const PROJECTOR_TYPES = [
  'linear',
  'mlp2x_gelu',
  'mlp_downsample',
  'mlp_downsample_2x2_fix',
  'mlp_downsample_3x3_fix',
] as const;
export type ProjectorType = (typeof PROJECTOR_TYPES)[number];

export interface Projector {
  /** Patches of a grid x grid square that become one token: block sides. */
  readonly block: number;
  /** Tokens per side of a merged grid. */
  merged(grid: number): number;
  /** f32 [grid^2, e] -> f32 [merged^2, e block^2]; a new tensor. */
  merge(features: Tensor, grid: number): Tensor;
  /** f32 [m, e block^2] -> f32 [m, d]. */
  project(rows: Tensor): Tensor;
  /** Means of the patches' values, flat [grid^2, w], over each merged token; patches that are only padding do not count. */
  mergeValues(values: Float32Array, grid: number): Float32Array;
}

/** One step of a projector: a LayerNorm, or a linear layer [outputs, inputs] with a bias and what it ends with. */
export type ProjectorLayer =
  | { readonly kind: 'norm'; readonly name: string; readonly width: number }
  | {
      readonly kind: 'linear';
      readonly name: string;
      readonly rows: number;
      readonly cols: number;
      readonly activation: Activation;
    };

type Step = (x: Tensor) => Tensor;
export const PROJECTOR_NORM_EPS = 1e-5;

/** e: tower width; d: decoder width. */
export function vilaProjector(type: ProjectorType, e: number, d: number, weights: Weights): Projector {
  const block = blockSide(type);
  const steps = projectorLayers(type, e, d).map((layer) => projectorStep(layer, weights));
  return {
    block,
    merged: (grid) => Math.ceil(grid / block),
    merge: (features, grid) => (block === 1 ? features.clone() : spaceToDepth(features, grid, grid, block)),
    project: (rows) => {
      let x = rows.clone();
      for (const step of steps) {
        const y = step(x);
        x.dispose();
        x = y;
      }
      return x;
    },
    mergeValues: (values, grid) => (block === 1 ? values : blockMean(values, grid, block)),
  };
}

const blockSide = (type: ProjectorType): number =>
  type === 'mlp_downsample_3x3_fix' ? 3 : type.startsWith('mlp_downsample') ? 2 : 1;

/** What `project` of a type does, in order; e: tower width, d: decoder width. */
export function projectorLayers(type: ProjectorType, e: number, d: number): readonly ProjectorLayer[] {
  const width = e * blockSide(type) ** 2;
  const norm = (name: string, n: number): ProjectorLayer => ({ kind: 'norm', name, width: n });
  const dense = (name: string, rows: number, cols: number, activation: Activation = 'none'): ProjectorLayer => {
    return { kind: 'linear', name, rows, cols, activation };
  };
  if (type === 'linear') return [dense('layers', d, width)];
  if (type === 'mlp2x_gelu') return [dense('layers.0', d, width, 'gelu'), dense('layers.2', d, d)];
  if (type === 'mlp_downsample_3x3_fix') {
    return [
      norm('layers.1', width),
      dense('layers.2', 3 * e, width, 'gelu'),
      norm('layers.4', 3 * e),
      dense('layers.5', d, 3 * e, 'gelu'),
      dense('layers.7', d, d),
    ];
  }
  return [norm('layers.1', width), dense('layers.2', d, width, 'gelu'), dense('layers.4', d, d)];
}

function projectorStep(layer: ProjectorLayer, weights: Weights): Step {
  const { name } = layer;
  if (layer.kind === 'norm') {
    const { width } = layer;
    const [w, b] = [weights.tensor(`${name}.weight`, [width]), weights.tensor(`${name}.bias`, [width])];
    const eps = weights.constant([PROJECTOR_NORM_EPS]);
    return (x) => layerNorm(x, w, b, eps);
  }
  const { rows, cols, activation } = layer;
  const w = weights.matrix([`${name}.weight`], [rows], cols);
  const bias = weights.tensor(`${name}.bias`, [rows]);
  return (x) => linear(x, w, bias, activation);
}

function blockMean(values: Float32Array, grid: number, block: number): Float32Array {
  const side = Math.ceil(grid / block);
  const width = values.length / (grid * grid);
  const sums = new Float64Array(side * side * width);
  const counts = new Float64Array(side * side);
  for (let row = 0; row < grid; row++)
    for (let col = 0; col < grid; col++) {
      const token = Math.floor(row / block) * side + Math.floor(col / block);
      const patch = row * grid + col;
      counts[token] = (counts[token] as number) + 1;
      for (let c = 0; c < width; c++) {
        const at = token * width + c;
        sums[at] = (sums[at] as number) + (values[patch * width + c] as number);
      }
    }
  return Float32Array.from(sums, (sum, i) => sum / (counts[Math.floor(i / width)] as number));
}
