// Every supported 4-bit layout, converted to floats and to the two layouts that can be written: equal to the fixtures' definitions bit for bit.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { openCheckpoint, readSafetensorsHeader, readTensor } from '../../src/checkpoint/safetensors';
import { copyOf, writeSafetensors } from '../../src/checkpoint/safetensors_writer';
import { convert } from '../../src/convert/convert';

const FORMATS = resolve(__dirname, '../../../spec/fixtures/awq/formats');
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-formats-'));
});
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => join(folder, name);

const CONFIGS: Readonly<Record<string, object>> = {
  'gptq-v2': { quant_method: 'gptq', bits: 4, checkpoint_format: 'gptq_v2' },
  gptq: { quant_method: 'gptq', bits: 4 },
};
const isStack = (name: string): boolean => name.startsWith('stack.');

/** A checkpoint of the fixture's modules that `keep` names. */
async function checkpoint(format: string, name: string, keep: (tensor: string) => boolean): Promise<string> {
  const out = at(name);
  mkdirSync(out);
  const entries = [...openCheckpoint(join(FORMATS, format)).values()].filter(({ name }) => keep(name));
  await writeSafetensors(
    join(out, 'model.safetensors'),
    entries.map((entry) => copyOf(entry)),
  );
  const settings = CONFIGS[format];
  writeFileSync(join(out, 'config.json'), JSON.stringify(settings ? { quantization_config: settings } : {}));
  return out;
}

function valuesIn(file: string): Map<string, Float32Array> {
  return new Map(readSafetensorsHeader(file).map((entry) => [entry.name, readTensor(entry)]));
}

/** The largest difference; 0 for equal values. */
function difference(actual: Float32Array | undefined, values: Float32Array): number {
  expect(actual).toHaveLength(values.length);
  return values.reduce((most, value, i) => Math.max(most, Math.abs(value - (actual?.[i] ?? Number.NaN))), 0);
}

async function floatsOf(model: string): Promise<Map<string, Float32Array>> {
  rmSync(`${model}-f32`, { recursive: true, force: true });
  await convert({ model, out: `${model}-f32`, format: 'float', dtype: 'f32' });
  return valuesIn(join(`${model}-f32`, 'model.safetensors'));
}

describe.each(readdirSync(FORMATS))('%s', (format) => {
  const definition = valuesIn(join(FORMATS, format, 'expected.safetensors'));
  // gemv_fast stores -z s rounded to f16; what is written holds z itself.
  const tolerance = format === 'awq-gemv-fast' ? 2 ** -6 : 0;

  it.each([...definition.keys()].filter((name) => !isStack(name)))('%s as floats', async (name) => {
    const module = name.replace(/\.weight$/, '');
    const model = await checkpoint(format, `${format}-${module}`, (tensor) => tensor.startsWith(`${module}.`));
    await convert({ model, out: at(`${format}-${module}-f32`), format: 'float', dtype: 'f32' });
    const found = valuesIn(join(at(`${format}-${module}-f32`), 'model.safetensors'));
    expect(difference(found.get(name), definition.get(name) as Float32Array)).toBeLessThanOrEqual(tolerance);
  });

  it('to the layouts that can be written, and from those to floats', async () => {
    const model = await checkpoint(format, `${format}-stack`, isStack);
    if (format === 'gptq') {
      // The fixture has zero points of 16, and the others have no place for them.
      const refused = convert({ model, out: at('gptq-autoawq'), format: 'autoawq' });
      await expect(refused).rejects.toMatchObject({ code: 'ERR_WEIGHT_VALUE' });
      await lowerZeros(join(model, 'model.safetensors'));
    }
    for (const target of ['autoawq', 'compressed-tensors'] as const) {
      const [packed, plain] = [at(`${format}-${target}`), at(`${format}-${target}-f32`)];
      await convert({ model, out: packed, format: target });
      const { quantization_config: settings } = JSON.parse(readFileSync(join(packed, 'config.json'), 'utf8'));
      expect(settings.quant_method).toBe(target === 'autoawq' ? 'awq' : target);
      await convert({ model: packed, out: plain, format: 'float', dtype: 'f32' });
      const found = valuesIn(join(plain, 'model.safetensors'));
      // Of GPTQ v1, whose zeros were changed, GPTQ's own floats are what to compare with.
      const source = format === 'gptq' ? await floatsOf(model) : definition;
      for (const [name, values] of source)
        if (isStack(name)) expect(difference(found.get(name), values)).toBeLessThanOrEqual(tolerance);
    }
  });
});

/** Takes zero points of 16 from a GPTQ v1 file: stored as 15, they become 14. */
async function lowerZeros(file: string): Promise<void> {
  const bytes = readFileSync(file);
  for (const { name, offset, bytes: size } of readSafetensorsHeader(file)) {
    if (!name.endsWith('.qzeros')) continue;
    for (let i = offset; i < offset + size; i++) {
      const [low, high] = [(bytes[i] as number) & 15, (bytes[i] as number) >> 4];
      bytes[i] = Math.min(14, low) | (Math.min(14, high) << 4);
    }
  }
  writeFileSync(file, bytes);
}

it('different group sizes in one folder are refused', async () => {
  const model = await checkpoint('awq-gemm', 'mixed', () => true);
  await expect(convert({ model, out: at('mixed-ct'), format: 'compressed-tensors' })).rejects.toMatchObject({
    code: 'ERR_WEIGHT_FORMAT',
  });
});

it('a layout that cannot be written needs another target', async () => {
  const model = await checkpoint('awq-gemv', 'kept', isStack);
  await expect(convert({ model, out: at('kept-f32'), dtype: 'f32' })).rejects.toMatchObject({
    code: 'ERR_WEIGHT_FORMAT',
    message: expect.stringContaining('--format'),
  });
});
