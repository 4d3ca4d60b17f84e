// Real tokenizers and their chat templates against Python's: ids and decoded texts of 2,000 strings each, and rendered conversations.
// Fixture: scripts/fixtures/real_tokenizers.py. The tokenizers are no dependencies: the checks of those that are not in the cache, or under
// SPARSEVILA_TOKENIZERS, are skipped. scripts/tokenizers.sh fetches them, as CI does.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readJson } from '../../src/json';
import { cacheFolder } from '../../src/runtime/paths';
import { loadChatTemplate } from '../../src/text/template_file';
import { loadTokenizer, textStream } from '../../src/text/tokenizer';
import { FIXTURES } from '../support/assets';

interface Facts {
  readonly group: number;
  readonly strings: number;
  readonly pieces: readonly string[];
  readonly conversations: readonly (readonly (readonly [role: string, content: string])[])[];
  readonly tokenizers: Readonly<Record<string, Known>>;
}

interface Known {
  readonly package: string;
  readonly version: string;
  readonly sha256: string;
  /** Of every group, eight digits of the hash of its ids and eight of that of its texts. */
  readonly groups: string;
  /** Of every conversation, eight digits; empty if the tokenizer has no template. */
  readonly prompts: string;
}

const facts = readJson(join(FIXTURES, 'real_tokenizers.json')) as unknown as Facts;
const folderOf = (name: string): string =>
  join(process.env.SPARSEVILA_TOKENIZERS ?? join(cacheFolder(), 'tokenizers'), 'node_modules', name, 'models');

/** The strings of the fixture's formula. */
function strings(): string[] {
  let state = 20261128;
  const below = (n: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % n;
  };
  const piece = (): string => facts.pieces[below(facts.pieces.length)] ?? '';
  return Array.from({ length: facts.strings }, () => Array.from({ length: 1 + below(12) }, piece).join(''));
}

/** The hash of a value's JSON as Python writes it, with every character from U+007F on escaped. */
function digest(value: unknown): string {
  const escaped = (unit: string): string => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
  const json = JSON.stringify(value).replace(/[\u007f-\uffff]/g, escaped);
  return createHash('sha256').update(json).digest('hex').slice(0, 8);
}

describe.each(Object.values(facts.tokenizers))('$package', (known) => {
  const folder = folderOf(known.package);
  const ifInstalled = existsSync(folder) ? it : it.skip;

  ifInstalled('encodes, decodes and streams 2,000 strings as Python does', () => {
    const file = join(folder, 'tokenizer.json');
    expect(createHash('sha256').update(readFileSync(file)).digest('hex')).toBe(known.sha256);
    const tokenizer = loadTokenizer(folder);
    const all = strings();
    const wrong: string[] = [];
    for (let group = 0; group < facts.strings / facts.group; group++) {
      const ids = all.slice(group * facts.group, (group + 1) * facts.group).map((text) => tokenizer.encode(text));
      const streamed = ids.map((one) =>
        [false, true].map((skipSpecial) => {
          const stream = textStream(tokenizer, { skipSpecial });
          return one.map((id) => stream.push(id)).join('') + stream.flush();
        }),
      );
      const want = known.groups.slice(16 * group, 16 * (group + 1));
      if (digest(ids) !== want.slice(0, 8)) wrong.push(`ids of group ${group}`);
      if (digest(streamed) !== want.slice(8)) wrong.push(`texts of group ${group}`);
      const whole = ids.map((one) => [false, true].map((skipSpecial) => tokenizer.decode(one, { skipSpecial })));
      expect(whole).toEqual(streamed);
    }
    expect(wrong).toEqual([]);
  });

  (known.prompts === '' ? it.skip : ifInstalled)('renders conversations as transformers does', () => {
    const template = loadChatTemplate(folder);
    const render = (turns: Facts['conversations'][number]): string => {
      const messages = turns.map(([role, text]) => ({
        role,
        content: template.takes === 'text' ? text : [{ type: 'text', text }],
      }));
      return template.render(messages, { addGenerationPrompt: true });
    };
    expect(facts.conversations.map((turns) => digest(render(turns))).join('')).toBe(known.prompts);
  });
});
