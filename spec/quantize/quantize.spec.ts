// `quantize` on the packaged model: quality, files, and interruption.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { openCheckpoint, readSafetensorsHeader, type TensorEntry } from '../../src/checkpoint/safetensors';
import { copyOf, writeSafetensors } from '../../src/checkpoint/safetensors_writer';
import { loadModel, loadRowModel } from '../../src/models/load';
import { readCalibration, sequenceOf } from '../../src/quantize/calibration';
import { packagedScenes } from '../../src/quantize/options';
import { type QuantizeOptions, type QuantizeResult, quantize } from '../../src/quantize/quantize';
import { takeLock } from '../../src/runtime/lock';
import { createSession } from '../../src/session/session';
import { leaveLock } from '../runtime/locks';
import { changeTensors, withCopy } from '../support/checkpoint';
import { questionsAbout } from './questions';

const TINY = resolve(__dirname, '../../../assets/tiny-nvila');
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-quantize-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const at = (name: string): string => join(folder, name);
const bytesOf = (name: string): Buffer => readFileSync(join(at(name), 'llm', 'model.safetensors'));
/** Options with few rows, for specs that do not depend on quality. */
const quick = (out: string, more: Partial<QuantizeOptions> = {}): Promise<QuantizeResult> =>
  quantize({ model: TINY, out: at(out), samples: 2, rows: 128, ...more });

const PICTURES = packagedScenes('evaluation');

/** Greedy answers to 300 questions about the packaged pictures that are not calibrated on. */
async function answers(folderOfModel: string): Promise<string[]> {
  const model = await loadModel(folderOfModel);
  const said: string[] = [];
  for (const sample of PICTURES) {
    const session = createSession(model);
    for (const [i, question] of questionsAbout(sample, 27).entries()) {
      const images = i === 0 ? sample.images : [];
      said.push(await session.ask(question, { images, history: 'forget', temperature: 0 }).text());
    }
    session.dispose();
  }
  model.dispose();
  return said.slice(0, 300);
}

/** Questions about the other half of the pictures, answered by the model itself. */
function calibrationFile(): string {
  const lines = packagedScenes('calibration').map((sample) =>
    JSON.stringify({ images: sample.images, turns: questionsAbout(sample, 27).map((question) => ({ question })) }),
  );
  writeFileSync(at('calibration.jsonl'), lines.join('\n'));
  return at('calibration.jsonl');
}

describe('quality, groups of 128', () => {
  it('every group beats rounding to nearest; at most half of its changed answers, and 97 % agree', async () => {
    const result = await quantize({ model: TINY, out: at('awq'), calibration: calibrationFile() });
    await quantize({ model: TINY, out: at('rtn'), method: 'rtn' });
    expect(result.layers).toHaveLength(4);
    for (const { errors } of result.layers) {
      expect(errors).toHaveLength(4);
      for (const { rtn, chosen } of errors) expect(chosen).toBeLessThan(rtn);
    }
    const [float, rtn, awq] = [await answers(TINY), await answers(at('rtn')), await answers(at('awq'))];
    expect(float).toHaveLength(300);
    const changed = (others: readonly string[]): number => others.filter((answer, i) => answer !== float[i]).length;
    process.stderr.write(`changed answers of 300: rounding to nearest ${changed(rtn)}, quantize ${changed(awq)}\n`);
    expect(changed(awq)).toBeLessThanOrEqual(changed(rtn) / 2);
    expect(changed(awq)).toBeLessThanOrEqual(9);
  });
});

describe('files', () => {
  it('AutoAWQ: quantized tensors replace weights, everything else is unchanged', async () => {
    await quick('autoawq', { groupSize: 64 });
    const before = openCheckpoint(join(TINY, 'llm'));
    const after = openCheckpoint(join(at('autoawq'), 'llm'));
    const linear = /(self_attn|mlp)\.\w+_proj\.weight$/;
    for (const [name, { shape, dtype }] of before) {
      if (!linear.test(name)) {
        expect(after.get(name)?.shape).toEqual(shape);
        if (!/layernorm/.test(name) && !/v_proj.bias/.test(name)) expect(after.get(name)?.dtype).toBe(dtype);
        continue;
      }
      const module = name.slice(0, -'.weight'.length);
      const [rows = 0, cols = 0] = shape;
      expect(after.has(name)).toBe(false);
      expect(after.get(`${module}.qweight`)).toMatchObject({ dtype: 'I32', shape: [cols, rows / 8] });
      expect(after.get(`${module}.qzeros`)).toMatchObject({ dtype: 'I32', shape: [cols / 64, rows / 8] });
      expect(after.get(`${module}.scales`)).toMatchObject({ dtype: 'F16', shape: [cols / 64, rows] });
    }
    const config = JSON.parse(readFileSync(join(at('autoawq'), 'llm', 'config.json'), 'utf8'));
    expect(config.quantization_config).toEqual({
      ...{ quant_method: 'awq', bits: 4, group_size: 64, zero_point: true, version: 'gemm' },
      modules_to_not_convert: ['lm_head'],
    });
    for (const part of ['config.json', 'vision_tower/model.safetensors', 'llm/tokenizer.json'])
      expect(readFileSync(join(at('autoawq'), part))).toEqual(readFileSync(join(TINY, part)));
    expect(readdirSync(at('autoawq'), { recursive: true }).sort()).toEqual(
      readdirSync(TINY, { recursive: true }).sort(),
    );
  });

  it('compressed-tensors, symmetric', async () => {
    await quick('symmetric', { format: 'compressed-tensors', symmetric: true, method: 'rtn' });
    const names = [...openCheckpoint(join(at('symmetric'), 'llm')).keys()];
    expect(
      names
        .filter((name) => /down_proj/.test(name) && /layers\.0/.test(name))
        .map((name) => name.split('.').at(-1))
        .sort(),
    ).toEqual(['weight_packed', 'weight_scale', 'weight_shape']);
    const { quantization_config: settings } = JSON.parse(
      readFileSync(join(at('symmetric'), 'llm', 'config.json'), 'utf8'),
    );
    expect(settings).toMatchObject({ quant_method: 'compressed-tensors', format: 'pack-quantized' });
    expect(settings.config_groups.group_0.weights).toMatchObject({ num_bits: 4, group_size: 128, symmetric: true });
  });
});

it('a separate head is quantized on request, and every form loads and answers', async () => {
  cpSync(TINY, at('untied'), { recursive: true });
  const entries = openCheckpoint(join(TINY, 'llm'));
  const copies = [...entries.values()].map((entry) => copyOf(entry));
  const head = copyOf(entries.get('model.embed_tokens.weight') as TensorEntry, 'lm_head.weight');
  await writeSafetensors(join(at('untied'), 'llm', 'model.safetensors'), [...copies, head]);
  const options = { model: at('untied'), method: 'rtn' as const, groupSize: 64, modules: ['decoder', 'head'] as const };
  for (const format of ['autoawq', 'compressed-tensors'] as const) {
    await quick(`head-${format}`, { ...options, format });
    const names = [...openCheckpoint(join(at(`head-${format}`), 'llm')).keys()];
    expect(names).not.toContain('lm_head.weight');
    expect(names).toContain('model.embed_tokens.weight');
    const model = await loadModel(at(`head-${format}`));
    const session = createSession(model);
    const [sample] = PICTURES;
    expect(
      await session.ask('Where is the yellow star?', { images: sample?.images ?? [], temperature: 0 }).text(),
    ).toBe('b3');
    session.dispose();
    model.dispose();
  }
});

describe('interrupted', () => {
  /** Stops when layer 1 is being searched; returns what was thrown. */
  async function stopped(out: string, more: Partial<QuantizeOptions> = {}): Promise<unknown> {
    const controller = new AbortController();
    const onProgress: QuantizeOptions['onProgress'] = ({ step, done }) => {
      if (step === 'quantize layers' && done > 1.2) controller.abort();
    };
    return quick(out, { signal: controller.signal, onProgress, ...more }).catch((error: unknown) => error);
  }

  it('no file has the final name, and the same call continues to the same bytes', async () => {
    expect(await stopped('stopped')).toMatchObject({ name: 'AbortError' });
    expect(existsSync(at('stopped'))).toBe(false);
    expect(existsSync(at('stopped.partial'))).toBe(true);
    const result = await quick('stopped');
    expect(result.resumed).toBe(1);
    expect(result.layers.map(({ layer }) => layer)).toEqual([0, 1, 2, 3]);
    expect(existsSync(at('stopped.partial'))).toBe(false);
    await quick('whole');
    expect(bytesOf('stopped').equals(bytesOf('whole'))).toBe(true);
  });

  it('while the checkpoint is written, nothing is searched again', async () => {
    const controller = new AbortController();
    const onProgress: QuantizeOptions['onProgress'] = ({ step }) => {
      if (step === 'write checkpoint') controller.abort();
    };
    const late = quick('late', { signal: controller.signal, onProgress });
    await expect(late).rejects.toMatchObject({ name: 'AbortError' });
    expect(existsSync(at('late'))).toBe(false);
    expect((await quick('late')).resumed).toBe(4);
    expect(bytesOf('late').equals(bytesOf('whole'))).toBe(true);
    expect(existsSync(at('late.partial'))).toBe(false);
  });

  it('a killed process leaves a free lock', async () => {
    await stopped('killed');
    leaveLock(at('killed.partial'));
    expect((await quick('killed')).resumed).toBe(1);
  });

  it('other options or a second process are refused', async () => {
    await stopped('mixed');
    await expect(quick('mixed', { groupSize: 64 })).rejects.toMatchObject({ code: 'ERR_RESUME_MISMATCH' });
    const lock = takeLock(at('mixed.partial'));
    await expect(quick('mixed')).rejects.toMatchObject({ code: 'ERR_BUSY' });
    lock.release();
  });

  it('an existing folder is not changed', async () => {
    mkdirSync(at('there'));
    await expect(quick('there')).rejects.toMatchObject({ code: 'ERR_OUTPUT_EXISTS' });
    expect(readdirSync(at('there'))).toEqual([]);
  });
});

describe('the parts that the calibration set needs', () => {
  it('rows are equal with and without the decoder', async () => {
    const [whole, rows] = [await loadModel(TINY), await loadRowModel(TINY)];
    const [sample] = packagedScenes('calibration');
    if (sample === undefined) throw new Error('no packaged scenes');
    expect(await sequenceOf(rows, sample)).toEqual(await sequenceOf(whole, sample));
    whole.dispose();
    rows.dispose();
  });

  it("with all answers only the decoder's embedding is loaded, otherwise the whole decoder", () =>
    withCopy(TINY, async (model) => {
      changeTensors(join(model, 'llm', 'model.safetensors'), (tensors) => tensors.delete('model.norm.weight'));
      const { calibration } = await quick('no-norm', { model, samples: 1, rows: 64 });
      expect(calibration?.conversations).toBe(1);
      const [image] = packagedScenes('calibration')[0]?.images ?? [];
      writeFileSync(at('asked.jsonl'), JSON.stringify({ image, turns: [{ question: 'What is at a0?' }] }));
      await expect(quick('asked', { model, calibration: at('asked.jsonl') })).rejects.toMatchObject({
        code: 'ERR_WEIGHT_MISSING',
        message: expect.stringContaining('model.norm.weight'),
      });
    }));
});

describe('bad input', () => {
  const calibration = (name: string, text: string): string => {
    writeFileSync(at(name), text);
    return at(name);
  };
  const turns = [{ question: 'What is at a0?' }];

  it.each([
    ['no JSON', 'x'],
    ['no turns', '{"image": "a.png"}'],
    ['no question', '{"turns": [{"answer": "a"}]}'],
    ['nothing', '\n'],
  ])('calibration: %s', async (_, text) => {
    const file = calibration('bad.jsonl', text);
    await expect(quick('bad', { calibration: file })).rejects.toMatchObject({ code: 'ERR_CALIBRATION' });
    expect(existsSync(at('bad.partial'))).toBe(false);
  });

  it('an undecodable picture is named, and replacing it is enough', async () => {
    writeFileSync(at('broken.png'), 'not a picture');
    const file = calibration('broken.jsonl', JSON.stringify({ image: 'broken.png', turns }));
    await expect(quick('broken', { calibration: file })).rejects.toMatchObject({
      code: 'ERR_CALIBRATION',
      message: expect.stringContaining('broken.png'),
    });
    cpSync(packagedScenes('calibration')[0]?.images[0] ?? '', at('broken.png'));
    expect((await quick('broken', { calibration: file })).calibration?.conversations).toBe(1);
  });

  it('weights that are NaN', async () => {
    cpSync(TINY, at('nan'), { recursive: true });
    const file = join(at('nan'), 'llm', 'model.safetensors');
    const bytes = readFileSync(file);
    const entry = readSafetensorsHeader(file).find(({ name }) => name.endsWith('layers.2.mlp.up_proj.weight'));
    bytes.writeUInt16LE(0x7fc0, (entry?.offset ?? 0) + 20);
    writeFileSync(file, bytes);
    await expect(quick('from-nan', { model: at('nan'), method: 'rtn' })).rejects.toMatchObject({
      code: 'ERR_NOT_FINITE',
      message: expect.stringContaining('layers.2.mlp.up_proj.weight'),
    });
    expect(existsSync(at('from-nan'))).toBe(false);
  });

  it.each([
    [{ groupSize: 96 }, 'ERR_QUANTIZE_SHAPE'],
    [{ groupSize: 0 }, 'ERR_OPTION_INVALID'],
    // Files of this kind exist, and the kernels do not take them.
    [{ groupSize: 16 }, 'ERR_OPTION_INVALID'],
    [{ samples: 0 }, 'ERR_OPTION_INVALID'],
    [{ rows: 0 }, 'ERR_OPTION_INVALID'],
    [{ modules: ['head'] as const }, 'ERR_OPTION_INVALID'],
    [{ model: '/nowhere' }, 'ERR_MODEL_MISSING'],
    [{ calibration: '/nowhere.jsonl' }, 'ERR_CALIBRATION'],
  ])('%j', async (more, code) => {
    await expect(quick('refused', more)).rejects.toMatchObject({ code });
    expect(readdirSync(folder).filter((name) => name.startsWith('refused'))).toEqual([]);
  });

  it('the packaged scenes are split in two', () => {
    const images = (half: 'calibration' | 'evaluation') => packagedScenes(half).flatMap((sample) => sample.images);
    expect(new Set([...images('calibration'), ...images('evaluation')]).size).toBe(24);
    expect(readCalibration(resolve(__dirname, '../../../assets/calibration/conversations.jsonl'))).toHaveLength(24);
  });
});
