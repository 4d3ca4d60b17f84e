// Every method on checkpoints of other shapes than the packaged one: projectors that merge patches or do not, odd grids, decoders
// of few layers, Llama and Qwen2.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { load, METHODS } from '../../src';
import { vilaCase } from '../support/assets';

const CASES = readdirSync(vilaCase('.'));

it.each(CASES)('%s', async (name) => {
  const folder = vilaCase(name);
  using model = await load(folder);
  const image = join(folder, 'image.png');
  for (const { name: method, create } of METHODS) {
    using chat = model.session({ method: create({ prefillSparsity: 0.5, decodeSparsity: 0.5 }), history: 'forget' });
    for (const images of [[image, image], []]) {
      const answer = chat.ask('What?', { images, maxTokens: 3 });
      await answer.text();
      const { visualKept = 0, activePrefill = 0, activeDecode = 0 } = answer.stats?.tokens ?? {};
      expect([method, activeDecode >= 1, activeDecode <= activePrefill, activePrefill <= visualKept]).toEqual([
        method,
        true,
        true,
        true,
      ]);
    }
  }
});
