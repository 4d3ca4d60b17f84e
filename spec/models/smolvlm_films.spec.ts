// SmolVLM2's videos against transformers: prompts of many lengths and times, and greedy answers about 1, 2, 5 and 9 frames. Fixtures:
// scripts/fixtures/smolvlm.py.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { load, type Model } from '../../src';
import { readJson } from '../../src/json';
import { planOf } from '../../src/models/load';
import type { FrameTimes } from '../../src/models/media';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { changeJson, withCopy } from '../support/checkpoint';
import { F32_NMSE, nmse } from '../support/nmse';
import { readExpected } from '../support/tensors';
import { recordTurn } from '../support/turn';

const FOLDER = join(FIXTURES, 'smolvlm', 'smolvlm');

interface Film {
  readonly frames: number;
  readonly times: number[] | null;
  readonly duration: number | null;
}

const facts = readJson(join(FOLDER, 'expected.json')) as unknown as {
  readonly films: readonly Film[];
  readonly prompts: readonly (Film & { readonly text: string })[];
};

const timesOf = ({ times, duration }: Film): FrameTimes => ({
  ...(times !== null && { times }),
  ...(duration !== null && { duration }),
});

describe('SmolVLM2 about videos', () => {
  let model: Model;
  beforeAll(async () => {
    model = await load(FOLDER);
  });
  afterAll(() => model.dispose());

  it.each(facts.prompts.map((film) => [film.frames, film.duration, film] as const))(
    'writes the prompt of %i frames in %s seconds like transformers',
    (frames, _, film) => {
      const size = { kind: 'video', width: 52, height: 37, frames, ...timesOf(film) } as const;
      expect(model.plan.layout(size, { media: 1 }).text).toBe(film.text);
    },
  );

  it.each(facts.films.map((film, i) => [film.frames, i, film] as const))(
    'answers about %i frames with the tokens of transformers',
    async (frames, i, film) => {
      const expected = readExpected(join(FOLDER, 'expected.safetensors'));
      const files = Array.from({ length: frames }, (_, frame) => join(FOLDER, `frame${frame}.png`));
      const question = 'What happens in the film?';
      const videos = [{ frames: files, ...timesOf(film) }];
      const turn = await recordTurn(model, { images: [], videos, question, kv: 'f32', maxTokens: 8 });
      expect(turn.positions).toHaveLength(expected.ids(`films.${i}.input_ids`).length);
      const tail = expected.f32(`films.${i}.logits_tail`);
      expect(nmse(turn.promptLogits.subarray(-tail.length), tail)).toBeLessThanOrEqual(F32_NMSE);
      expect(turn.greedy).toEqual(expected.ids(`films.${i}.greedy`));
    },
  );

  it('resizes frames as its processor of videos is set, and refuses other pixels', async () => {
    await withCopy(FOLDER, async (folder) => {
      const videos = join(folder, 'video_preprocessor_config.json');
      writeFileSync(videos, '{}');
      changeJson(videos, { size: { longest_edge: 126 }, max_image_size: { longest_edge: 42 }, resample: 1 });
      const size = { width: 60, height: 40, frames: 1 };
      const first = (kind: 'image' | 'video') =>
        planOf(folder).layout({ ...size, kind }, { media: 1 }).canvases[0]?.steps[0]?.to;
      expect([first('image'), first('video')]).toEqual([
        { width: 84, height: 56 },
        { width: 126, height: 84 },
      ]);
      changeJson(videos, { image_mean: [0.1, 0.2, 0.3] });
      expect((await errorOf(async () => planOf(folder))).message).toMatch(/what images have.*image_mean/);
    });
  });

  it('a question may spell the placeholder of a video', async () => {
    using chat = model.session();
    await chat.ask('What is <video>?', { videos: [{ frames: [join(FOLDER, 'frame0.png')] }], maxTokens: 1 }).text();
    expect(chat.length).toBeGreaterThan(0);
  });
});

it('Idefics3 takes no videos', () => {
  expect(planOf(join(FIXTURES, 'smolvlm', 'idefics3')).videos).toBe(false);
});
