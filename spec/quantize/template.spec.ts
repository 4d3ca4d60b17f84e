// A chat template that only the name of a folder implies, as for VILA-1.5, is stored in copies, whose names do not imply it.
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { convert } from '../../src/convert/convert';
import { readJson } from '../../src/json';
import { loadRowModel } from '../../src/models/load';
import { quantize } from '../../src/quantize/quantize';
import { TINY } from '../support/assets';
import { changeJson } from '../support/checkpoint';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-template-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

it.each<[string, (model: string, out: string) => Promise<unknown>]>([
  ['convert', (model, out) => convert({ model, out, dtype: 'f16' })],
  ['convert to -hf', (model, out) => convert({ model, out, layout: 'hf' })],
  ['quantize', (model, out) => quantize({ model, out, method: 'rtn' })],
])('%s', async (name, make) => {
  const model = resolve(folder, name, 'VILA1.5-3b');
  const out = resolve(folder, name, 'out');
  cpSync(TINY, model, { recursive: true });
  changeJson(join(model, 'llm/tokenizer_config.json'), { chat_template: undefined });
  const original = await loadRowModel(model);
  await make(model, out);
  expect(readJson(join(out, 'config.json')).chat_template).toBe('vicuna_v1');
  const copy = await loadRowModel(out);
  const prompt = (template: typeof copy.template): string =>
    template.render([{ role: 'user', content: 'x' }], { addGenerationPrompt: true });
  expect(prompt(copy.template)).toBe(prompt(original.template));
  expect(prompt(copy.template)).toContain('USER: x ASSISTANT:');
  original.dispose();
  copy.dispose();
  const plain = resolve(folder, name, 'plain');
  await make(TINY, plain);
  expect(readJson(join(plain, 'config.json')).chat_template).toBeUndefined();
});
