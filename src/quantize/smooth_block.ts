// One float SigLIP block in pieces, so that what its norms give can be seen: the composition of small ops that `visionBlock`
// fuses; and where its weights are in a checkpoint. Knows no files and no rounding.

import type { Tensor } from '@tensorflow/tfjs-core';
import type { SiglipConfig } from '../models/config';
import { attention } from '../ops/attention';
import { linear } from '../ops/linear';
import { layerNorm } from '../ops/norm';
import { float32 } from '../ops/run';
import { packArrays } from '../ops/weights';
import { start } from '../runtime/start';
import type { Matrix } from './round';
import type { Norm } from './smooth';

export const TOWER_LINEARS = ['q', 'k', 'v', 'out', 'fc1', 'fc2'] as const;
export type TowerLinear = (typeof TOWER_LINEARS)[number];

/** Hugging Face names, below `encoder.layers.N.`. */
export const TOWER_LINEAR_NAMES: Readonly<Record<TowerLinear, string>> = {
  ...{ q: 'self_attn.q_proj', k: 'self_attn.k_proj', v: 'self_attn.v_proj', out: 'self_attn.out_proj' },
  ...{ fc1: 'mlp.fc1', fc2: 'mlp.fc2' },
};

/** The two norms, each with the linear layers that it alone feeds. */
export const TOWER_NORMS = { layer_norm1: ['q', 'k', 'v'], layer_norm2: ['fc1'] } as const;
export type TowerNorm = keyof typeof TOWER_NORMS;
export const TOWER_NORM_NAMES = Object.keys(TOWER_NORMS) as readonly TowerNorm[];

/** A block's weights in f32. */
export interface TowerBlock {
  readonly norms: Readonly<Record<TowerNorm, Norm>>;
  readonly linears: Readonly<Record<TowerLinear, Matrix>>;
  readonly biases: Readonly<Record<TowerLinear, Float32Array>>;
}

/** Reads block `i`; `floats` gives a tensor of a canonical name and shape as f32. */
export function readTowerBlock(
  floats: (name: string, shape: readonly number[]) => Float32Array,
  { hiddenSize: e, intermediateSize: m }: SiglipConfig,
  i: number,
): TowerBlock {
  const at = `encoder.layers.${i}`;
  const matrix = (name: TowerLinear, rows: number, cols: number): Matrix => {
    return { rows, cols, values: floats(`${at}.${TOWER_LINEAR_NAMES[name]}.weight`, [rows, cols]) };
  };
  const bias = (name: TowerLinear, rows: number): Float32Array =>
    floats(`${at}.${TOWER_LINEAR_NAMES[name]}.bias`, [rows]);
  const norm = (name: TowerNorm): Norm => {
    return { weight: floats(`${at}.${name}.weight`, [e]), bias: floats(`${at}.${name}.bias`, [e]) };
  };
  return {
    norms: { layer_norm1: norm('layer_norm1'), layer_norm2: norm('layer_norm2') },
    linears: {
      ...{ q: matrix('q', e, e), k: matrix('k', e, e), v: matrix('v', e, e), out: matrix('out', e, e) },
      ...{ fc1: matrix('fc1', m, e), fc2: matrix('fc2', e, m) },
    },
    biases: {
      ...{ q: bias('q', e), k: bias('k', e), v: bias('v', e), out: bias('out', e) },
      ...{ fc1: bias('fc1', m), fc2: bias('fc2', e) },
    },
  };
}

/** A whole float block, packed once and run over many images. */
export interface FloatTowerBlock {
  /** The block's output, f32 [n, e]; `see` receives what each norm gives, not to be disposed of. */
  run(x: Tensor, see: (norm: TowerNorm, output: Tensor) => void): Tensor;
  dispose(): void;
}

/** Packs a block in f32. */
export function floatTowerBlock({ norms, linears, biases }: TowerBlock, config: SiglipConfig): FloatTowerBlock {
  const { tf } = start();
  const { hiddenSize: e, heads, hiddenAct } = config;
  const made: Tensor[] = [];
  const vector = (values: Float32Array): Tensor => {
    const tensor = float32(values, [values.length]);
    made.push(tensor);
    return tensor;
  };
  const layer = (name: TowerLinear) => {
    const packed = packArrays([linears[name].values], linears[name].cols);
    made.push(packed.tensor);
    return { packed, bias: vector(biases[name]) };
  };
  const norm = ({ weight, bias }: Norm) => ({ weight: vector(weight), bias: vector(bias) });
  const [norm1, norm2, eps] = [
    norm(norms.layer_norm1),
    norm(norms.layer_norm2),
    vector(Float32Array.of(config.layerNormEps)),
  ];
  const [q, k, v, out, fc1, fc2] = [layer('q'), layer('k'), layer('v'), layer('out'), layer('fc1'), layer('fc2')];
  return {
    run: (x, see) =>
      tf.tidy(() => {
        const t = x.shape[0] as number;
        const normed = layerNorm(x, norm1.weight, norm1.bias, eps);
        see('layer_norm1', normed);
        const heading = ({ packed, bias }: typeof q): Tensor =>
          tf.reshape(linear(normed, packed, bias), [t, heads, e / heads]);
        const mixed = tf.reshape(attention(heading(q), heading(k), heading(v)).out, [t, e]);
        const h = tf.add(x, linear(mixed, out.packed, out.bias));
        const again = layerNorm(h, norm2.weight, norm2.bias, eps);
        see('layer_norm2', again);
        const lifted = linear(again, fc1.packed, fc1.bias, hiddenAct);
        return tf.add(h, linear(lifted, fc2.packed, fc2.bias));
      }),
    dispose: () => {
      for (const tensor of made) tensor.dispose();
    },
  };
}
