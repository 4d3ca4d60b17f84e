// A conversation that was saved continues as the original one, and no file can do harm.

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fastV, load, type Mark, type Model, type Session, type SessionOptions, snapKv, sparseVila } from '../../src';
import { readSafetensorsHeader } from '../../src/checkpoint/safetensors';
import { errorOf } from '../image/fixtures';
import { FIXTURES, scene, TINY, vilaCase } from '../support/assets';
import { countTensors, withoutLeak } from '../support/leaks';

const [FIRST, SECOND] = ['What is at b4?', 'How many shapes are there?'];

let model: Model;
let folder: string;
beforeAll(async () => {
  model = await load(TINY);
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-saved-'));
});
afterAll(() => {
  model.dispose();
  rmSync(folder, { recursive: true });
});

const fileOf = (name: string): string => join(folder, `${name}.safetensors`);

describe('a saved conversation', () => {
  it.each<[string, SessionOptions]>([
    ['dense', {}],
    ['dense, f32', { kv: 'f32', system: 'Answer briefly.' }],
    ['SparseVILA', { method: sparseVila() }],
    ['FastV, which drops rows between layers', { method: fastV() }],
    ['SnapKV, whose retrieval is permanent', { method: snapKv({ decodeSparsity: 0.5 }) }],
  ])('continues without a prefill: %s', async (name, options) => {
    using chat = model.session(options);
    await chat.ask(FIRST, { images: [scene(0)] });
    await chat.ask(SECOND, { images: [scene(1)], history: 'forget' });
    await chat.ask(SECOND, { maxTokens: 2 });
    const file = fileOf(name);
    await chat.save(file);
    const { kv: _, ...others } = options;
    using other = await load(TINY);
    using restored = await other.restore(file, others);
    expect(restored.length).toBe(chat.length);
    for (const ask of [{}, { images: [scene(2)] }, { temperature: 1, seed: 3, repetitionPenalty: 1.2 }]) {
      const [expected, answer] = [chat.ask(FIRST, ask), restored.ask(FIRST, ask)];
      expect(await answer.text()).toBe(await expected.text());
      expect(answer.stats?.tokens).toEqual(expected.stats?.tokens);
      expect(answer.stats?.retrieved).toEqual(expected.stats?.retrieved);
    }
    // Saved again, the file is the same, bit for bit.
    using again = await other.restore(file, others);
    await again.save(`${file}.2`);
    expect(readFileSync(`${file}.2`).equals(readFileSync(file))).toBe(true);
  });

  it('of an empty session is an empty session', async () => {
    using chat = model.session();
    await chat.save(fileOf('empty'));
    using restored = await model.restore(fileOf('empty'));
    expect(restored.length).toBe(0);
    expect(await restored.ask(FIRST, { images: [scene(0)] }).text()).toBe(
      await chat.ask(FIRST, { images: [scene(0)] }).text(),
    );
  });

  it('is of one model and one method', async () => {
    using chat = model.session();
    await chat.ask(FIRST, { maxTokens: 2 });
    await chat.save(fileOf('own'));
    expect((await errorOf(() => model.restore(fileOf('own'), { method: sparseVila() }))).code).toBe('ERR_SAVED_MODEL');
    using other = await load(vilaCase('linear'));
    expect((await errorOf(() => other.restore(fileOf('own')))).code).toBe('ERR_SAVED_MODEL');
    expect((await errorOf(() => model.restore(fileOf('own'), { contextLength: 8 }))).code).toBe('ERR_CONTEXT_OVERFLOW');
    expect((await errorOf(() => model.restore(fileOf('none')))).code).toBe('ERR_FILE_MISSING');
  });

  it('keeps an older file if it cannot be written, and leaves no other', async () => {
    using chat = model.session();
    await chat.ask(FIRST, { maxTokens: 2 });
    const file = fileOf('older');
    await chat.save(file);
    const before = [readFileSync(file), readdirSync(folder)] as const;
    const reason = new Error('enough');
    await expect(chat.save(file, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect((await errorOf(() => chat.save(join(folder, 'no', 'such.safetensors')))).code).toBe('ERR_OUTPUT_UNWRITABLE');
    expect(readFileSync(file).equals(before[0])).toBe(true);
    expect(readdirSync(folder)).toEqual(before[1]);
  });
});

describe('of a model with layers that keep states', () => {
  const QWEN = join(FIXTURES, 'qwen_vl', 'qwen3.5');
  const template = readFileSync(join(QWEN, 'chat_template.jinja'), 'utf8');
  const picture = (i: number): string => join(QWEN, `image${i}.png`);
  const ask = (chat: Session, question: string, image?: number) =>
    chat.ask(question, {
      ...{ images: image === undefined ? [] : [picture(image)], maxTokens: 5, temperature: 0, logprobs: 1 },
      logitBias: { 2: -100 },
    });
  const QUESTIONS = ['And how does this one differ?', 'Which was larger?'];

  it.each([
    ['a template that rewrites answers', template],
    ['a template that continues its text', template.replace('<think>\n\n</think>\n\n', '')],
  ])('it continues with the same bits, and its marks are rewound to: %s', async (_, chatTemplate) => {
    using qwen = await load(QWEN, { template: chatTemplate });
    for (const method of [undefined, sparseVila(), fastV()]) {
      const options = method === undefined ? {} : { method };
      using chat = qwen.session(options);
      await ask(chat, 'What is in the picture?', 0);
      await ask(chat, 'Which was larger?', 1);
      const file = fileOf('states');
      await chat.save(file);
      using restored = await qwen.restore(file, options);
      using again = await qwen.restore(file, options);
      await again.save(`${file}.2`);
      expect(readFileSync(`${file}.2`).equals(readFileSync(file))).toBe(true);
      const marks = [chat, restored].map((one) => one.mark());
      // A second round from the mark has the bits of the first one.
      for (const image of [undefined, 1])
        for (const question of QUESTIONS) {
          const [expected, answer] = [ask(chat, question, image), ask(restored, question, image)];
          expect(await answer.text()).toBe(await expected.text());
          expect(answer.stats?.logprobs).toEqual(expected.stats?.logprobs);
          for (const [i, one] of [chat, restored].entries()) one.rewind(marks[i] as Mark);
        }
    }
  });

  it('a file whose states are changed is refused', async () => {
    using qwen = await load(QWEN);
    using chat = qwen.session();
    await ask(chat, 'What is in the picture?', 0);
    const file = fileOf('states');
    await chat.save(file);
    const entries = readSafetensorsHeader(file) as unknown as { name: string; offset: number; bytes: number }[];
    const bytes = readFileSync(file);
    const changed = async (change: (copy: Buffer) => void): Promise<string | undefined> => {
      const copy = Buffer.from(bytes);
      change(copy);
      writeFileSync(fileOf('changed'), copy);
      const before = countTensors();
      const { code } = await errorOf(() => qwen.restore(fileOf('changed')));
      expect(countTensors()).toEqual(before);
      return code;
    };
    const states = entries.filter(({ name }) => /^(states|points)\./.test(name));
    expect(new Set(states.map(({ name }) => name.split('.')[0]))).toEqual(new Set(['states', 'points']));
    for (const { name, offset } of states) {
      expect(await changed((copy) => copy.writeFloatLE(Number.NaN, offset + 8))).toBe('ERR_SAVED_INVALID');
      const other = name.replace(/^./, 'x');
      expect(await changed((copy) => copy.write(`"${other}"`, copy.indexOf(`"${name}"`)))).toBe('ERR_SAVED_INVALID');
    }
    for (const [from, to] of [
      ['"version":2', '"version":3'],
      [/"points":\[\d/.exec(bytes.toString('latin1'))?.[0] ?? '', '"points":[-'],
    ] as const)
      expect(await changed((copy) => copy.write(to, copy.indexOf(from)))).toBe('ERR_SAVED_INVALID');
  });
});

describe('a hostile file', () => {
  /** Writes the file with another state, padded so that no offset moves. */
  async function changed(change: (json: string) => string): Promise<string> {
    const bytes = readFileSync(fileOf('hostile'));
    const { offset, bytes: length } = readSafetensorsHeader(fileOf('hostile')).find(
      ({ name }) => name === 'conversation',
    ) as never as {
      offset: number;
      bytes: number;
    };
    const json = change(bytes.toString('utf8', offset, offset + length).trimEnd());
    if (json.length > length) throw new Error('The changed state is longer.');
    bytes.write(json.padEnd(length), offset);
    const file = fileOf('changed');
    writeFileSync(file, bytes);
    return file;
  }

  beforeAll(async () => {
    using chat = model.session();
    await chat.ask(FIRST, { images: [scene(0)], maxTokens: 4 });
    await chat.save(fileOf('hostile'));
  });

  it.each<[string, (json: string) => string]>([
    ['another version', (json) => json.replace('"version":1', '"version":3')],
    ['no JSON', (json) => json.slice(0, -1)],
    ['a list', () => '[]'],
    ['a length beyond the rows', (json) => json.replace(/"length":\d/, '"length":9')],
    ['negative rows', (json) => json.replace(/"visual":\[\d/, '"visual":[-')],
    ['an id beyond the vocabulary', (json) => json.replace(/"ids":\[\d+,\d+,\d+/, '"ids":[99999')],
    ['a medium that is not there', (json) => json.replace(/"medium":0/, '"medium":7')],
    ['a huge picture', (json) => json.replace(/"width":\d+,"height":\d+/, '"width":9e9')],
    ['a role that is none', (json) => json.replace('"role":"user"', '"role":"root"')],
    ['another cache type', (json) => json.replace('"kv":"bf16"', '"kv":"f32"')],
    ['positions without rows', (json) => json.replace(/"positions":\[\[\]/, '"positions":[[')],
    ['a state that is null', (json) => `${json.slice(0, json.indexOf('"state":'))}"state":null}`],
  ])('with %s is refused', async (_, change) => {
    const file = await changed(change);
    await withoutLeak(async () => {
      expect((await errorOf(() => model.restore(file))).code).toBe('ERR_SAVED_INVALID');
    });
  });

  it('with any byte of its beginning changed, or cut anywhere, is refused or harmless', async () => {
    const bytes = readFileSync(fileOf('hostile'));
    const file = fileOf('cut');
    for (let i = 0; i < 60; i++) {
      const at = Math.floor((bytes.length * i) / 60);
      const damaged = i % 2 === 0 ? bytes.subarray(0, at) : Buffer.from(bytes);
      if (i % 2 === 1) damaged[(i * 37) % 4000] = 255 - (bytes[(i * 37) % 4000] ?? 0);
      writeFileSync(file, damaged);
      await withoutLeak(async () => {
        try {
          (await model.restore(file)).dispose();
        } catch (error) {
          expect((error as { code?: string }).code).toMatch(/^ERR_(SAVED|FILE)_/);
        }
      });
    }
  });
});
