// A question that is far longer than a call stack is deep, in a process with a small stack.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { changeJson, changeTensors, withCopy } from '../support/checkpoint';

const FIXTURE = join(__dirname, '../../../spec/fixtures/vila/linear');
const WORDS = 36_000;
/** The time limit on a busy machine; an idle machine needs some seconds. */
const PATIENCE_MS = 240_000;

const SCRIPT = `(async () => {
  const model = await require(process.argv[1]).load(process.argv[2]);
  const answer = model.session({ contextLength: 65536 }).ask('the '.repeat(${WORDS}) + 'end?', { maxTokens: 1 });
  await answer.text();
  console.log(answer.stats.tokens.prompt);
})();`;

it(
  'of 36,000 words is answered on a stack of 256 kB',
  async () => {
    const { status, stdout, stderr } = await withCopy(FIXTURE, async (folder) => {
      // One layer is enough: the length of the lists counts.
      changeJson(join(folder, 'llm/config.json'), { num_hidden_layers: 1, max_position_embeddings: 262_144 });
      changeTensors(join(folder, 'llm/model.safetensors'), (tensors) => {
        for (const name of tensors.keys()) if (/^model\.layers\.[1-9]/.test(name)) tensors.delete(name);
      });
      const args = ['--stack-size=256', '-e', SCRIPT, require.resolve('../../src'), folder];
      return spawnSync(process.execPath, args, { encoding: 'utf8', timeout: PATIENCE_MS });
    });
    expect([status, stderr]).toEqual([0, '']);
    expect(Number(stdout)).toBeGreaterThan(WORDS);
  },
  PATIENCE_MS,
);
