// `convert`: layouts are permutations, so going round is the identity; float types are checked value by value.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { openCheckpoint } from '../../src/models/safetensors';
import { convert } from '../../src/quantize/convert';
import { quantize } from '../../src/quantize/quantize';
import { writeSafetensors } from '../../src/quantize/safetensors_writer';
import { readBytes, readFloats } from '../../src/quantize/tensors';

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

  it('AutoAWQ to compressed-tensors is what quantize writes, and back is the identity', async () => {
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

  it('both mean the same floats', async () => {
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

it('what a type cannot hold is refused, and nothing is left', async () => {
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

it.each([
  [{}, 'ERR_OPTION_INVALID'],
  [{ format: 'autoawq' as const }, 'ERR_NOT_QUANTIZED'],
  [{ model: '/nowhere', dtype: 'f32' as const }, 'ERR_MODEL_MISSING'],
  [{ out: TINY, dtype: 'f32' as const }, 'ERR_OUTPUT_EXISTS'],
])('%j', async (more, code) => {
  await expect(convert({ model: TINY, out: at('refused'), ...more })).rejects.toMatchObject({ code });
});
