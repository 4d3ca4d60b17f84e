// `inspect`: its report of a checkpoint agrees with loading it, without reading tensors or starting the engine. That its problems are the
// errors of `load` is checked for every damage in damaged.spec.ts.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { inspect, type LoadOptions, load } from '../../src';
import { encodeFloats } from '../../src/checkpoint/half';
import { convert } from '../../src/convert/convert';
import { buildParts, openPart } from '../../src/models/assemble';
import { decoder } from '../../src/models/decoder';
import { planOf } from '../../src/models/load';
import { tokensOf } from '../../src/models/media';
import { PARTS, type PartName } from '../../src/models/plan';
import type { Weights } from '../../src/models/weights';
import { quantize } from '../../src/quantize/quantize';
import { MAIN } from '../cli/run';
import { FIXTURES, scene, TINY, vilaCase } from '../support/assets';
import { changeJson, changeTensors, withCopy } from '../support/checkpoint';
import { pause, prepared } from '../support/media';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-inspect-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Bytes of all tensors that the builders are given. */
async function loadedBytes(path: string, options: LoadOptions): Promise<number> {
  const plan = planOf(path);
  let bytes = 0;
  const counted = (weights: Weights): Weights => ({
    ...weights,
    tensor: (...args) => {
      const tensor = weights.tensor(...args);
      bytes += 4 * tensor.size;
      return tensor;
    },
    record: (...args) => {
      const record = weights.record(...args);
      bytes += 4 * record.tensor.size;
      return record;
    },
    integers: (...args) => {
      const tensor = weights.integers(...args);
      bytes += 4 * tensor.size;
      return tensor;
    },
    constant: (...args) => {
      const tensor = weights.constant(...args);
      bytes += 4 * tensor.size;
      return tensor;
    },
    matrix: (...args) => {
      const packed = weights.matrix(...args);
      bytes += packed.tensor.size;
      return packed;
    },
  });
  const parts = Object.fromEntries(PARTS.map((part) => [part, openPart(plan, part, options)])) as Record<
    PartName,
    Weights
  >;
  const all = { decoder: counted(parts.decoder), tower: counted(parts.tower), projector: counted(parts.projector) };
  await buildParts(plan, all, decoder, pause);
  for (const weights of Object.values(parts)) weights.dispose();
  return bytes;
}

/** Every checkpoint among the fixtures, of whatever family. */
const SMALL = readdirSync(FIXTURES, { recursive: true, encoding: 'utf8' })
  .filter((file) => /^[^/]+\/[^/]+\/config\.json$/.test(file))
  .map((file) => dirname(file));

const CHECKPOINTS: readonly (readonly [name: string, path: () => Promise<string> | string])[] = [
  ['tiny-nvila', () => TINY],
  ...SMALL.map((name) => [name, () => join(FIXTURES, name)] as const),
  [
    'a tower of 8 bits',
    async () => {
      const out = join(folder, 'w8a8');
      await quantize({ model: TINY, out, tower: 'w8a8', modules: [], samples: 1 });
      return out;
    },
  ],
  [
    'one folder, of 4 bits in part',
    async () => {
      const [packed, out] = [join(folder, 'packed'), join(folder, 'hf')];
      await quantize({ model: TINY, out: packed, modules: ['tower', 'projector'], method: 'rtn' });
      await convert({ model: packed, out, layout: 'hf' });
      return out;
    },
  ],
];

it('looks at the fixtures of all families', () => expect(SMALL.length).toBeGreaterThan(10));

it.each(CHECKPOINTS)('%s: the memory is what loading takes, to the byte, for every storage', async (_, path) => {
  const model = await path();
  const { memory, problems } = await inspect(model);
  expect(problems).toEqual([]);
  for (const weights of ['f32', 'f16', 'bf16'] as const)
    expect([weights, memory[weights]]).toEqual([weights, await loadedBytes(model, { weights })]);
  expect(memory.stored).toBe(await loadedBytes(model, {}));
});

it('forms, bytes and sizes of the packaged model', async () => {
  const { parts, contextLength, kvBytesPerToken, family, config, unsupported } = await inspect(TINY);
  expect(parts.decoder).toEqual({ parameters: 2871552, bytes: 2 * 2871552, formats: { bf16: 2871552 } });
  expect(parts.tower.formats).toEqual({ bf16: parts.tower.parameters });
  expect([family, contextLength, config.decoder.layers, config.tower.layers]).toEqual(['llava_llama', 32768, 4, 5]);
  const { layers, kvHeads, headDim } = config.decoder;
  expect(kvBytesPerToken.bf16).toBe(2 * 2 * layers * kvHeads * headDim);
  expect(unsupported).toEqual([]);
  const awq = await inspect(join(FIXTURES, 'awq/checkpoint-gemm'));
  expect(Object.keys(awq.parts.decoder.formats).some((name) => /^4 bits \(awq-gemm\), groups of \d+$/.test(name))).toBe(
    true,
  );
  expect((await inspect(join(FIXTURES, 'llava/llava-llama'))).unsupported).toEqual([
    { what: 'videos', why: expect.stringContaining('llava') },
  ]);
});

it('visual tokens and tiles equal those of a loaded picture', async () => {
  const path = join(FIXTURES, 'nvila/tiles');
  const model = await load(path);
  const image = { width: 50, height: 20, channels: 3, data: new Uint8Array(50 * 20 * 3) } as const;
  const { layout, canvases } = await prepared(model, image);
  model.dispose();
  const { images } = await inspect(path, { images: [{ width: 50, height: 20 }] });
  expect(canvases.length).toBeGreaterThan(1);
  expect(images).toEqual([{ width: 50, height: 20, tokens: tokensOf(layout), tiles: canvases.length }]);
});

it('every wrong tensor is listed once', () =>
  withCopy(vilaCase('linear'), async (path) => {
    const [k, q] = ['model.layers.1.self_attn.k_proj.weight', 'model.layers.0.self_attn.q_proj.weight'];
    changeTensors(join(path, 'llm/model.safetensors'), (tensors) => {
      tensors.delete('model.norm.weight');
      tensors.set('model.layers.0.mlp.rank_proj.weight', { dtype: 'F32', shape: [2], data: new Uint8Array(8) });
      for (const name of [k, q]) tensors.set(name, { dtype: 'F32', shape: [1], data: new Uint8Array(4) });
      tensors.set('model.layers.0.self_attn.o_proj.bias', { dtype: 'F32', shape: [2], data: new Uint8Array(8) });
    });
    const { problems, zeroBiases } = await inspect(path);
    expect(problems.map(({ code }) => code)).toEqual([
      'ERR_WEIGHT_SHAPE',
      'ERR_WEIGHT_SHAPE',
      'ERR_WEIGHT_MISSING',
      'ERR_WEIGHT_EXTRA',
    ]);
    expect(problems[0]?.tensors).toContain(q);
    expect(problems[1]?.tensors).toContain(k);
    expect(problems.slice(2).map(({ tensors }) => tensors)).toEqual([
      ['model.norm.weight'],
      ['model.layers.0.mlp.rank_proj.weight'],
    ]);
    expect(zeroBiases).toEqual(['model.layers.0.self_attn.o_proj.bias']);
  }));

it('reads no tensor, and works with config files alone', () =>
  withCopy(TINY, async (path) => {
    const whole = await inspect(path);
    const nan = encodeFloats(new Float32Array(2).fill(Number.NaN), 'BF16');
    changeTensors(join(path, 'llm/model.safetensors'), (tensors) => {
      for (const [name, tensor] of tensors)
        tensors.set(name, { ...tensor, data: Buffer.alloc(tensor.data.length, Buffer.from(nan)) });
    });
    expect(await inspect(path)).toEqual({ ...whole });
    await expect(load(path)).rejects.toMatchObject({ code: 'ERR_WEIGHT_VALUE' });
    for (const part of ['llm', 'vision_tower', 'mm_projector']) rmSync(join(path, part, 'model.safetensors'));
    const { problems, config, images, contextLength } = await inspect(path);
    expect(problems.map(({ code }) => code)).toEqual(Array(3).fill('ERR_CHECKPOINT_MISSING'));
    expect({ config, images, contextLength }).toEqual({
      config: whole.config,
      images: whole.images,
      contextLength: whole.contextLength,
    });
  }));

it('unsupported settings are refused as by `load`', () =>
  withCopy(vilaCase('linear'), async (path) => {
    changeJson(join(path, 'config.json'), { s2: true });
    await expect(inspect(path)).rejects.toMatchObject({
      code: 'ERR_CONFIG_UNSUPPORTED',
      message: expect.stringContaining('"s2"'),
    });
  }));

it.each<[Parameters<typeof inspect>[1]]>([
  [{ images: [{ width: 0, height: 3 }] }],
  [{ images: [{ width: 4 }] as never }],
  [{ pictures: [] } as never],
])('options %j are refused', async (options) => {
  await expect(inspect(TINY, options)).rejects.toMatchObject({ code: 'ERR_OPTION_INVALID' });
});

describe('the command', () => {
  const run = (args: readonly string[], path = TINY) => {
    // The settings of a machine on which nothing was set up.
    const env = { ...process.env, SPARSEVILA_CACHE: join(folder, 'no-cache'), SPARSEVILA_LIBTENSORFLOW: '' };
    const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args, path], { env, encoding: 'utf8' });
    return { status, stdout, stderr };
  };

  it('works without an engine, unlike `run`', () => {
    const { status, stdout } = run(['inspect', '--json']);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ family: 'llava_llama', problems: [] });
    const asked = spawnSync(process.execPath, [MAIN, 'run', TINY, 'x', scene(0)], {
      env: { ...process.env, SPARSEVILA_CACHE: join(folder, 'no-cache'), SPARSEVILA_LIBTENSORFLOW: '' },
      encoding: 'utf8',
    });
    expect([asked.status, asked.stderr]).toEqual([1, expect.stringContaining('ERR_NOT_SET_UP')]);
  });

  it('prints a table, and ends with 1 where the checkpoint would not load', async () => {
    const { stdout } = run(['inspect', '--image', '300x200']);
    expect(stdout).toMatch(/decoder +4 layers of 256/);
    expect(stdout).toMatch(/300x200 +100 visual tokens\n/);
    await withCopy(TINY, async (path) => {
      rmSync(join(path, 'llm/tokenizer.json'));
      const { status, stdout: told } = run(['inspect'], path);
      expect(status).toBe(1);
      expect(told).toMatch(/loads +no:\nERR_CONFIG_MISSING .*tokenizer\.json/);
    });
    expect(run(['inspect', '--image', '3x']).status).toBe(2);
  });
});
