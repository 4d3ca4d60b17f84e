// The packaged model's vision tower and projector in 4 bits: quality, files written and read back, continuation
// after a stop, and all conversions between the layouts.
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { load } from '../../src';
import { decodeFloats, encodeFloats } from '../../src/checkpoint/half';
import { openCheckpoint, readBytes, readTensor, type TensorEntry } from '../../src/checkpoint/safetensors';
import { convert } from '../../src/convert/convert';
import { readJson } from '../../src/json';
import { loadModel } from '../../src/models/load';
import { floats } from '../../src/ops/run';
import type { Module } from '../../src/quantize/options';
import { type QuantizeOptions, quantize, searchedGroups } from '../../src/quantize/quantize';
import { formatReport, report } from '../../src/quantize/report';
import { TOLERANCES } from '../../testing/ops/tolerance';
import { conversations, scene, TINY } from '../support/assets';
import { changeJson, changeTensors, type Stored } from '../support/checkpoint';
import { encoded, prepared } from '../support/media';
import { nmse } from '../support/nmse';
import { runTower } from '../support/tower';

const PARTS = ['llm', 'vision_tower', 'mm_projector'] as const;
const ALL: readonly Module[] = ['decoder', 'tower', 'projector'];
const SIGHT: readonly Module[] = ['tower', 'projector'];

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-parts-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const at = (name: string): string => join(folder, name);
const made = (out: string, modules: readonly Module[], more: Partial<QuantizeOptions> = {}) =>
  quantize({ model: TINY, out: at(out), modules, ...more });
/** Options without a search, for specs that do not depend on quality. */
const rounded = (out: string, modules: readonly Module[], more: Partial<QuantizeOptions> = {}) =>
  made(out, modules, { method: 'rtn', ...more });
const bytesOf = (name: string, part: string): Buffer => readFileSync(join(at(name), part, 'model.safetensors'));

/** Every tensor of a checkpoint in folders: part/name to type, shape and bytes. */
function contents(model: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const part of PARTS)
    for (const entry of openCheckpoint(join(model, part)).values())
      found.set(
        `${part}/${entry.name}`,
        `${entry.dtype} ${entry.shape} ${Buffer.from(readBytes(entry)).toString('base64')}`,
      );
  return found;
}

/** What the tower gives for the first pictures, and what the projector makes of it, end to end. */
async function seen(path: string, count = 3): Promise<{ tower: Float32Array; projector: Float32Array }> {
  const model = await loadModel(path);
  const [tower, projector]: [number[], number[]] = [[], []];
  try {
    for (let i = 0; i < count; i++) {
      const image = await encoded(model, scene(i));
      const projected = model.project(image.features, image.layout);
      for (const value of floats(image.features)) tower.push(value);
      for (const value of floats(projected)) projector.push(value);
      projected.dispose();
      image.dispose();
    }
  } finally {
    model.dispose();
  }
  return { tower: Float32Array.from(tower), projector: Float32Array.from(projector) };
}

/** How many of the 144 answers equal the float model's, and how many are true. */
async function score(path: string): Promise<{ asFloat: number; right: number }> {
  const model = await load(path);
  const sum = { asFloat: 0, right: 0 };
  for (const [i, { turns }] of conversations().entries()) {
    using session = model.session({ kv: 'f32' });
    for (const [t, { question, greedy, truth }] of turns.entries()) {
      const text = await session.ask(question, t === 0 ? { images: [scene(i)] } : {}).text();
      sum.asFloat += Number(text === greedy);
      sum.right += Number(text === truth);
    }
  }
  model.dispose();
  return sum;
}

describe('quality, groups of 128', () => {
  it('the search more than halves the error of rounding to nearest, and 142 of 144 answers stay', async () => {
    const result = await made('sight', SIGHT, { rows: 1600 });
    expect(result).toMatchObject({
      tower: { blocks: 5, images: 12 },
      projector: { linears: 2, images: 12 },
      layers: [],
    });
    const groups = searchedGroups(result);
    expect(groups).toHaveLength(5 * 4 + 2);
    for (const { rtn, chosen } of groups) expect(chosen).toBeLessThan(rtn);
    await rounded('sight-rtn', SIGHT);
    const [float, searched, nearest] = [await seen(TINY), await seen(at('sight')), await seen(at('sight-rtn'))];
    for (const part of ['tower', 'projector'] as const) {
      const [chosen, rtn] = [nmse(searched[part], float[part]), nmse(nearest[part], float[part])];
      process.stderr.write(`4-bit tower and projector: after the ${part} ${chosen}, rounded to nearest ${rtn}\n`);
      expect(chosen).toBeGreaterThan(1e-5); // it does run in 4 bits
      expect(chosen).toBeLessThan(rtn / 2);
    }
    const { asFloat, right } = await score(at('sight'));
    process.stderr.write(`4-bit tower and projector: ${asFloat} of 144 answers as float, ${right} right\n`);
    expect(asFloat).toBeGreaterThanOrEqual(142);
    expect(right).toBeGreaterThanOrEqual(132);
  });

  it('with the decoder as well, 140 of 144 answers stay', async () => {
    await made('all', ALL, { rows: 1600 });
    const { asFloat, right } = await score(at('all'));
    process.stderr.write(`4-bit decoder, tower and projector: ${asFloat} of 144 answers as float, ${right} right\n`);
    expect(asFloat).toBeGreaterThanOrEqual(140);
    expect(right).toBeGreaterThanOrEqual(130);
  });

  it('the report has rows for both', async () => {
    const quality = await report({ model: TINY, quantized: at('sight'), modules: SIGHT });
    const [nearest, chosen] = quality.variants;
    expect(chosen?.features.tower).toBeLessThan(nearest?.features.tower ?? 0);
    expect(chosen?.features.projector).toBeLessThan(nearest?.features.projector ?? 0);
    expect(chosen?.agreeing).toBeGreaterThanOrEqual(70);
    const group = { group: 'tower block 0, qkv', rtn: 0.1, chosen: 0.01, ratio: 0.5 };
    const text = formatReport(quality, [group]);
    expect(text).toMatch(/NMSE after the tower +\d\.\d+e-\d/);
    expect(text).toMatch(/NMSE after the projector +\d\.\d+e-\d/);
    expect(text).toMatch(/ {2}tower block 0, qkv +1\.00e-1 +1\.00e-2/);
  });
});

describe.each(['autoawq', 'compressed-tensors'] as const)('%s', (format) => {
  const name = (what: string): string => `${format}-${what}`;
  const parts = { autoawq: /\.(qweight|qzeros|scales)$/, 'compressed-tensors': /\.weight_\w+$/ }[format];
  beforeAll(() => rounded(name('all'), ALL, { format, groupSize: 64 }));

  it('quantized tensors replace weights, everything else is unchanged, and each folder has its own config', () => {
    for (const part of PARTS) {
      const [before, after] = [openCheckpoint(join(TINY, part)), openCheckpoint(join(at(name('all')), part))];
      for (const [tensor, { dtype, shape }] of before) {
        const module = tensor.replace(/weight$/, '');
        const isLinear = shape.length === 2 && !/embed/.test(tensor);
        expect(after.has(tensor)).toBe(!isLinear);
        if (isLinear)
          expect(
            [...after.keys()].filter((key) => key.startsWith(module) && parts.test(key)).length,
          ).toBeGreaterThanOrEqual(3);
        else expect(after.get(tensor)).toMatchObject({ dtype, shape });
      }
      const { quantization_config: settings, ...rest } = readJson(join(at(name('all')), part, 'config.json'));
      expect(rest).toEqual({ ...readJson(join(TINY, part, 'config.json')), torch_dtype: 'float16' });
      const left = part === 'llm' ? ['lm_head'] : [];
      expect(settings).toMatchObject(
        format === 'autoawq'
          ? { quant_method: 'awq', bits: 4, group_size: 64, version: 'gemm', modules_to_not_convert: left }
          : { quant_method: 'compressed-tensors', format: 'pack-quantized', ignore: left },
      );
    }
    expect(readdirSync(at(name('all')), { recursive: true }).sort()).toEqual(
      readdirSync(TINY, { recursive: true }).sort(),
    );
  });

  it('tower and projector run as their dequantized weights', async () => {
    const { converted } = await convert({
      model: at(name('all')),
      out: at(name('f32')),
      format: 'float',
      dtype: 'f32',
    });
    expect(converted).toBeGreaterThanOrEqual(28 + 30 + 2);
    const [packed, plain] = [await seen(at(name('all')), 1), await seen(at(name('f32')), 1)];
    for (const part of ['tower', 'projector'] as const) {
      const error = nmse(packed[part], plain[part]);
      process.stderr.write(`${format}: after the ${part} ${error}\n`);
      expect(error).toBeGreaterThan(0);
      expect(error).toBeLessThanOrEqual(TOLERANCES.int4Exact);
    }
  });

  it('conversion to the other layout equals the output of quantize, and the round trip is the identity', async () => {
    const other = format === 'autoawq' ? 'compressed-tensors' : 'autoawq';
    await convert({ model: at(name('all')), out: at(name('to')), format: other });
    await convert({ model: at(name('to')), out: at(name('back')), format });
    expect(contents(at(name('back')))).toEqual(contents(at(name('all'))));
    await rounded(name('direct'), ALL, { format: other, groupSize: 64 });
    expect(contents(at(name('to')))).toEqual(contents(at(name('direct'))));
    for (const part of PARTS) {
      const config = (model: string) => readJson(join(at(name(model)), part, 'config.json'));
      expect(config('to')).toEqual(config('direct'));
      expect(config('back')).toEqual(config('all'));
    }
  });

  it("Hugging Face's layout has one config for all three parts, and back is the identity", async () => {
    await convert({ model: at(name('all')), out: at(name('hf')), layout: 'hf' });
    const { quantization_config: settings } = readJson(join(at(name('hf')), 'config.json'));
    expect(settings).toMatchObject(
      format === 'autoawq' ? { modules_to_not_convert: ['lm_head'] } : { ignore: ['llm.lm_head'] },
    );
    await convert({ model: at(name('hf')), out: at(name('folders')), layout: 'folders' });
    expect(contents(at(name('folders')))).toEqual(contents(at(name('all'))));
    for (const part of PARTS) {
      const config = (model: string) => readJson(join(at(name(model)), part, 'config.json'));
      expect(config('folders')).toEqual(config('all'));
    }
    const [one, many] = [await seen(at(name('hf')), 1), await seen(at(name('all')), 1)];
    expect(one.projector).toEqual(many.projector);
  });
});

describe('only some parts', () => {
  it('the others are unchanged, and are listed in one config', async () => {
    await rounded('projector', ['projector'], { format: 'compressed-tensors' });
    for (const part of ['llm', 'vision_tower'])
      for (const file of ['config.json', 'model.safetensors'])
        expect(readFileSync(join(at('projector'), part, file))).toEqual(readFileSync(join(TINY, part, file)));
    await convert({ model: at('projector'), out: at('projector-hf'), layout: 'hf' });
    const { quantization_config: settings } = readJson(join(at('projector-hf'), 'config.json'));
    expect(settings).toMatchObject({ ignore: ['re:llm\\..*', 're:vision_tower\\..*'] });
    const [one, many] = [await seen(at('projector-hf'), 1), await seen(at('projector'), 1)];
    expect(one.projector).toEqual(many.projector);
  });

  it('beside a decoder that is already in 4 bits', async () => {
    await quantize({ model: TINY, out: at('decoder'), method: 'rtn' });
    await made('added', ['tower'], { model: at('decoder'), samples: 2, rows: 400 });
    expect(bytesOf('added', 'llm').equals(bytesOf('decoder', 'llm'))).toBe(true);
    expect((await seen(at('added'), 1)).projector.every(Number.isFinite)).toBe(true);
  });

  it('an 8-bit tower goes with a 4-bit projector, but not into one config', async () => {
    const result = await made('eight', ['projector'], { tower: 'w8a8', samples: 2, rows: 400 });
    expect(result).toMatchObject({ tower: { blocks: 5, images: 2 }, projector: { images: 2 } });
    expect((await seen(at('eight'), 1)).projector.every(Number.isFinite)).toBe(true);
    await expect(convert({ model: at('eight'), out: at('eight-hf'), layout: 'hf' })).rejects.toMatchObject({
      code: 'ERR_WEIGHT_FORMAT',
      message: expect.stringContaining('vision_tower is of 8 bits'),
    });
  });

  it('parts with different groups in one folder are refused', async () => {
    await rounded('group-64', ['tower'], { groupSize: 64 });
    await rounded('groups', ['projector'], { model: at('group-64') });
    await expect(convert({ model: at('groups'), out: at('groups-hf'), layout: 'hf' })).rejects.toMatchObject({
      code: 'ERR_WEIGHT_FORMAT',
      message: expect.stringMatching(/vision_tower has .*64.*mm_projector has .*128/),
    });
    expect(existsSync(at('groups-hf'))).toBe(false);
  });
});

describe('an MLP whose width is not a multiple of the group', () => {
  /** The packaged model with 400 of its 512 units: 400 is not a multiple of 32, like the 4304 of SigLIP-so400m. */
  function narrow(): string {
    if (existsSync(at('narrow'))) return at('narrow');
    cpSync(TINY, at('narrow'), { recursive: true });
    changeJson(join(at('narrow'), 'vision_tower/config.json'), { intermediate_size: 400 });
    changeTensors(join(at('narrow'), 'vision_tower/model.safetensors'), (tensors) => {
      for (const [name, { dtype, data }] of tensors) {
        const cut = (shape: number[], from: number): void => {
          const keep = (_: number, i: number): boolean => i % from < (shape.at(-1) as number);
          const values = decodeFloats(Uint8Array.from(data), 'BF16')
            .filter(keep)
            .slice(
              0,
              shape.reduce((a, b) => a * b),
            );
          tensors.set(name, { dtype, shape, data: encodeFloats(values, 'BF16') } satisfies Stored);
        };
        if (name.endsWith('fc1.weight')) cut([400, 128], 128);
        if (name.endsWith('fc1.bias')) cut([400], 512);
        if (name.endsWith('fc2.weight')) cut([128, 400], 512);
      }
    });
    return at('narrow');
  }

  it.each(['rtn', 'awq'] as const)(
    '%s: is widened with units that are 0, which is said in the config',
    async (method) => {
      const [packed, plain] = [`wide-${method}`, `wide-${method}-f32`];
      await made(packed, ['tower'], { model: narrow(), method, samples: 2, rows: 400 });
      expect(readJson(join(at(packed), 'vision_tower/config.json'))).toMatchObject({ intermediate_size: 512 });
      await convert({ model: at(packed), out: at(plain), format: 'float', dtype: 'f32' });
      const entries = openCheckpoint(join(at(plain), 'vision_tower'));
      const values = (name: string, shape: readonly number[]): Float32Array => {
        const entry = entries.get(name) as TensorEntry;
        expect(entry.shape).toEqual(shape);
        return readTensor(entry);
      };
      const mlp = 'vision_model.encoder.layers.3.mlp';
      const added = [
        ...values(`${mlp}.fc1.weight`, [512, 128]).subarray(400 * 128),
        ...values(`${mlp}.fc1.bias`, [512]).subarray(400),
        ...values(`${mlp}.fc2.weight`, [128, 512]).filter((_, i) => i % 512 >= 400),
      ];
      expect(added).toHaveLength(112 * 128 + 112 + 128 * 112);
      expect(added.every((value) => value === 0)).toBe(true);
      const float = await seen(narrow(), 1);
      const error = nmse((await seen(at(packed), 1)).tower, float.tower);
      process.stderr.write(`a widened tower, ${method}: features ${error}\n`);
      expect(error).toBeLessThanOrEqual(0.05);
      expect(nmse((await seen(at(packed), 1)).tower, (await seen(at(plain), 1)).tower)).toBeLessThanOrEqual(
        TOLERANCES.int4Exact,
      );
    },
  );
});

describe('interrupted', () => {
  const quick = (out: string, more: Partial<QuantizeOptions> = {}) =>
    made(out, ALL, { samples: 2, rows: 400, ...more });

  it('in the tower, the same call continues with its blocks to the same bytes, and refuses other options', async () => {
    const controller = new AbortController();
    const onProgress: QuantizeOptions['onProgress'] = ({ step, done }) => {
      if (step === 'quantize tower' && done === 2) controller.abort();
    };
    await expect(quick('stopped', { signal: controller.signal, onProgress })).rejects.toMatchObject({
      name: 'AbortError',
    });
    expect(existsSync(at('stopped'))).toBe(false);
    await expect(quick('stopped', { groupSize: 64 })).rejects.toMatchObject({ code: 'ERR_RESUME_MISMATCH' });
    await expect(quick('stopped', { modules: ['tower'] })).rejects.toMatchObject({ code: 'ERR_RESUME_MISMATCH' });
    const result = await quick('stopped');
    expect(result).toMatchObject({ resumed: 2, tower: { blocks: 5, images: 2 } });
    expect(searchedGroups(result)).toHaveLength(5 * 4 + 2 + 4 * 4);
    await quick('whole');
    for (const part of PARTS) expect(bytesOf('stopped', part).equals(bytesOf('whole', part))).toBe(true);
    expect(existsSync(at('stopped.partial'))).toBe(false);
  });

  it('before any step is finished, leaves no file', async () => {
    const controller = new AbortController();
    const onProgress: QuantizeOptions['onProgress'] = ({ step }) => {
      if (step === 'read pictures') controller.abort();
    };
    const stopped = made('early', ['projector'], { signal: controller.signal, onProgress });
    await expect(stopped).rejects.toMatchObject({ name: 'AbortError' });
    expect(readdirSync(folder).filter((name) => name.startsWith('early'))).toEqual([]);
  });
});

describe('refused', () => {
  const refuse = (more: Partial<QuantizeOptions>) => quantize({ model: TINY, out: at('refused'), ...more });

  it.each<[Partial<QuantizeOptions>, string, RegExp]>([
    [
      { modules: ['tower'], groupSize: 96 },
      'ERR_QUANTIZE_SHAPE',
      /96.*received q_proj of the vision tower with 128 inputs and 128 outputs\. Try --group-size 128 or 64 or 32\.$/,
    ],
    [
      { modules: ['projector'], groupSize: 384 },
      'ERR_QUANTIZE_SHAPE',
      /layers\.2 of the projector with 512 inputs and 256 outputs/,
    ],
    [{ modules: ['tower', 'vision' as 'tower'] }, 'ERR_OPTION_INVALID', /decoder, head, tower, projector.*vision/],
    [{ modules: ['tower'], tower: 'w8a8' }, 'ERR_OPTION_INVALID', /4 bits.*8 bits.*both/],
    [{ tower: 'w4' as 'w8a8' }, 'ERR_OPTION_INVALID', /w8a8.*modules.* for tower, received .*w4/],
    [{ modules: ['tower'], calibration: '/nowhere.jsonl' }, 'ERR_CALIBRATION', /nowhere/],
    [{ modules: ['projector'], model: '/nowhere' }, 'ERR_MODEL_MISSING', /nowhere/],
  ])('%j', async (more, code, message) => {
    await expect(refuse(more)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
    expect(readdirSync(folder).filter((name) => name.startsWith('refused'))).toEqual([]);
  });

  it('parts that are quantized already', async () => {
    await rounded('already', SIGHT);
    for (const modules of [['tower'], ['projector']] as const)
      await expect(refuse({ model: at('already'), modules })).rejects.toMatchObject({ code: 'ERR_ALREADY_QUANTIZED' });
    await expect(refuse({ model: at('already'), tower: 'w8a8' })).rejects.toMatchObject({
      code: 'ERR_ALREADY_QUANTIZED',
    });
  });
});

it('a 4-bit tower has salience for every patch', async () => {
  await rounded('salient', ['tower']);
  const model = await loadModel(TINY);
  const picture = await prepared(model, scene(0));
  model.dispose();
  const { features, salience } = await runTower(at('salient'), picture);
  features.dispose();
  expect(salience[0]).toHaveLength(400);
  expect(salience[0]?.reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 4);
});
