// The fused vision block equals the composition of models/blocks.ts bit for bit.

import { type BlockOps, towerBlock } from '../../src/models/blocks';
import type { TowerConfig } from '../../src/models/tower';
import { PLAIN_VIT } from '../../src/models/tower_config';
import { attention as attentionOp } from '../../src/ops/attention';
import { layerNorm, rmsNorm } from '../../src/ops/norm';
import { rope } from '../../src/ops/rope';
import { float32 } from '../../src/ops/run';
import { visionBlock } from '../../src/ops/vision_block';
import { start } from '../../src/runtime/start';
import type { Tensor } from '../../src/runtime/tensor';
import { keeper } from '../../testing/ops/cases/case';
import {
  QWEN_BLOCK,
  SMALL_BLOCK,
  type VisionBlockSizes,
  visionBlockData,
  visionBlockWeights,
  visionTable,
} from '../../testing/ops/cases/vision_block';
import { attention, opsOf, stacked, tidy } from './composed';
import { atLevel, bitsOf, expectSameBits, levels } from './levels';

const keep = keeper();
afterAll(() => keep.dispose());

describe.each(levels())('at %s', (level) => {
  test.each([
    { name: 'f32', sizes: SMALL_BLOCK },
    {
      name: 'bf16, odd heads',
      sizes: { ...SMALL_BLOCK, n: 131, e: 54, heads: 3, type: 'bf16', activation: 'quick_gelu' },
    },
    { name: '8-bit weights', sizes: { ...SMALL_BLOCK, type: 'int8' } },
    { name: 'rounded activations', sizes: { ...SMALL_BLOCK, type: 'bf16', dot: true, activation: 'gelu' } },
    { name: 'RMSNorm, gated MLP, rotary positions', sizes: QWEN_BLOCK },
    { name: 'the same in bf16', sizes: { ...QWEN_BLOCK, type: 'bf16' } },
  ] as const)('visionBlock equals its parts: $name', ({ sizes }) => {
    atLevel(level, () => {
      const { fused, columnsOnly, composed } = visionBothWays(sizes);
      const cause = 'an epilogue that adds in another order than the small ops, or padding that reaches a sum.';
      expectSameBits(fused, composed, 'fused against composed (outputs: y, columns, keys)', cause, sizes.e);
      expectSameBits(
        columnsOnly,
        composed.slice(1, 2),
        'columns only',
        'scores_only differs from attend_chunk, or strips.',
      );
    });
  });
});

function towerConfigOf({ e, ffn, heads, activation, rms, gated = false }: VisionBlockSizes): TowerConfig {
  return {
    ...PLAIN_VIT,
    ...{ hiddenSize: e, intermediateSize: ffn, layers: 1, heads, imageSize: 8, patchSize: 2, patchBias: true },
    ...{ classToken: false, preNorm: false, normEps: 1e-6, depth: 1 },
    ...{ norm: rms ? 'rms' : 'layer', gated, fusedQkv: gated },
    activation: activation as TowerConfig['activation'],
  };
}

function visionBothWays(s: VisionBlockSizes) {
  const data = visionBlockData(s);
  const w = visionBlockWeights(data, s, keep);
  const x = keep.tensor(float32(data.x, [s.n, s.e]));
  const table = s.rope ? keep.tensor(visionTable(s)) : undefined;
  const fused = bitsOf(visionBlock(x, w, { features: true, columns: true, keys: true, table }));
  const only = visionBlock(x, w, { features: false, columns: true, table });
  let [columns, keys]: (Tensor | undefined)[] = [];
  const layers = {
    ...stacked(['q', 'k', 'v'].map(attention), [s.e, s.e, s.e], { values: data.qkv, k: s.e, bias: data.qkvBias }),
    'self_attn.qkv': { values: data.qkv, k: s.e, bias: data.qkvBias },
    'self_attn.out_proj': { values: data.out, k: s.e, bias: data.outBias },
    ...(s.gated
      ? stacked(['mlp.gate_proj', 'mlp.up_proj'], [s.ffn, s.ffn], {
          values: Float32Array.of(...data.fc1, ...data.up),
          k: s.e,
          bias: data.fc1Bias,
        })
      : { 'mlp.fc1': { values: data.fc1, k: s.e, bias: data.fc1Bias } }),
    [s.gated ? 'mlp.down_proj' : 'mlp.fc2']: { values: data.fc2, k: s.ffn, bias: data.fc2Bias },
  };
  const vector = (values: Float32Array) => keep.tensor(float32(values, [values.length]));
  const eps = keep.tensor(float32([1e-6], [1]));
  const norms = {
    layer_norm1: [vector(data.norm1), vector(data.norm1Bias)],
    layer_norm2: [vector(data.norm2), vector(data.norm2Bias)],
  } as const;
  const ops: BlockOps = {
    ...opsOf(keep, layers, s.type, s.dot),
    norm: (name, input) => {
      const [weight, bias] = norms[name as keyof typeof norms];
      return s.rms ? rmsNorm(input, weight, eps) : layerNorm(input, weight, bias, eps);
    },
    attend: (q, k, v) => {
      const turned = (part: Tensor): Tensor => (table === undefined ? part : rope(part, table));
      keys = start().tf.reshape(k, [s.n, s.e]);
      const attended = attentionOp(turned(q), turned(k), v, { columns: true });
      columns = attended.columns;
      return attended.out;
    },
  };
  const block = towerBlock(towerConfigOf(s));
  const composed = tidy(() => [block.run(ops, x), columns as Tensor, keys as Tensor]);
  for (const tensor of [only[0], only[2]]) tensor.dispose();
  return { fused, columnsOnly: bitsOf([only[1]]), composed: bitsOf(composed) };
}
