// VILA's conversation modes: the texts that its `Conversation.get_prompt` gives, with and without a system text, and the choice of a mode.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isNamedTemplate, NAMED_TEMPLATES, type TemplateName } from '../../src/text/named_templates';
import { chatTemplate } from '../../src/text/template';
import { loadChatTemplate, type TemplateOptions } from '../../src/text/template_file';
import { withFolder } from './vocabularies';

const TURNS = [
  { role: 'user', content: 'Q1' },
  { role: 'assistant', content: 'A1' },
  { role: 'user', content: 'Q2' },
];
const VICUNA =
  'A chat between a curious user and an artificial intelligence assistant. ' +
  "The assistant gives helpful, detailed, and polite answers to the user's questions.";
const LLAMA_3 =
  'You are a helpful language and vision assistant. You are able to understand the visual content that the user provides, ' +
  'and assist the user with a variety of tasks using natural language.';
const header = (role: string): string => `<|start_header_id|>${role}<|end_header_id|>\n\n`;

const prompts: readonly [TemplateName, (system?: string) => string][] = [
  ['vicuna_v1', (system = VICUNA) => `${system} USER: Q1 ASSISTANT: A1</s>USER: Q2 ASSISTANT:`],
  [
    'llama_3',
    (system = LLAMA_3) =>
      `<|begin_of_text|>${header('system')}${system}<|eot_id|>${header('user')}Q1<|eot_id|>${header('assistant')}A1<|eot_id|>` +
      `${header('user')}Q2<|eot_id|>${header('assistant')}`,
  ],
  [
    'hermes-2',
    (system = 'Answer the questions.') =>
      `<|im_start|>system\n${system}<|im_end|><|im_start|>user\nQ1<|im_end|><|im_start|>assistant\nA1<|im_end|>` +
      '<|im_start|>user\nQ2<|im_end|><|im_start|>assistant\n',
  ],
  [
    'qwen2',
    (system = 'You are a helpful assistant') =>
      `<|im_start|>system\n${system}<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n` +
      '<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n',
  ],
  [
    'internvl2_5',
    (
      system = '你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。',
    ) =>
      `<|im_start|>system\n${system}<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n` +
      '<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n',
  ],
  ['mistral', (system) => `<s>${system === undefined ? '' : `${system}\n\n`}[INST] Q1 [/INST] A1</s>[INST] Q2 [/INST]`],
];

const make = (name: TemplateName) =>
  chatTemplate(NAMED_TEMPLATES[name], name, { bos_token: '<s>', eos_token: '</s>' }, { strips: true });

describe.each(prompts)('%s', (name, prompt) => {
  it('is the text of the original code', () => {
    expect(make(name).render(TURNS, { addGenerationPrompt: true })).toBe(prompt());
  });

  it("takes the caller's system text", () => {
    const messages = [{ role: 'system', content: 'Be brief.' }, ...TURNS];
    expect(make(name).render(messages, { addGenerationPrompt: true })).toBe(prompt('Be brief.'));
  });
});

it('plain is the text alone', () => {
  expect(make('plain').render([{ role: 'user', content: 'Q1' }], { addGenerationPrompt: true })).toBe('Q1\n');
});

describe('which template is used', () => {
  const jinja = (name: string): string => `${name} {{ messages[0]['content'] }}`;
  const file = { 'tokenizer_config.json': { chat_template: jinja('tokenizer'), bos_token: '<s>', eos_token: '</s>' } };
  const opening = (files: Record<string, unknown>, options: TemplateOptions): string =>
    withFolder(files, (folder) =>
      loadChatTemplate(folder, options)
        .render([{ role: 'user', content: 'Q1' }], { addGenerationPrompt: true })
        .slice(0, 12),
    );

  it.each<[string, Record<string, unknown>, TemplateOptions, string]>([
    ["the caller's name", file, { template: 'qwen2', named: { name: 'mistral', file: 'c' } }, '<|im_start|>'],
    ["the caller's source", file, { template: jinja('source') }, 'source Q1'],
    ["the config's name", file, { named: { name: 'mistral', file: 'c' } }, '<s>[INST] Q1'],
    ["the folder's own", file, { path: '/models/NVILA-8B' }, 'tokenizer Q1'],
    ['a mode of VILA-1.5 before the tokenizer', file, { path: '/models/Llama-3-VILA1.5-8B' }, '<|begin_of_t'],
    ['the Jinja file before a mode', { 'chat_template.jinja': jinja('file') }, { path: '/VILA1.5-3b' }, 'file Q1'],
    ['the mode that a path names where there is nothing else', {}, { path: '/models/my-llama3-vlm' }, '<|begin_of_t'],
    ['the mode of VILA1.5-13b', {}, { path: '/models/VILA1.5-13b' }, 'A chat betwe'],
    ['the mode of VILA1.5-40b', {}, { path: '/models/VILA1.5-40b' }, '<|im_start|>'],
  ])('%s', (_, files, options, start) => {
    expect(opening(files, options)).toBe(start);
  });

  it("the caller's file", () => {
    withFolder({ 'mine.txt': jinja('mine') }, (folder) => {
      const template = join(folder, 'mine.txt');
      expect(loadChatTemplate(folder, { template }).file).toBe(template);
      mkdirSync(join(folder, 'folder'));
      expect(() => loadChatTemplate(folder, { template: join(folder, 'folder') })).toThrow(
        expect.objectContaining({ code: 'ERR_TEMPLATE_INVALID' }),
      );
      writeFileSync(template, 'x'.repeat(2 ** 21));
      expect(() => loadChatTemplate(folder, { template })).toThrow(
        expect.objectContaining({ code: 'ERR_FILE_TOO_LARGE' }),
      );
    });
  });

  it('an unknown name is refused with those that are known', () => {
    const missing = (options: TemplateOptions, message: RegExp): void => {
      expect(() => opening({}, options)).toThrow(
        expect.objectContaining({ code: 'ERR_TEMPLATE_MISSING', message: expect.stringMatching(message) }),
      );
    };
    missing({ template: 'vicuna_v2' }, /one of vicuna_v1, .*mistral for template, received "vicuna_v2"/);
    missing({ template: '' }, /received ""/);
    missing({ named: { name: 'phi3', file: 'm/config.json' } }, /m\/config\.json: .*"chat_template".*received "phi3"/);
    missing({}, /load\(path, \{ template \}\), or --template .*VILA1\.5-3b and 13b: vicuna_v1/);
  });

  it('names are own names only', () => {
    expect(['constructor', '__proto__', 'vicuna_v1'].map(isNamedTemplate)).toEqual([false, false, true]);
  });
});
