// Chat templates: the packaged one, the shapes of other families, and the search for a checkpoint's template.
import { join } from 'node:path';
import { chatTemplate } from '../../src/text/template';
import { loadChatTemplate } from '../../src/text/template_file';
import { withFolder } from './vocabularies';

const TINY = join(__dirname, '../../../assets/tiny-nvila/llm');
const tiny = loadChatTemplate(TINY);

const VICUNA =
  "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}" +
  "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}" +
  "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}{% endfor %}" +
  "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";

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

  it('takes text', () => {
    expect(tiny.takes).toBe('text');
  });
});

describe('other shapes of template', () => {
  it('finds that LLaVA takes parts', () => {
    expect(chatTemplate(VICUNA, 'llava').takes).toBe('parts');
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
    withFolder(files, (folder) =>
      loadChatTemplate(folder).render([{ role: 'user', content: 'x' }], { addGenerationPrompt: true }),
    );

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
