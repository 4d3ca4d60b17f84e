// `bench checkpoint`: writes a checkpoint folder of a real shape with random weights, so that quantizing and loading can be measured at sizes that
// no packaged model has: NVILA with the packaged model's tower, tokenizer and template, or a whole model of another family (checkpoint_vlm.ts).

import { cpSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { CommandModule } from 'yargs';
import { writeCheckpoint, writeJson } from '../../src/checkpoint/export';
import type { TensorSource } from '../../src/checkpoint/safetensors_writer';
import { readJson } from '../../src/json';
import type { DecoderConfig } from '../../src/models/config';
import { decoderBlock } from '../../src/models/decoder_blocks';
import { packageFolder } from '../../src/runtime/paths';
import { isVlm, packed, QUANTIZATION, VLMS, type VlmShape, writeVlm } from './checkpoint_vlm';
import { decoderConfig, SHAPES, type Shape } from './model';
import { type Draw, norm, normals, powerOf, tensor, withLargeRows } from './random_tensors';

interface Options {
  shape: Shape | VlmShape;
  weights: 'bf16' | '4-bit';
  layers: number | undefined;
  out: string;
}

export const CHECKPOINT: CommandModule<object, Options> = {
  command: 'checkpoint',
  describe: 'Writes a checkpoint of a real shape with random weights: something to quantize and load',
  builder: (yargs) =>
    yargs
      .option('shape', {
        choices: [...Object.keys(SHAPES), ...Object.keys(VLMS)] as Options['shape'][],
        default: 'qwen2-7b' as Options['shape'],
        describe: "NVILA's decoder, or a whole model",
      })
      .option('weights', {
        choices: ['bf16', '4-bit'] as const,
        default: 'bf16' as Options['weights'],
        describe: "Of the decoder's layers: bf16, or 4 bits in groups of 128 (NVILA's shapes in AWQ)",
      })
      .option('layers', { type: 'number', describe: 'Fewer layers than the shape has' })
      .option('out', { type: 'string', demandOption: true, describe: 'New folder' })
      .example('$0 checkpoint --shape qwen2-7b --out /tmp/nvila-7b', '15 GB')
      .example('$0 checkpoint --weights 4-bit --out /tmp/nvila-7b-awq', '5.6 GB')
      .example('$0 checkpoint --shape qwen2.5-vl-7b --weights 4-bit --out /tmp/qwen2.5-vl-7b', '7 GB'),
  handler: async ({ shape, ...options }) => {
    if (isVlm(shape)) return writeVlm(shape, options);
    return writeRandom({ shape, ...options });
  },
};

async function writeRandom({
  shape,
  layers,
  out,
  weights,
}: { shape: Shape } & Pick<Options, 'layers' | 'out' | 'weights'>): Promise<void> {
  const tiny = join(packageFolder(), 'assets', 'tiny-nvila');
  const whole = decoderConfig(shape, 32768);
  const config = { ...whole, layers: layers ?? whole.layers };
  mkdirSync(out);
  for (const name of readdirSync(tiny, { recursive: true, encoding: 'utf8' }))
    if (!/^(llm|mm_projector)\/model\.safetensors$/.test(name) && statSync(join(tiny, name)).isFile())
      cpSync(join(tiny, name), join(out, name));
  const sizes = {
    ...{ vocab_size: config.vocabSize, hidden_size: config.hiddenSize, intermediate_size: config.intermediateSize },
    ...{ num_hidden_layers: config.layers, num_attention_heads: config.heads, num_key_value_heads: config.kvHeads },
    ...{ rope_theta: config.ropeTheta, tie_word_embeddings: false },
    ...(weights === '4-bit' && { quantization_config: QUANTIZATION.autoawq }),
  };
  const file = join('llm', 'config.json');
  await writeJson(join(out, file), { ...readJson(join(tiny, file)), ...sizes });
  const draw = normals();
  const merged = 4 * Number(readJson(join(tiny, 'vision_tower', 'config.json')).hidden_size);
  await writeCheckpoint(join(out, 'mm_projector'), projectorTensors(merged, config.hiddenSize, draw));
  await writeCheckpoint(join(out, 'llm'), decoderTensors(config, draw, weights));
  process.stdout.write(`${JSON.stringify({ out: resolve(out), shape, layers: config.layers, weights })}\n`);
}

function decoderTensors(config: DecoderConfig, draw: Draw, weights: Options['weights']): TensorSource[] {
  const { hiddenSize: d, vocabSize } = config;
  const block = decoderBlock(config);
  const table = (name: string, power: number): TensorSource =>
    tensor(name, [vocabSize, d], (count) => draw(count, power));
  const layers = Array.from({ length: config.layers }, (_, i) => {
    const at = `model.layers.${i}.`;
    const linears = block.linears.flatMap(({ name, rows, cols, bias }) => {
      // The inputs of o and down have large channels where v and up have large rows.
      const finish = (bits: Uint16Array): Uint16Array => (/(v|up)_proj$/.test(name) ? withLargeRows(bits, cols) : bits);
      const power = powerOf(cols) - 1;
      const weight =
        weights === 'bf16'
          ? [tensor(`${at}${name}.weight`, [rows, cols], (count) => finish(draw(count, power)))]
          : packed(`${at}${name}`, rows, cols, { format: 'autoawq', power, draw });
      return bias ? [...weight, tensor(`${at}${name}.bias`, [rows], (count) => draw(count, -2))] : weight;
    });
    return [
      norm(`${at}input_layernorm.weight`, d, draw),
      norm(`${at}post_attention_layernorm.weight`, d, draw),
      ...linears,
    ];
  });
  const ends = [norm('model.norm.weight', d, draw), table('lm_head.weight', powerOf(d))];
  return [table('model.embed_tokens.weight', 0), ...layers.flat(), ...ends];
}

/** `mlp_downsample_2x2_fix`, the packaged model's. */
function projectorTensors(width: number, d: number, draw: Draw): TensorSource[] {
  const vector = (name: string, n: number): TensorSource => tensor(name, [n], (count) => draw(count, -4));
  const matrix = (name: string, n: number, k: number): TensorSource =>
    tensor(name, [n, k], (count) => draw(count, powerOf(k)));
  return [
    ...[norm('layers.1.weight', width, draw), vector('layers.1.bias', width)],
    ...[matrix('layers.2.weight', d, width), vector('layers.2.bias', d)],
    ...[matrix('layers.4.weight', d, d), vector('layers.4.bias', d)],
  ];
}
