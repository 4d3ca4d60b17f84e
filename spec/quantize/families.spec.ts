// `quantize` of a family of which it has no code: LLaVA-1.5, whose parts share one folder. The output has
// the checkpoint's own names and layout, loads, and runs as its config says.
import { cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { convert, type QuantizeOptions, quantize } from '../../src';
import { encodeFloats } from '../../src/checkpoint/half';
import { openCheckpoint } from '../../src/checkpoint/safetensors';
import { type Json, readJson } from '../../src/json';
import { loadModel } from '../../src/models/load';
import { float32 } from '../../src/ops/run';
import { sequenceOf } from '../../src/quantize/calibration';
import { TOLERANCES } from '../../testing/ops/tolerance';
import { FIXTURES } from '../support/assets';
import { changeJson, changeTensors } from '../support/checkpoint';
import { nmse } from '../support/nmse';
import { noise } from './matrices';

const at = (name: string): string => join(folder, name);
/** Three layers of products on 4-bit weights, each within the tolerance of one. */
const LOGITS_NMSE = 10 * TOLERANCES.int4Exact;
const FIXTURE = join(FIXTURES, 'llava/llava-llama');
const IMAGES = [0, 1].map((i) => join(FIXTURE, `image${i}.png`));
const TURNS = [{ question: 'a b c', answer: 'd e', truth: undefined }];
const CASES = [
  { format: 'compressed-tensors', modules: ['decoder', 'head', 'tower', 'projector'] },
  { format: 'autoawq', modules: ['decoder'] },
  { format: 'autoawq', modules: ['tower', 'projector'] },
] as const;

/** The fixture's sizes, each with one that whole groups of 32 fit; of the tower's MLP, with one that has to be widened. */
const WIDER = new Map(
  [60, 64, 92, 96, 84, 96, 28, 32, 48, 64, 76, 80].flatMap((size, i, all) => {
    return i % 2 === 0 ? [[size, all[i + 1] as number] as const] : [];
  }),
);

/** The fixture with these sizes and random weights, in its two shards. */
function widerModel(model: string): void {
  cpSync(FIXTURE, model, { recursive: true });
  rmSync(join(model, 'expected.safetensors'));
  const { text_config: text, vision_config: vision } = readJson(join(model, 'config.json')) as Record<string, Json>;
  changeJson(join(model, 'config.json'), {
    text_config: { ...text, hidden_size: 64, intermediate_size: 96, head_dim: 16 },
    vision_config: { ...vision, hidden_size: 64, intermediate_size: 80 },
  });
  let seed = 1;
  for (const i of [1, 2])
    changeTensors(join(model, `model-0000${i}-of-00002.safetensors`), (tensors) => {
      for (const [name, { shape }] of tensors) {
        const wider = shape.map((size) => WIDER.get(size) ?? size);
        const [rows = 1, ...rest] = wider;
        const cols = rest.reduce((a, b) => a * b, 1);
        const isNorm = /norm|layrnorm/.test(name) && name.endsWith('weight');
        const values = noise(rows * cols, seed++).map((x, c) => {
          if (isNorm) return (1 + 0.2 * x) * (c % 9 === 4 ? 6 : 1);
          return rest.length === 0 ? 0.1 * x : (0.5 * x) / Math.sqrt(cols);
        });
        tensors.set(name, { dtype: 'F32', shape: wider, data: encodeFloats(values, 'F32') });
      }
    });
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-families-'));
  widerModel(at('float'));
  writeFileSync(at('set.jsonl'), IMAGES.map((image) => JSON.stringify({ image, turns: TURNS })).join('\n'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const made = (out: string, more: Partial<QuantizeOptions>) =>
  quantize({ model: at('float'), out: at(out), calibration: at('set.jsonl'), groupSize: 32, rows: 200, ...more });

/** Logits of the answer's rows to a question about a picture. */
async function logits(path: string): Promise<Float32Array> {
  const model = await loadModel(path);
  const { x, positions } = await sequenceOf(model, { images: IMAGES.slice(0, 1), turns: TURNS });
  const { decoder } = model;
  const input = float32(x, [positions.length, decoder.config.hiddenSize]);
  const cache = decoder.cache('f32', positions.length);
  const y = await decoder.forward(input, [{ cache, positions }], { pace: async () => undefined });
  const values = decoder.logits(y, true).slice();
  for (const tensor of [input, y, cache]) tensor.dispose();
  model.dispose();
  return values;
}

describe.each(CASES)('$modules, $format', ({ modules, format }) => {
  const out = `${modules.join('-')}-${format}`;
  const names = (path: string): string[] => [...openCheckpoint(path).keys()];
  const configOf = (path: string): Record<string, Json> => readJson(join(path, 'config.json')) as Record<string, Json>;
  const has = (module: string): boolean => (modules as readonly string[]).includes(module);

  it("is written in the checkpoint's own names and layout", async () => {
    const { layers, tower, projector } = await made(out, { modules, format });
    const found = [
      ...layers.map(({ errors }) => errors),
      ...(tower?.errors ?? []),
      ...(projector ? [projector.errors] : []),
    ];
    expect(found).toHaveLength(3 * Number(has('decoder')) + 3 * Number(has('tower')) + Number(has('projector')));
    for (const { rtn, chosen } of found.flat()) expect(chosen).toBeLessThan(rtn);
    const left = names(at('float')).filter((name) => !names(at(out)).includes(name));
    const suffix = format === 'autoawq' ? 'qweight' : 'weight_packed';
    for (const name of left) expect(names(at(out))).toContain(name.replace(/weight$/, suffix));
    const count = (prefix: RegExp): number => left.filter((name) => prefix.test(name)).length;
    expect(count(/^language_model\.model\.layers\.\d\.(self_attn|mlp)\./)).toBe(has('decoder') ? 3 * 7 : 0);
    expect(count(/^vision_tower\.vision_model\.encoder\.layers\.\d\./)).toBe(has('tower') ? 3 * 6 : 0);
    expect(count(/^multi_modal_projector\.linear_[12]\.weight$/)).toBe(has('projector') ? 2 : 0);
    expect(count(/^language_model\.lm_head\.weight$/)).toBe(Number(has('head')));
  });

  it('has one config at its root, which names the modules in floating point', () => {
    const files = readdirSync(at(out)).filter((name) => !name.includes('.safetensors'));
    const before = readdirSync(at('float')).filter((name) => !/\.safetensors|\.png$/.test(name));
    expect(files).toEqual(before);
    const { quantization_config: settings = {}, vision_config: vision } = configOf(at(out));
    const ignored = (settings.ignore ?? settings.modules_to_not_convert) as string[];
    expect(ignored.includes('language_model.lm_head')).toBe(!has('head'));
    expect(ignored.includes('multi_modal_projector.linear_1')).toBe(!has('projector'));
    expect(ignored.includes('vision_tower.vision_model.encoder.layers.2.mlp.fc2')).toBe(!has('tower'));
    expect(ignored.includes('language_model.model.layers.0.mlp.up_proj')).toBe(!has('decoder'));
    expect(vision?.intermediate_size).toBe(has('tower') ? 96 : 80);
    for (const module of ignored) expect(names(at(out))).toContain(`${module}.weight`);
  });

  it('keeps its list of floating-point modules in another layout', async () => {
    const other = `${out}-again`;
    await convert({ model: at(out), out: at(other), format: 'compressed-tensors' });
    const { quantization_config: before = {} } = configOf(at(out));
    const { quantization_config: after = {} } = configOf(at(other));
    expect(after.ignore).toEqual(before.ignore ?? before.modules_to_not_convert);
  });

  it('loads, and its logits equal those of the dequantized weights', async () => {
    await convert({ model: at(out), out: at(`${out}-f32`), format: 'float', dtype: 'f32' });
    const [packed, plain, float] = [await logits(at(out)), await logits(at(`${out}-f32`)), await logits(at('float'))];
    const [error, loss] = [nmse(packed, plain), nmse(packed, float)];
    process.stderr.write(`LLaVA-1.5, ${out}: ${error} from its own weights, ${loss} from the float model\n`);
    expect(error).toBeGreaterThan(0);
    expect(error).toBeLessThanOrEqual(LOGITS_NMSE);
    expect(loss).toBeGreaterThan(1e-6); // it does run in 4 bits
    expect(loss).toBeLessThan(0.1);
  });
});

it('an 8-bit tower beside other parts in one folder is refused by name', async () => {
  await expect(made('eight', { tower: 'w8a8' })).rejects.toMatchObject({
    code: 'ERR_OPTION_INVALID',
    message: expect.stringContaining('the decoder in the same folder'),
  });
});
