// Values of config files that no model has, or that contradict other files: refused by name, counts before anything of that size is made.

import { join } from 'node:path';
import { load } from '../../src';
import type { Json } from '../../src/json';
import { readJson } from '../../src/json';
import { planOf } from '../../src/models/load';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { changeJson, withCopy } from '../support/checkpoint';

const [CONFIG, IMAGES] = ['config.json', 'preprocessor_config.json'];
const vision = (values: Json) => ({ part: 'vision_config', values });
const text = (values: Json) => ({ part: 'text_config', values });

it.each([
  ['internvl/layer', text({ num_hidden_layers: 1e9 }), /1 to 1024 for "num_hidden_layers"/],
  ['internvl/layer', text({ hidden_size: 1e9 }), /1 to 1048576 for "hidden_size"/],
  ['internvl/layer', vision({ num_hidden_layers: 1e8 }), /1 to 1024 for "vision_config.num_hidden_layers"/],
  ['smolvlm/smolvlm', vision({ hidden_size: 2 ** 24 }), /1 to 1048576 for "vision_config.hidden_size"/],
  [
    'smolvlm/smolvlm',
    vision({ image_size: 1e6, patch_size: 1 }),
    /1024 patches of 1 pixels .* "vision_config.image_size"/,
  ],
  ['qwen_vl/qwen2.5-vl', vision({ depth: 1e8 }), /1 to 1024 for "vision_config.depth"/],
])('%s: %j', async (name, { part, values }, message) => {
  const error = await withCopy(join(FIXTURES, name), (folder) => {
    const file = join(folder, CONFIG);
    changeJson(file, { [part]: { ...(readJson(file)[part] as Json), ...values } });
    return errorOf(() => planOf(folder));
  });
  expect(error.code).toBe('ERR_CONFIG_INVALID');
  expect(error.message).toMatch(message);
});

it.each(['llava_next/mistral', 'llava_onevision/tied'])('%s: a resolution of too many tiles', async (name) => {
  const error = await withCopy(join(FIXTURES, name), (folder) => {
    const side = (readJson(join(folder, CONFIG)).vision_config as Json).image_size as number;
    for (const file of [CONFIG, IMAGES])
      changeJson(join(folder, file), { image_grid_pinpoints: [[side * 3000, side * 3000]] });
    return errorOf(() => planOf(folder));
  });
  expect(error.message).toMatch(/at most 1024 tiles .* "image_grid_pinpoints"/);
});

it('smolvlm/smolvlm: a longest edge of too many tiles', async () => {
  const error = await withCopy(join(FIXTURES, 'smolvlm/smolvlm'), (folder) => {
    const file = join(folder, CONFIG);
    const tower = readJson(file).vision_config as Json;
    changeJson(file, { vision_config: { ...tower, image_size: 12, patch_size: 2 } });
    changeJson(join(folder, IMAGES), { max_image_size: { longest_edge: 12 }, size: { longest_edge: 4096 } });
    return errorOf(() => planOf(folder));
  });
  expect(error.message).toMatch(/at most 1024 tiles of 12 pixels for "size"/);
});

it('qwen_vl/qwen2.5-vl: a least size of more pixels than a canvas may have', async () => {
  const error = await withCopy(join(FIXTURES, 'qwen_vl/qwen2.5-vl'), (folder) => {
    changeJson(join(folder, IMAGES), { size: { shortest_edge: 1e9, longest_edge: 2e9 }, min_pixels: undefined });
    return errorOf(() => planOf(folder));
  });
  expect(error.code).toBe('ERR_CONFIG_INVALID');
  expect(error.message).toMatch(/from 1 to 64000000 for "size.shortest_edge"/);
});

it.each([
  ['llava_onevision/tied', 'image_token_index', '<image>'],
  ['internvl/layer', 'image_token_id', '<IMG_CONTEXT>'],
  ['llava/llava-llama', 'image_token_index', '<image>'],
])('%s: an image token that the chat template does not print', async (name, key, printed) => {
  const picture = { data: new Uint8Array(300), width: 10, height: 10, channels: 3 } as const;
  const error = await withCopy(join(FIXTURES, name), (folder) => {
    changeJson(join(folder, CONFIG), { [key]: 0 });
    return errorOf(async () => {
      using model = await load(folder);
      using session = model.session();
      await session.ask('What?', { images: [picture] });
    });
  });
  expect(error.code).toBe('ERR_CONFIG_INVALID');
  expect(error.message).toContain('"<unk>"');
  expect(error.message).toContain(printed);
});
