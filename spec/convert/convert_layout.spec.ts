// The folders of a VILA checkpoint and the one folder of the NVILA -hf ports: the round trip is the identity, and both give equal answers.
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { openCheckpoint, readBytes } from '../../src/checkpoint/safetensors';
import { convert } from '../../src/convert/convert';
import { loadModel, planOf } from '../../src/models/load';
import { tokensOf } from '../../src/models/media';
import { packagedScenes } from '../../src/quantize/options';
import { quantize } from '../../src/quantize/quantize';
import { createSession } from '../../src/session/session';
import { FIXTURES } from '../support/assets';
import { changeJson } from '../support/checkpoint';

const TINY = resolve(__dirname, '../../../assets/tiny-nvila');
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-layout-'));
});
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => join(folder, name);

/** Every file: JSON by what it says, weights by name, type, shape and bytes, others by bytes. */
function contents(model: string): Map<string, unknown> {
  const files = new Map<string, unknown>();
  for (const name of readdirSync(model, { recursive: true, encoding: 'utf8' })) {
    const path = join(model, name);
    if (name.endsWith('.safetensors')) {
      for (const entry of openCheckpoint(resolve(path, '..')).values())
        files.set(`${name}/${entry.name}`, [
          entry.dtype,
          entry.shape,
          Buffer.from(readBytes(entry)).toString('base64'),
        ]);
    } else if (name.endsWith('.json')) files.set(name, JSON.parse(readFileSync(path, 'utf8')));
  }
  return files;
}

async function answers(model: string): Promise<string[]> {
  const vlm = await loadModel(model);
  const said: string[] = [];
  for (const { images, turns } of packagedScenes('evaluation').slice(0, 3)) {
    const session = createSession(vlm);
    for (const [i, { question }] of turns.entries())
      said.push(await session.ask(question, { images: i === 0 ? images : [], temperature: 0 }).text());
    session.dispose();
  }
  vlm.dispose();
  return said;
}

describe.each(['float', 'autoawq', 'compressed-tensors'] as const)('%s', (format) => {
  it('the round trip is the identity, and both give the same answers', async () => {
    const model = format === 'float' ? TINY : at(`${format}-folders`);
    if (format !== 'float') await quantize({ model: TINY, out: model, format, method: 'rtn' });
    const [hf, back] = [at(`${format}-hf`), at(`${format}-back`)];
    await convert({ model, out: hf, layout: 'hf' });
    expect(readdirSync(hf).sort()).toEqual([
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'preprocessor_config.json',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    const names = [...openCheckpoint(hf).keys()];
    expect(
      names.every((name) => /^(llm\.model\.|vision_tower\.vision_model\.|mm_projector\.layers\.\d)/.test(name)),
    ).toBe(true);
    const config = JSON.parse(readFileSync(join(hf, 'config.json'), 'utf8'));
    expect(config).toMatchObject({
      model_type: 'nvila',
      text_config: { model_type: 'qwen2' },
      vision_config: { image_size: 280 },
    });
    expect(config.text_config).not.toHaveProperty('quantization_config');
    if (format === 'autoawq')
      expect(config.quantization_config.modules_to_not_convert).toEqual(['lm_head', 'vision_tower', 'mm_projector']);
    await convert({ model: hf, out: back, layout: 'folders' });
    expect(contents(back)).toEqual(contents(model));
    const said = await answers(model);
    expect(new Set(said).size).toBeGreaterThan(5);
    expect(await answers(hf)).toEqual(said);
  });
});

it('a tensor name that belongs to no part is an error', async () => {
  await convert({ model: TINY, out: at('named'), layout: 'hf' });
  const file = join(at('named'), 'model.safetensors');
  const bytes = readFileSync(file);
  const wrong = bytes.indexOf('"llm.model.norm.weight"');
  bytes.write('"xlm.model.norm.weight"', wrong);
  writeFileSync(file, bytes);
  await expect(loadModel(at('named'))).rejects.toMatchObject({ code: 'ERR_WEIGHT_MISSING' });
});

it('implicit settings of the ports are not misread: three scales, which need another projector', async () => {
  cpSync(at('named'), at('port'), { recursive: true });
  const file = join(at('port'), 'config.json');
  const { image_aspect_ratio: _, projector_config: __, ...config } = JSON.parse(readFileSync(file, 'utf8'));
  writeFileSync(file, JSON.stringify(config));
  await expect(loadModel(at('port'))).rejects.toMatchObject({ code: 'ERR_WEIGHT_SHAPE' });
});

it('a projector without a port, and another kind of checkpoint, are refused, and no file is left', async () => {
  cpSync(TINY, at('linear'), { recursive: true });
  const file = join(at('linear'), 'mm_projector', 'config.json');
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), mm_projector_type: 'linear' }));
  await expect(convert({ model: at('linear'), out: at('linear-hf'), layout: 'hf' })).rejects.toMatchObject({
    code: 'ERR_MODEL_TYPE',
  });
  const decoder = join(TINY, 'llm');
  await expect(convert({ model: decoder, out: at('llm-hf'), layout: 'hf' })).rejects.toMatchObject({
    code: 'ERR_MODEL_TYPE',
  });
  expect(['linear-hf', 'linear-hf.partial', 'llm-hf', 'llm-hf.partial'].filter((name) => existsSync(at(name)))).toEqual(
    [],
  );
});

it('after a stop, the same call continues with the written files, to the same bytes', async () => {
  const options = { model: TINY, dtype: 'f32' as const };
  const controller = new AbortController();
  const stopped = convert({
    ...options,
    out: at('stopped'),
    signal: controller.signal,
    onProgress: ({ done, total }) => {
      if (done > 0.45 * total) controller.abort();
    },
  });
  await expect(stopped).rejects.toMatchObject({ name: 'AbortError' });
  expect(existsSync(at('stopped'))).toBe(false);
  expect(existsSync(at('stopped.partial'))).toBe(true);
  const other = convert({ ...options, dtype: 'f16', out: at('stopped') });
  await expect(other).rejects.toMatchObject({ code: 'ERR_RESUME_MISMATCH' });
  await convert({ ...options, out: at('stopped') });
  await convert({ ...options, out: at('whole') });
  expect(contents(at('stopped'))).toEqual(contents(at('whole')));
  expect(existsSync(at('stopped.partial'))).toBe(false);
});

it.each([
  [undefined, 4],
  [1, 16],
])('scales whose output is the one of index %p stay so in the other layout', async (index, tokens) => {
  const model = at(`scales-${index}`);
  cpSync(join(FIXTURES, 'nvila', 'scales'), model, { recursive: true });
  changeJson(join(model, 'config.json'), { s2_resize_output_to_scale_idx: index });
  const out = at(`scales-${index}-hf`);
  await convert({ model, out, layout: 'hf' });
  const of = (folder: string) =>
    tokensOf(planOf(folder).layout({ kind: 'image', width: 40, height: 40, frames: 1 }, { media: 1 }));
  expect([of(model), of(out)]).toEqual([tokens, tokens]);
});
