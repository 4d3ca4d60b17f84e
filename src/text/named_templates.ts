// Conversation modes of VILA and InternVL, and named templates, as Jinja templates that print the same text. A system message of the caller replaces the
// mode's own.
// Source: NVlabs/VILA `llava/conversation.py` (texts, separators, modes by path) and the templates that `chat_template` of a config names.

const VICUNA_SYSTEM =
  'A chat between a curious user and an artificial intelligence assistant. ' +
  "The assistant gives helpful, detailed, and polite answers to the user's questions.";
const LLAMA_3_SYSTEM =
  'You are a helpful language and vision assistant. ' +
  'You are able to understand the visual content that the user provides, ' +
  'and assist the user with a variety of tasks using natural language.';

const INTERNVL_SYSTEM =
  '你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。';

/** `system` is set to the given or the default system text, `turns` to the messages after it. */
const opening = (system: string): string =>
  `{%- set system = ${JSON.stringify(system)} %}{%- set turns = messages %}` +
  "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set turns = messages[1:] %}{%- endif %}";

/** Each turn is a header, the text and a separator; the prompt ends with the assistant's header. */
const headed = (system: string, user: string, assistant: string, separator: string): string => {
  const [asked, answered, end] = [user, assistant, separator].map((text) => JSON.stringify(text));
  return (
    `${opening(system)}{{- system + ${end} }}{%- for turn in turns %}` +
    `{{- (${asked} if turn['role'] == 'user' else ${answered}) + turn['content'] + ${end} }}{%- endfor %}` +
    `{%- if add_generation_prompt %}{{- ${answered} }}{%- endif %}`
  );
};

const llama3 = (role: string): string => `<|start_header_id|>${role}<|end_header_id|>\n\n`;

const VICUNA_V1 =
  `${opening(VICUNA_SYSTEM)}{{- system + ' ' }}{%- for turn in turns %}` +
  "{{- 'USER: ' + turn['content'] + ' ' if turn['role'] == 'user' else 'ASSISTANT: ' + turn['content'] + '</s>' }}{%- endfor %}" +
  "{%- if add_generation_prompt %}{{- 'ASSISTANT:' }}{%- endif %}";

/** Modes whose system text has a header of its own, which also precedes a caller's system message. */
const withHeader = (header: string, template: string): string => `{{- ${JSON.stringify(header)} }}${template}`;

export const NAMED_TEMPLATES = {
  vicuna_v1: VICUNA_V1,
  v1: VICUNA_V1,
  llama_3: withHeader(
    `<|begin_of_text|>${llama3('system')}`,
    headed(LLAMA_3_SYSTEM, llama3('user'), llama3('assistant'), '<|eot_id|>'),
  ),
  'hermes-2': withHeader(
    '<|im_start|>system\n',
    headed('Answer the questions.', '<|im_start|>user\n', '<|im_start|>assistant\n', '<|im_end|>'),
  ),
  // VILA has no text that ends an answer in this mode, which is meant for single questions; a line break is used here.
  plain: "{%- for turn in messages %}{{- turn['content'] + '\\n' }}{%- endfor %}",
  qwen2:
    "{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\\nYou are a helpful assistant<|im_end|>\\n' }}{%- endif %}" +
    "{%- for turn in messages %}{{- '<|im_start|>' + turn['role'] + '\\n' + turn['content'] + '<|im_end|>\\n' }}{%- endfor %}" +
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
  internvl2_5: withHeader(
    '<|im_start|>system\n',
    headed(INTERNVL_SYSTEM, '<|im_start|>user\n', '<|im_start|>assistant\n', '<|im_end|>\n'),
  ),
  // The pictures of the whole conversation, and the last message alone: PaliGemma was trained on single questions.
  paligemma:
    "{%- for turn in messages %}{%- if turn['content'] is not string %}{%- for part in turn['content'] %}" +
    "{%- if part['type'] == 'image' %}{{- '<image>' }}{%- endif %}{%- endfor %}{%- endif %}{%- endfor %}{{- bos_token }}" +
    "{%- for turn in messages %}{%- if loop.last %}{%- if turn['content'] is string %}{{- turn['content'] }}{%- else %}" +
    "{%- for part in turn['content'] %}{%- if part['type'] == 'text' %}{{- part['text'] }}{%- endif %}{%- endfor %}{%- endif %}" +
    "{{- '\\n' }}{%- endif %}{%- endfor %}",
  mistral:
    "{{- bos_token }}{%- for turn in messages %}{%- if turn['role'] == 'system' %}{{- (turn['content'] | trim) + '\\n\\n' }}" +
    "{%- elif turn['role'] == 'user' %}{{- '[INST] ' + (turn['content'] | trim) + ' [/INST]' }}" +
    "{%- else %}{{- ' ' + (turn['content'] | trim) + eos_token }}{%- endif %}{%- endfor %}",
} as const;

export type TemplateName = keyof typeof NAMED_TEMPLATES;

/** The names of the modes, for messages. */
export const TEMPLATE_NAMES = Object.keys(NAMED_TEMPLATES).join(', ');

export const isNamedTemplate = (name: string): name is TemplateName => Object.hasOwn(NAMED_TEMPLATES, name);

/** Parts of paths by which VILA chooses a mode. Names of VILA-1.5 are `certain`: VILA prefers their mode to the tokenizer's template. */
const MODES: readonly { readonly part: string; readonly name: TemplateName; readonly certain: boolean }[] = [
  { part: 'nvila15b', name: 'vicuna_v1', certain: false },
  { part: 'vila1.5-3b', name: 'vicuna_v1', certain: true },
  { part: 'vila1.5-8b', name: 'llama_3', certain: true },
  { part: 'vila1.5-13b', name: 'vicuna_v1', certain: true },
  { part: 'vila1.5-40b', name: 'hermes-2', certain: true },
  { part: 'llama-3', name: 'llama_3', certain: false },
  { part: 'llama3', name: 'llama_3', certain: false },
];

/** The mode that VILA uses for a checkpoint at `path`; undefined if it uses the tokenizer's template. */
export const modeOfPath = (path: string): { name: TemplateName; certain: boolean } | undefined =>
  MODES.find(({ part }) => path.toLowerCase().includes(part));
