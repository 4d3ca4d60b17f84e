// `inspect` by name: says of a model on the Hub what it says of its folder, without its weights.

import { statSync } from 'node:fs';
import { inspect } from '../../src';
import { snapshot } from '../../src/hub/snapshot';
import { NEEDS } from '../../src/models/by_name';
import { TINY } from '../support/assets';
import { filesOfFolder, type Hub, startHub } from '../support/hub';
import { failure, isWeights, NAME, type Scratch, scratchHub, weights } from '../support/hub_model';

let scratch: Scratch;
let hub: Hub;
let before: NodeJS.ProcessEnv;
beforeEach(async () => {
  scratch = await scratchHub();
  ({ hub } = scratch);
  before = { ...process.env };
  Object.assign(process.env, { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: scratch.cache, HF_HUB_OFFLINE: '0' });
});
afterEach(async () => {
  for (const name of ['HF_ENDPOINT', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE']) delete process.env[name];
  Object.assign(process.env, before);
  await scratch.remove();
});

test('equals that of the folder; headers alone are asked for, and the cache stays as it was', async () => {
  const { folder: _, ...expected } = await inspect(TINY);
  const { folder, ...found } = await inspect(NAME);
  expect(found).toEqual(expected);
  expect(folder).toBe(NAME);
  expect(hub.requests.filter(isWeights).map(({ range }) => range)).toEqual(['bytes=0-262143']);
  expect(() => statSync(scratch.cache)).toThrow('ENOENT');
});

test('a server without ranges is not listened to for longer than the header', async () => {
  hub.misbehave((seen) => (isWeights(seen) ? { noRanges: true } : undefined));
  expect((await inspect(NAME)).problems).toEqual([]);
});

test('a header that is longer than the first piece is fetched whole', async () => {
  const length = Number(weights.readBigUInt64LE());
  const long = Buffer.alloc(8 + 300_000 + weights.length - 8 - length, ' ');
  long.writeBigUInt64LE(300_000n);
  weights.copy(long, 8, 8, 8 + length);
  weights.copy(long, 300_008, 8 + length);
  const other = await startHub(NAME, { ...filesOfFolder(TINY), 'llm/model.safetensors': long });
  process.env.HF_ENDPOINT = other.endpoint;
  expect((await inspect(NAME)).problems).toEqual([]);
  expect(other.requests.flatMap(({ range }) => range ?? [])).toContain('bytes=0-300007');
  await other.close();
});

test('one that is in the cache is inspected there', async () => {
  const { folder } = await snapshot({ name: NAME }, { needs: NEEDS, settings: hub.settings(scratch.cache) });
  hub.forget();
  expect((await inspect(NAME)).folder).toBe(folder);
  expect(hub.requests).toEqual([]);
});

test('problems and refusals name the model', async () => {
  const damaged = Buffer.from(weights);
  damaged.write('x', 8);
  const other = await startHub(NAME, { ...filesOfFolder(TINY), 'llm/model.safetensors': damaged });
  process.env.HF_ENDPOINT = other.endpoint;
  const { problems } = await inspect(NAME);
  expect(problems[0]).toMatchObject({ code: 'ERR_CHECKPOINT_INVALID' });
  expect(problems[0]?.message.startsWith(`${NAME}/llm/model.safetensors: `)).toBe(true);
  await other.close();
  const unknown = await startHub(NAME, filesOfFolder(TINY, { 'config.json': '{"model_type":"gpt_new"}' }));
  process.env.HF_ENDPOINT = unknown.endpoint;
  await expect(inspect(NAME)).rejects.toEqual(failure('ERR_MODEL_TYPE', /^lab\/tiny-nvila\/config\.json: /));
  await unknown.close();
  process.env.HF_HUB_OFFLINE = '1';
  await expect(inspect(NAME)).rejects.toEqual(failure('ERR_HUB_OFFLINE', /HF_HUB_OFFLINE/));
});
