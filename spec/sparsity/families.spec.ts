// Every method on checkpoints of other shapes than the packaged one: projectors that merge patches or do not, odd grids, decoders
// of few layers, Llama and Qwen2; pictures in tiles, and videos.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type AskOptions, dense, load, METHODS, type SparsityMethod, type TurnStats } from '../../src';
import { createSession } from '../../src/session/session';
import { keptOf } from '../../src/sparsity/method_entry';
import { errorOf } from '../image/fixtures';
import { FIXTURES, vilaCase } from '../support/assets';
import { compareBits } from '../support/nmse';
import { watch } from '../support/watch';

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

const inFolder = (name: string, files: readonly string[]): string[] =>
  files.map((file) => join(FIXTURES, 'nvila', name, file));
const frames = inFolder(
  'film',
  Array.from({ length: 8 }, (_, i) => `eight_frames-${i}.png`),
);

describe.each<[string, AskOptions, number]>([
  ['tiles', { images: inFolder('tiles', ['three-0.png']) }, 4],
  ['film', { videos: [{ frames }] }, 2],
])('%s', (name, media, planes) => {
  it.each(METHODS.map((entry) => [entry.name, entry] as const))(
    '%s: each plane or film has its share, and keeping everything equals dense bit for bit',
    async (_, entry) => {
      using model = await load(join(FIXTURES, 'nvila', name));
      const ask = async (method: SparsityMethod): Promise<{ logits: Float32Array[]; stats: TurnStats }> => {
        const watched = watch(model);
        using chat = createSession(watched.model, { method });
        const answer = chat.ask('What?', { ...media, maxTokens: 3 });
        await answer.text();
        if (answer.stats === undefined) throw new Error('a complete answer without stats');
        return { logits: [...watched.logits], stats: answer.stats };
      };
      const ratios = { prefillSparsity: 0.75, decodeSparsity: 0.5 };
      const { encode, reuse, prune, drop, resize } = entry.create(ratios);
      // These films are pooled behind the projector.
      if (encode !== undefined && name === 'film')
        return expect((await errorOf(() => ask(entry.create(ratios)))).code).toBe('ERR_METHOD_UNSUPPORTED');
      const [medium] = (await ask(entry.create(ratios))).stats.media;
      const all = medium?.layout.grids ?? [];
      const shown = all.reduce((sum, { t }) => sum + t, 0);
      // A smaller picture has fewer tiles.
      if (resize !== undefined && name === 'tiles') return expect(shown).toBeLessThan(planes);
      expect(shown).toBe(planes);
      let first = 0;
      // Frames share a film's budget, or each plane has its own.
      const parts = entry.keeps ? all : all.flatMap((grid) => Array(grid.t).fill({ ...grid, t: 1 }));
      for (const part of parts) {
        const size = part.t * part.h * part.w;
        const own = medium?.kept.filter((token) => token >= first && token < first + size) ?? [];
        const share = prune && entry.uses.prefill ? keptOf(entry, part, ratios.prefillSparsity) : size;
        // VScan's drop removes a part of the tokens.
        expect(own.length).toBeGreaterThanOrEqual(encode === undefined ? share : 1);
        if (encode === undefined && (prune === undefined || drop === undefined)) expect(own).toHaveLength(share);
        first += size;
      }
      // Frames that reuse each other have no ratio at which all is computed; spec/sparsity/stc_cacher.spec.ts has options that do.
      if (reuse !== undefined && name === 'film') return;
      const [whole, plain] = [await ask(entry.create({ prefillSparsity: 0, decodeSparsity: 0 })), await ask(dense())];
      expect(compareBits(whole.logits, plain.logits)).toBe('identical');
    },
  );
});
