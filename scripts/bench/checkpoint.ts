// `bench checkpoint`: writes an NVILA checkpoint folder with a decoder of a real shape and random weights, so that quantizing
// and loading can be measured at sizes that no packaged model has. Tower, tokenizer and template are the packaged model's.

import { cpSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { CommandModule } from 'yargs';
import { writeCheckpoint, writeJson } from '../../src/checkpoint/export';
import { fromBf16Bits, toBf16Bits } from '../../src/checkpoint/half';
import type { TensorSource } from '../../src/checkpoint/safetensors_writer';
import { readJson } from '../../src/json';
import { decoderBlock } from '../../src/models/blocks';
import type { DecoderConfig } from '../../src/models/config';
import { packageFolder } from '../../src/runtime/paths';
import { decoderConfig, SHAPES, type Shape } from './model';

interface Options {
  shape: Shape;
  layers: number | undefined;
  out: string;
}

export const CHECKPOINT: CommandModule<object, Options> = {
  command: 'checkpoint',
  describe: 'Writes an NVILA checkpoint of a real shape with random bf16 weights: something to quantize and load',
  builder: (yargs) =>
    yargs
      .option('shape', { choices: Object.keys(SHAPES) as Shape[], default: 'qwen2-7b' as Shape, describe: 'Decoder' })
      .option('layers', { type: 'number', describe: 'Fewer layers than the shape has' })
      .option('out', { type: 'string', demandOption: true, describe: 'New folder' })
      .example('$0 checkpoint --shape qwen2-7b --out /tmp/nvila-7b', '15 GB'),
  handler: (options) => writeRandom(options),
};

/** One channel in this many is 8 times as large as the others, as in trained models: without large channels AWQ has no effect. */
const OUTLIER = 97;
const LARGE = 3;
const POOL = 2 ** 22;
const PIECE = 2 ** 16;

/** Normal numbers of standard deviation 2^power as bf16 bits. */
type Draw = (count: number, power: number) => Uint16Array;

async function writeRandom({ shape, layers, out }: Options): Promise<void> {
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
  };
  const file = join('llm', 'config.json');
  await writeJson(join(out, file), { ...readJson(join(tiny, file)), ...sizes });
  const draw = normals();
  const merged = 4 * Number(readJson(join(tiny, 'vision_tower', 'config.json')).hidden_size);
  await writeCheckpoint(join(out, 'mm_projector'), projectorTensors(merged, config.hiddenSize, draw));
  await writeCheckpoint(join(out, 'llm'), decoderTensors(config, draw));
  process.stdout.write(`${JSON.stringify({ out: resolve(out), shape, layers: config.layers })}\n`);
}

function normals(): Draw {
  let state = 0x9e3779b9;
  const uniform = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  const normal = (): number => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  const drawn = Float64Array.from({ length: POOL }, normal);
  const pools = new Map<number, Uint16Array>();
  return (count, power) => {
    const pool = pools.get(power) ?? Uint16Array.from(drawn, (x) => toBf16Bits(x * 2 ** power));
    pools.set(power, pool);
    const values = new Uint16Array(count);
    for (let at = 0; at < count; ) {
      // Pieces of uneven length from anywhere, so that rows do not repeat.
      const from = Math.floor(uniform() * (POOL - PIECE));
      const piece = pool.subarray(from, from + Math.min(count - at, 1 + Math.floor(uniform() * PIECE)));
      values.set(piece, at);
      at += piece.length;
    }
    return values;
  };
}

const isLarge = (channel: number): boolean => channel % OUTLIER === 41;

/** A tensor that is drawn when it is written. */
function tensor(name: string, shape: readonly number[], make: (count: number) => Uint16Array): TensorSource {
  const count = shape.reduce((a, b) => a * b, 1);
  return { name, dtype: 'BF16', shape, byteLength: 2 * count, bytes: () => new Uint8Array(make(count).buffer) };
}

/** Multiplies the large rows of a matrix of `cols` columns; a vector has one. Adds to the exponents. */
function withLargeRows(bits: Uint16Array, cols: number): Uint16Array {
  for (let row = 0; row < bits.length / cols; row++)
    if (isLarge(row)) for (let i = row * cols; i < (row + 1) * cols; i++) bits[i] = (bits[i] as number) + (LARGE << 7);
  return bits;
}

/** A norm's weights: about 1, some channels large. */
function norm(name: string, width: number, draw: Draw): TensorSource {
  return tensor(name, [width], (count) => {
    const spread = draw(count, -3);
    return withLargeRows(
      spread.map((bits) => toBf16Bits(1 + fromBf16Bits(bits))),
      1,
    );
  });
}

/** The power of two nearest to 1 / sqrt(inputs): outputs are about as large as inputs. */
const powerOf = (inputs: number): number => -Math.round(Math.log2(inputs) / 2);

function decoderTensors(config: DecoderConfig, draw: Draw): TensorSource[] {
  const { hiddenSize: d, vocabSize } = config;
  const block = decoderBlock(config);
  const table = (name: string, power: number): TensorSource =>
    tensor(name, [vocabSize, d], (count) => draw(count, power));
  const layers = Array.from({ length: config.layers }, (_, i) => {
    const at = `model.layers.${i}.`;
    const linears = block.linears.flatMap(({ name, rows, cols, bias }) => {
      // The inputs of o and down have large channels where v and up have large rows.
      const finish = (bits: Uint16Array): Uint16Array => (/(v|up)_proj$/.test(name) ? withLargeRows(bits, cols) : bits);
      const weight = tensor(`${at}${name}.weight`, [rows, cols], (count) => finish(draw(count, powerOf(cols) - 1)));
      return bias ? [weight, tensor(`${at}${name}.bias`, [rows], (count) => draw(count, -2))] : [weight];
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
