// `convert`: layouts are permutations, so round trips are the identity; float types are checked value by value.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { openCheckpoint, readBytes, readFloats } from '../../src/checkpoint/safetensors';
import { writeSafetensors } from '../../src/checkpoint/safetensors_writer';
import { convert } from '../../src/convert/convert';
import { filesBelow } from '../../src/files';
import { quantize } from '../../src/quantize/quantize';

const TINY = resolve(__dirname, '../../../assets/tiny-nvila');
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-convert-'));
});
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => join(folder, name);

/** Every tensor of a checkpoint: part/name to type, shape and bytes. */
function contents(model: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const part of ['llm', 'vision_tower', 'mm_projector'])
    for (const entry of openCheckpoint(join(model, part)).values())
      found.set(
        `${part}/${entry.name}`,
        `${entry.dtype} ${entry.shape} ${Buffer.from(readBytes(entry)).toString('base64')}`,
      );
  return found;
}

describe.each([
  ['asymmetric', false],
  ['symmetric', true],
])('%s', (name, symmetric) => {
  const [awq, tensors] = [`${name}-awq`, `${name}-ct`];
  beforeAll(async () => {
    await quantize({ model: TINY, out: at(awq), method: 'rtn', symmetric });
    await quantize({ model: TINY, out: at(tensors), method: 'rtn', symmetric, format: 'compressed-tensors' });
  });

  it('AutoAWQ to compressed-tensors equals the output of quantize, and the round trip is the identity', async () => {
    const { converted } = await convert({ model: at(awq), out: at(`${name}-to-ct`), format: 'compressed-tensors' });
    expect(converted).toBe(28);
    expect(contents(at(`${name}-to-ct`))).toEqual(contents(at(tensors)));
    await convert({ model: at(`${name}-to-ct`), out: at(`${name}-back`), format: 'autoawq' });
    expect(contents(at(`${name}-back`))).toEqual(contents(at(awq)));
    const config = (model: string): unknown => JSON.parse(readFileSync(join(at(model), 'llm', 'config.json'), 'utf8'));
    expect(config(`${name}-to-ct`)).toEqual({
      ...(config(tensors) as object),
      quantization_config: expect.objectContaining({ quant_method: 'compressed-tensors' }),
    });
  });

  it('both dequantize to the same floats', async () => {
    await convert({ model: at(awq), out: at(`${name}-a`), format: 'float', dtype: 'f32' });
    await convert({ model: at(tensors), out: at(`${name}-b`), format: 'float', dtype: 'f32' });
    expect(contents(at(`${name}-a`))).toEqual(contents(at(`${name}-b`)));
    const config = JSON.parse(readFileSync(join(at(`${name}-a`), 'llm', 'config.json'), 'utf8'));
    expect(config).toMatchObject({ torch_dtype: 'float32' });
    expect(config).not.toHaveProperty('quantization_config');
  });
});

it('bf16 to f32 and back is the identity', async () => {
  const { verified } = await convert({ model: TINY, out: at('f32'), dtype: 'f32' });
  expect(verified).toBe(contents(TINY).size);
  await convert({ model: at('f32'), out: at('bf16'), dtype: 'bf16' });
  expect(contents(at('bf16'))).toEqual(contents(TINY));
  const entry = openCheckpoint(join(at('f32'), 'llm')).get('model.norm.weight');
  expect(entry?.dtype).toBe('F32');
});

it('values that a type cannot hold are refused, and no file is left', async () => {
  const file = async (model: string, values: Float32Array): Promise<void> => {
    mkdirSync(at(model));
    const bytes = new Uint8Array(values.buffer);
    await writeSafetensors(join(at(model), 'model.safetensors'), [
      { name: 'a', dtype: 'F32', shape: [values.length], byteLength: bytes.byteLength, bytes: () => bytes },
    ]);
  };
  await file('large', Float32Array.of(1, 70000));
  await expect(convert({ model: at('large'), out: at('large-f16'), dtype: 'f16' })).rejects.toMatchObject({
    code: 'ERR_NOT_FINITE',
  });
  await file('fine', Float32Array.of(1, 60000));
  await convert({ model: at('fine'), out: at('fine-f16'), dtype: 'f16' });
  const entry = openCheckpoint(at('fine-f16')).get('a');
  expect(entry && [...readFloats(entry)]).toEqual([1, 60000]);
  expect(['large-f16', 'large-f16.partial'].filter((name) => existsSync(at(name)))).toEqual([]);
});

it('tensors without elements, and names such as __proto__, are kept', async () => {
  mkdirSync(at('names'));
  const names = ['__proto__', 'toString', 'constructor', ''];
  const none = { dtype: 'F32', shape: [0], byteLength: 0, bytes: () => new Uint8Array() } as const;
  const one = { dtype: 'F32', shape: [1], byteLength: 4, bytes: () => new Uint8Array(4) } as const;
  const tensors = [...names.map((name) => ({ name, ...none })), { name: 'hasOwnProperty', ...one }];
  await writeSafetensors(join(at('names'), 'model.safetensors'), tensors);
  await convert({ model: at('names'), out: at('names-f16'), dtype: 'f16' });
  const found = openCheckpoint(at('names-f16'));
  expect([...found.keys()].sort()).toEqual(['', '__proto__', 'constructor', 'hasOwnProperty', 'toString']);
  expect([...found.values()].map(({ dtype }) => dtype)).toEqual(Array(5).fill('F16'));
});

it('after a kill at any step, the same call continues to the same result', async () => {
  await convert({ model: TINY, out: at('whole'), dtype: 'f32' });
  const script = `require(${JSON.stringify(resolve(__dirname, '../../src/convert/convert.js'))}).convert({
    model: ${JSON.stringify(TINY)}, out: process.argv[1], dtype: 'f32',
    onProgress: ({ done, total }) => done / total > Number(process.argv[2]) && process.kill(process.pid, 'SIGKILL'),
  });`;
  for (const share of ['0.05', '0.4', '0.55']) {
    const { signal } = spawnSync(process.execPath, ['-e', script, at('killed'), share]);
    expect([signal, existsSync(at('killed'))]).toEqual(['SIGKILL', false]);
  }
  await convert({ model: TINY, out: at('killed'), dtype: 'f32' });
  expect(existsSync(at('killed.partial'))).toBe(false);
  expect(filesBelow(at('killed'))).toEqual(filesBelow(at('whole')));
  for (const file of filesBelow(at('whole')))
    expect(readFileSync(join(at('killed'), file)).equals(readFileSync(join(at('whole'), file)))).toBe(true);
});

it.each([
  [{}, 'ERR_OPTION_INVALID'],
  [{ format: 'autoawq' as const }, 'ERR_NOT_QUANTIZED'],
  [{ model: '/nowhere', dtype: 'f32' as const }, 'ERR_MODEL_MISSING'],
  [{ out: TINY, dtype: 'f32' as const }, 'ERR_OUTPUT_EXISTS'],
])('%j', async (more, code) => {
  await expect(convert({ model: TINY, out: at('refused'), ...more })).rejects.toMatchObject({ code });
});
