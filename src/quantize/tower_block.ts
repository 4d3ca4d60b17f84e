// One float SigLIP block in pieces, so that the inputs of its linear layers can be seen: the composition of small ops that
// `visionBlock` fuses; and where its weights are in a checkpoint. Knows no files and no rounding.

import type { TowerConfig } from '../models/tower';
import { attention } from '../ops/attention';
import { type Activation, linear } from '../ops/linear';
import { layerNorm } from '../ops/norm';
import { float32 } from '../ops/run';
import { type PackedMatrix, packArrays } from '../ops/weights';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { Matrix } from './round';
import type { Norm } from './smooth';

export const TOWER_LINEARS = ['q', 'k', 'v', 'out', 'fc1', 'fc2'] as const;
export type TowerLinear = (typeof TOWER_LINEARS)[number];

/** Hugging Face names, below `encoder.layers.N.`. */
export const TOWER_LINEAR_NAMES: Readonly<Record<TowerLinear, string>> = {
  ...{ q: 'self_attn.q_proj', k: 'self_attn.k_proj', v: 'self_attn.v_proj', out: 'self_attn.out_proj' },
  ...{ fc1: 'mlp.fc1', fc2: 'mlp.fc2' },
};

/** The four inputs that linear layers share, each with those layers. */
export const TOWER_SITES = { qkv: ['q', 'k', 'v'], out: ['out'], fc1: ['fc1'], fc2: ['fc2'] } as const;
export type TowerSite = keyof typeof TOWER_SITES;
export const TOWER_SITE_NAMES = Object.keys(TOWER_SITES) as readonly TowerSite[];

/** The two norms, each with the site that it alone feeds. */
export const TOWER_NORMS = { layer_norm1: 'qkv', layer_norm2: 'fc1' } as const satisfies Record<string, TowerSite>;
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
  { hiddenSize: e, intermediateSize: m }: TowerConfig,
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

/** A float block whose layers are packed when they are first needed. */
export interface FloatTowerBlock {
  /** The block's output, f32 [n, e]; `see` receives each site's input, not to be disposed of. */
  run(x: Tensor, see: (site: TowerSite, input: Tensor) => void): Tensor;
  /** From a site's input, f32 [n, e or m], to the output of the attention or the MLP that it is in, f32 [n, e]. */
  finish(site: TowerSite, input: Tensor): Tensor;
  dispose(): void;
}

/** A block in f32. */
export function floatTowerBlock({ norms, linears, biases }: TowerBlock, config: TowerConfig): FloatTowerBlock {
  const { tf } = start();
  const { hiddenSize: e, heads, activation } = config;
  const made: Tensor[] = [];
  const vector = (values: Float32Array): Tensor => {
    const tensor = tf.keep(float32(values, [values.length]));
    made.push(tensor);
    return tensor;
  };
  const packed = new Map<TowerLinear, { readonly w: PackedMatrix; readonly bias: Tensor }>();
  const layer = (name: TowerLinear, x: Tensor, activation: Activation = 'none'): Tensor => {
    let found = packed.get(name);
    if (found === undefined) {
      const w = packArrays([linears[name].values], linears[name].cols);
      made.push(tf.keep(w.tensor));
      found = { w, bias: vector(biases[name]) };
      packed.set(name, found);
    }
    return linear(x, found.w, found.bias, activation);
  };
  const eps = vector(Float32Array.of(config.normEps));
  const norm = (name: TowerNorm) => {
    const [weight, bias] = [vector(norms[name].weight), vector(norms[name].bias)];
    return (x: Tensor): Tensor => layerNorm(x, weight, bias, eps);
  };
  const [norm1, norm2] = [norm('layer_norm1'), norm('layer_norm2')];
  const mix = (normed: Tensor): Tensor => {
    const t = normed.shape[0] as number;
    const heading = (name: TowerLinear): Tensor => tf.reshape(layer(name, normed), [t, heads, e / heads]);
    return tf.reshape(attention(heading('q'), heading('k'), heading('v')).out, [t, e]);
  };
  const lift = (normed: Tensor): Tensor => layer('fc1', normed, activation);
  const finish: Readonly<Record<TowerSite, (input: Tensor) => Tensor>> = {
    qkv: (input) => layer('out', mix(input)),
    out: (input) => layer('out', input),
    fc1: (input) => layer('fc2', lift(input)),
    fc2: (input) => layer('fc2', input),
  };
  return {
    run: (x, see) =>
      tf.tidy(() => {
        const seen = (site: TowerSite, input: Tensor): Tensor => {
          see(site, input);
          return input;
        };
        const mixed = seen('out', mix(seen('qkv', norm1(x))));
        const h = tf.add(x, finish.out(mixed));
        const lifted = seen('fc2', lift(seen('fc1', norm2(h))));
        return tf.add(h, finish.fc2(lifted));
      }),
    finish: (site, input) => tf.tidy(() => finish[site](input)),
    dispose: () => {
      for (const tensor of made) tensor.dispose();
    },
  };
}
