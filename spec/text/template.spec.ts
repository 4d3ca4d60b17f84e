// Chat templates: the packaged one, the shapes of other families, and templates that cannot be continued.
import { join } from 'node:path';
import { chatTemplate, turnPieces, turnText } from '../../src/text/template';
import { loadChatTemplate } from '../../src/text/template_file';
import { withFolder } from './vocabularies';

const TINY = join(__dirname, '../../../assets/tiny-nvila/llm');
const tiny = loadChatTemplate(TINY);

const CHATML_WITH_DEFAULT_SYSTEM =
  "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}" +
  "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}" +
  "{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>" +
  "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}" +
  '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}';

const VICUNA =
  "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}" +
  "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}" +
  "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}{% endfor %}" +
  "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";

const GEMMA =
  '{{ bos_token }}' +
  "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}" +
  "<start_of_turn>{{ role }}\n{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}" +
  '{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}';

describe('the packaged template', () => {
  it('renders a conversation', () => {
    const messages = [
      { role: 'user', content: 'What color is the A?' },
      { role: 'assistant', content: 'red' },
      { role: 'user', content: 'Where is it?' },
    ];
    expect(tiny.render(messages, { addGenerationPrompt: true })).toBe(
      '<|im_start|>user\nWhat color is the A?<|im_end|>\n<|im_start|>assistant\nred<|im_end|>\n' +
        '<|im_start|>user\nWhere is it?<|im_end|>\n<|im_start|>assistant\n',
    );
  });

  it('is cut into pieces', () => {
    const around = { before: '<|im_start|>user\n', after: '<|im_end|>\n<|im_start|>assistant\n' };
    expect(turnPieces(tiny)).toEqual({ first: around, next: around, endOfAnswer: '<|im_end|>\n', trims: false });
    expect(tiny.takes).toBe('text');
  });

  it('gives a turn that continues the one before', () => {
    const first = turnText(tiny, 'What is at b4?', { first: true });
    const later = turnText(tiny, 'Why?', { first: false });
    expect(later).toBe('<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n');
    const messages = [
      { role: 'user', content: 'What is at b4?' },
      { role: 'assistant', content: 'red F' },
      { role: 'user', content: 'Why?' },
    ];
    expect(`${first}red F${later}`).toBe(tiny.render(messages, { addGenerationPrompt: true }));
  });
});

describe('other shapes of template', () => {
  it('puts a default or a given system text into the first turn only', () => {
    const template = chatTemplate(CHATML_WITH_DEFAULT_SYSTEM, 'qwen');
    const chatml = '<|im_start|>user\n';
    const pieces = turnPieces(template);
    expect(pieces.first.before).toBe(`<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n${chatml}`);
    expect([pieces.endOfAnswer, pieces.next.before]).toEqual(['<|im_end|>\n', chatml]);
    expect(turnPieces(template, { system: 'Be brief.' }).first.before).toBe(
      `<|im_start|>system\nBe brief.<|im_end|>\n${chatml}`,
    );
  });

  it('renders image parts where the template takes them', () => {
    const template = chatTemplate(CHATML_WITH_DEFAULT_SYSTEM, 'qwen');
    const content = [{ type: 'image' }, { type: 'text', text: 'What is this?' }];
    expect(turnText(template, content, { first: false })).toBe(
      '<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What is this?<|im_end|>\n<|im_start|>assistant\n',
    );
  });

  it('finds that LLaVA takes parts, and bears the space that the model itself generates', () => {
    const template = chatTemplate(VICUNA, 'llava');
    expect(template.takes).toBe('parts');
    expect(turnText(template, [{ type: 'image' }, { type: 'text', text: 'Hi' }], { first: true })).toBe(
      'USER: <image>\nHi ASSISTANT:',
    );
    expect(turnPieces(template)).toEqual({
      first: { before: 'USER: ', after: ' ASSISTANT:' },
      next: { before: 'USER: ', after: ' ASSISTANT:' },
      endOfAnswer: ' ',
      trims: false,
    });
  });

  it('tells that a template trims, and fills in bos_token', () => {
    const template = chatTemplate(GEMMA, 'gemma', { bos_token: '<bos>' });
    const pieces = turnPieces(template);
    expect(pieces.first.before).toBe('<bos><start_of_turn>user\n');
    expect([pieces.trims, pieces.endOfAnswer]).toEqual([true, '<end_of_turn>\n']);
  });

  it.each([
    ['rewrites answers', "{% for m in messages %}[{{ m['content'] }}{{ ' end' if loop.last }}]{% endfor %}"],
    ['drops old turns', "{{ messages[-1]['content'] }}"],
    ['counts turns', "{% for m in messages %}{{ loop.index }}:{{ m['content'] }};{% endfor %}"],
    [
      'adds an empty thought to the header only',
      "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<assistant><think></think>{% endif %}",
    ],
  ])('refuses a template that %s', (_, source) => {
    const template = chatTemplate(source, 'folder/odd.jinja');
    expect(() => turnPieces(template)).toThrow(
      expect.objectContaining({ code: 'ERR_TEMPLATE_UNSTABLE', message: expect.stringContaining('folder/odd.jinja') }),
    );
  });

  it.each([
    ['not Jinja', '{% for %}', /folder\/bad\.jinja: the chat template failed/],
    ['raising', "{{ raise_exception('Only tools, please') }}", /failed: Only tools, please/],
    ['without the words', 'hello', /expected the user's words/],
  ])('refuses a template that is %s', (_, source, message) => {
    expect(() => chatTemplate(source, 'folder/bad.jinja')).toThrow(
      expect.objectContaining({ code: 'ERR_TEMPLATE_INVALID', message: expect.stringMatching(message) }),
    );
  });
});

describe('loadChatTemplate', () => {
  const say = (name: string): string => `${name} {{ messages[0]['content'] }}`;
  const opening = (files: Record<string, unknown>): string =>
    withFolder(files, (folder) => turnText(loadChatTemplate(folder), 'x', { first: true }));

  it('looks in one place after the other', () => {
    const files = {
      'chat_template.jinja': say('jinja'),
      'chat_template.json': { chat_template: say('json') },
      'tokenizer_config.json': { chat_template: say('tokenizer') },
      'processor_config.json': { chat_template: say('processor') },
    };
    const names = Object.keys(files) as (keyof typeof files)[];
    const found = names.map((_, i) => opening(Object.fromEntries(names.slice(i).map((name) => [name, files[name]]))));
    expect(found).toEqual(['jinja x', 'json x', 'tokenizer x', 'processor x']);
  });

  it('takes the default of several, and special tokens in either form', () => {
    const named = [
      { name: 'tool_use', template: say('tool') },
      { name: 'default', template: `{{ bos_token }}{{ eos_token }}${say('')}` },
    ];
    const config = { chat_template: named, bos_token: { content: '<s>' }, eos_token: '</s>', pad_token: null };
    expect(opening({ 'tokenizer_config.json': config })).toBe('<s></s> x');
    expect(opening({ 'tokenizer_config.json': { chat_template: [{ name: 'only', template: say('only') }] } })).toBe(
      'only x',
    );
    const map = { 'special_tokens_map.json': { bos_token: '<b>' }, 'chat_template.jinja': `{{ bos_token }}${say('')}` };
    expect(opening(map)).toBe('<b> x');
  });

  it('says where it looked, and which file is wrong', () => {
    expect(() => opening({ 'tokenizer_config.json': {} })).toThrow(
      expect.objectContaining({
        code: 'ERR_TEMPLATE_MISSING',
        message: expect.stringMatching(
          /chat_template\.jinja.*chat_template\.json, tokenizer_config\.json, processor_config\.json/,
        ),
      }),
    );
    expect(() => opening({ 'chat_template.json': { chat_template: [{ name: 'a' }, { name: 'b' }] } })).toThrow(
      expect.objectContaining({
        code: 'ERR_CONFIG_INVALID',
        message: expect.stringMatching(/chat_template\.json.*named "default"/),
      }),
    );
  });
});
