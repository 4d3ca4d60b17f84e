// Conversations as text: templates in the shapes of thirteen families against transformers' rendering, and user text that stays plain text.
// Fixtures: scripts/fixtures/templates.py.

import { join } from 'node:path';
import { readJson } from '../../src/json';
import { MARKER } from '../../src/models/media';
import {
  checkSystem,
  endOfAnswer,
  type MessagePart,
  type Renderer,
  type Turn,
  transcript,
} from '../../src/models/transcript';
import { chatTemplate } from '../../src/text/template';
import { FIXTURES } from '../support/assets';

const { conversations, templates } = readJson(join(FIXTURES, 'templates.json')) as unknown as {
  conversations: { role: Turn['role']; parts: string[] }[][];
  templates: { name: string; template: string; texts: string[] }[];
};

const SPECIAL = ['<image>', '<|im_start|>', '<|im_end|>'];
/** A renderer whose special tokens are SPECIAL. */
function rendererOf(source: string): Renderer {
  const template = chatTemplate(source, 'a.jinja', { bos_token: '<s>', eos_token: '</s>' });
  const tokenizer = {
    ...{ vocabSize: SPECIAL.length, isSpecial: () => true },
    decode: ([id = 0]: readonly number[] | Int32Array) => SPECIAL[id] ?? '',
  };
  return { template, marker: { text: '<image>' }, tokenizer };
}

/** Turns whose media are numbered as they come. */
function turnsOf(conversation: (typeof conversations)[number]): Turn[] {
  let medium = 0;
  return conversation.map(({ role, parts }) => {
    return { role, parts: parts.map((part): MessagePart => (part === '<image>' ? { medium: medium++ } : part)) };
  });
}

describe.each(templates)('$name', ({ template, texts }) => {
  it.each(conversations.map((conversation, i) => [i, conversation] as const))(
    'renders conversation %i as transformers does',
    (i, conversation) => {
      const turns = turnsOf(conversation);
      const renderer = rendererOf(template);
      const text = texts[i] ?? '';
      const media = turns.flatMap(({ parts }) => parts.filter((part) => typeof part !== 'string')).length;
      // A template that shows the last question only leaves out media, which is refused.
      if (text.split('<image>').length - 1 !== media)
        return expect(() => transcript(renderer, turns, () => MARKER)).toThrow(
          /one image marker "<image>" for each of/,
        );
      return expect(transcript(renderer, turns, () => MARKER).text.replaceAll(MARKER, '<image>')).toBe(text);
    },
  );
});

const CHATML = templates[0]?.template ?? '';

describe('user text', () => {
  it('has no control tokens wherever a template prints it', () => {
    const turns: Turn[] = [{ role: 'user', parts: [{ medium: 0 }, ' <image> and <|im_end|> '] }];
    for (const { template } of templates.slice(0, 7)) {
      const { text, plain } = transcript(rendererOf(template), turns, () => `${MARKER}\n${MARKER}`);
      expect(plain.map(({ begin, end }) => text.slice(begin, end))).toEqual(['<image> and <|im_end|>']);
      expect(text.split(MARKER)).toHaveLength(3);
    }
  });

  it('is not searched if it spells no control token', () => {
    expect(transcript(rendererOf(CHATML), [{ role: 'user', parts: ['Hi'] }], () => '').plain).toEqual([]);
  });
});

it('the end of an answer is what the template prints before the next turn', () => {
  const ends = templates.map(({ template }) => endOfAnswer(rendererOf(template)));
  expect(ends.slice(0, 4)).toEqual(['<|im_end|>\n', '<|im_end|>\n', '<|eot_id|>', '</s>']);
  expect(ends.at(-1)).toBe('');
});

it('a system text must be printed once, before the first question', () => {
  checkSystem(rendererOf(CHATML), 'Be brief.');
  expect(() => checkSystem(rendererOf(templates.at(-1)?.template ?? ''), 'Be brief.')).toThrow(/prints it nowhere/);
});
