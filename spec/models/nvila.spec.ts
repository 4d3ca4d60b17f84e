// NVILA's ways of showing pictures and videos: tiles (`dynamic`), scales (`dynamic_s2`), frames with temporal pooling (TSP), against
// transformers' tower and decoder and VILA's own arithmetic. Fixtures: scripts/fixtures/nvila.py; its README names the tensors.

import { join } from 'node:path';
import { load, type Model } from '../../src';
import { configReader, readJson } from '../../src/json';
import type { MediaInput } from '../../src/models/media';
import { FIXTURES } from '../support/assets';
import { drawn, pause, pixelsOf } from '../support/media';
import { F32_NMSE, largestDifference, nmse, PIXELS_ABSOLUTE } from '../support/nmse';
import { readExpected } from '../support/tensors';
import { joined, recordTurn } from '../support/turn';

const REQUESTS = [
  { name: 'tiles', request: 'three', grids: 4, runs: 4 },
  { name: 'tiles', request: 'twelve', grids: 13, runs: 13 },
  // Several pictures at once are not cut.
  { name: 'tiles', request: 'two_pictures', grids: 2, runs: 2 },
  { name: 'scales', request: 'square', grids: 1, runs: 1 },
  { name: 'scales', request: 'wide', grids: 1, runs: 1 },
  { name: 'film', request: 'eight_frames', grids: 1, runs: 2 },
];
const GREEDY_TOKENS = 8;

describe.each(REQUESTS)('$name, $request', ({ name, request, grids, runs }) => {
  const folder = join(FIXTURES, 'nvila', name);
  const expected = readExpected(join(folder, 'expected.safetensors'));
  const f32 = (tensor: string): Float32Array => expected.f32(`${request}.${tensor}`);
  const facts = configReader(readJson(join(folder, 'expected.json')), folder)
    .object('requests')
    ?.object(request);
  const question = facts?.string('question') ?? '';
  const files = ((facts?.json.images ?? []) as string[]).map((file) => join(folder, file));
  const isFilm = name === 'film';
  const media: MediaInput[] = isFilm
    ? [{ kind: 'video', video: { frames: files } }]
    : files.map((image) => ({ kind: 'image', image }));
  let model: Model;
  beforeAll(async () => {
    model = await load(folder);
  });
  afterAll(() => model.dispose());

  it('canvases, grids and projected rows', async () => {
    const prepared = await drawn(model, media);
    const pixels = joined(prepared.map((medium) => pixelsOf(model, medium)));
    expect(largestDifference(pixels, f32('pixel_values'))).toBeLessThanOrEqual(PIXELS_ABSOLUTE);
    expect(prepared.flatMap(({ layout }) => layout.grids)).toHaveLength(grids);
    expect(prepared.flatMap(({ layout }) => layout.runs)).toHaveLength(runs);
    const rows: Float32Array[] = [];
    for (const medium of prepared) {
      const seen = await model.encode(medium, { salience: [-1], keys: [1], pace: pause });
      const projected = model.project(seen.features, seen.layout);
      rows.push(projected.dataSync<'float32'>().slice());
      expect([seen.salience[0]?.length, seen.keys[0]?.data.length]).toEqual([seen.tokens, seen.tokens * 24]);
      for (const one of [projected, seen]) one.dispose();
    }
    expect(nmse(joined(rows), f32('projected'))).toBeLessThanOrEqual(F32_NMSE);
  });

  it('prompt, logits and greedy answer', async () => {
    const turn = await recordTurn(model, {
      ...{ question, kv: 'f32', maxTokens: GREEDY_TOKENS },
      ...(isFilm ? { images: [], videos: [{ frames: files }] } : { images: files }),
    });
    expect(turn.promptIds).toEqual(expected.ids(`${request}.input_ids`));
    expect(turn.positions).toHaveLength(facts?.number('rows') ?? 0);
    const tail = f32('logits_tail');
    expect(nmse(turn.promptLogits.subarray(-tail.length), tail)).toBeLessThanOrEqual(F32_NMSE);
    expect(turn.greedy).toEqual(expected.ids(`${request}.greedy`));
  });
});
