// `--template`: follows the advice of the error about a missing chat template on the command line.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readJson } from '../../src/json';
import { TINY } from '../support/assets';
import { changeJson, withCopy } from '../support/checkpoint';
import { cli, picture } from './run';

const ASK = ['--image', picture(20), '--question', 'Where is the yellow 2?'];

it('the error for a folder without a chat template names the option, and the option works', async () => {
  await withCopy(TINY, async (copy) => {
    const config = join(copy, 'llm/tokenizer_config.json');
    const { chat_template: source } = readJson(config);
    changeJson(config, { chat_template: undefined });
    const without = await cli(['ask', '--model', copy, ...ASK]);
    expect([without.code, without.stderr]).toEqual([1, expect.stringMatching(/ERR_TEMPLATE_MISSING: .*--template/s)]);
    const file = join(copy, 'mine.jinja');
    writeFileSync(file, String(source));
    const given = await cli(['ask', '--model', copy, '--template', file, ...ASK]);
    expect([given.code, given.stdout.trim()]).toEqual([0, 'd5']);
    const named = await cli(['ask', '--model', copy, '--template', 'vicuna_v1', '--max-tokens', '2', '--json', ...ASK]);
    expect(named.code).toBe(0);
    const unknown = await cli(['ask', '--model', copy, '--template', 'vicuna_v9', ...ASK]);
    expect(unknown.stderr).toMatch(/one of vicuna_v1, .* for template, received "vicuna_v9"/);
  });
});
