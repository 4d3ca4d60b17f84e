// Methods on films of every family that takes them: as many rows as promised reach the decoder, with frames that keep nothing, with merged
// rows, temporal pairs, pooled frames and deepstack; and keeping everything equals dense bit for bit.

import { join } from 'node:path';
import { dense, load, type Model, type SparsityMethod } from '../../src';
import { createSession } from '../../src/session/session';
import { FILM_ROWS } from '../../src/sparsity/film_methods';
import { keptOf } from '../../src/sparsity/method_entry';
import { FIXTURES, TINY } from '../support/assets';
import { compareBits } from '../support/nmse';
import { watch } from '../support/watch';

/** Five frames: a bright square that moves over noise that stays. */
const FRAMES = Array.from({ length: 5 }, (_, frame) => {
  const [width, height] = [112, 84];
  const data = new Uint8Array(width * height * 3);
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++, at += 3) {
      const isBright = Math.abs(x - 10 - 20 * frame) < 10 && Math.abs(y - 40) < 12;
      data.set(isBright ? [250, 240, 10 * frame] : [(x * y) % 200, (3 * x + 5 * y) % 180, (7 * x) % 160], at);
    }
  return { data, width, height, channels: 3 as const };
});

const FAMILIES = [
  ...['qwen_vl/qwen2.5-vl', 'qwen_vl/qwen3-vl', 'llava_onevision/large'],
  ...['internvl/layer', 'smolvlm/smolvlm'],
];

describe.each<[string, string]>([
  ['the packaged model', TINY],
  ...FAMILIES.map((name): [string, string] => [name, join(FIXTURES, name)]),
])('films of %s', (_, folder) => {
  let model: Model;
  beforeAll(async () => {
    model = await load(folder);
  });
  afterAll(() => model.dispose());

  async function ask(method: SparsityMethod) {
    const watched = watch({ ...model, stopIds: [] });
    using session = createSession(watched.model, { method, kv: 'f32' });
    const answer = session.ask('What?', { videos: [{ frames: FRAMES }], maxTokens: 2 });
    await answer;
    if (answer.stats === undefined) throw new Error('a complete answer without stats');
    return { ...answer.stats, logits: [...watched.logits] };
  }

  it.each(FILM_ROWS.map((entry) => [entry.name, entry] as const))('%s', async (_, entry) => {
    const plain = await ask(dense());
    const all = await ask(entry.create({ prefillSparsity: 0, decodeSparsity: 0 }));
    expect(compareBits(all.logits, plain.logits)).toBe('identical');
    for (const prefillSparsity of [0.5, 0.9]) {
      const { media, tokens } = await ask(entry.create({ prefillSparsity, decodeSparsity: 0 }));
      const grids = media.flatMap(({ layout }) => layout.grids);
      const promised = grids.reduce((sum, grid) => sum + keptOf(entry, grid, prefillSparsity), 0);
      expect(tokens.visualKept).toBe(promised);
      expect(plain.tokens.prompt - tokens.prompt).toBe(tokens.visualSeen - promised);
      expect(tokens.visualSeen).toBeGreaterThan(promised);
    }
  });
});
