// Videos as input, and one that does not fit the context: refused from its layout, before the tower runs.

import { join } from 'node:path';
import { load, type Model, uniform } from '../../src';
import { createSession } from '../../src/session/session';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';

const FRAME = { data: new Uint8Array(3 * 400).fill(90), width: 20, height: 20, channels: 3 } as const;
const frames = (count: number) => Array.from({ length: count }, () => FRAME);

describe('videos', () => {
  let model: Model;
  beforeAll(async () => {
    model = await load(join(FIXTURES, 'nvila', 'film'));
  });
  afterAll(() => model.dispose());

  it.each([undefined, uniform({ prefillSparsity: 0.9 })])(
    'a video that does not fit is refused before the tower runs',
    async (method) => {
      let runs = 0;
      const counting = {
        ...model,
        encode: (...given: Parameters<Model['encode']>) => {
          runs++;
          return model.encode(...given);
        },
      };
      const session = createSession(counting, method && { method });
      const error = await errorOf(() => session.ask('What?', { videos: [{ frames: frames(400) }] }).text());
      expect([error.code, runs]).toEqual(['ERR_CONTEXT_OVERFLOW', 0]);
      expect(error.message).toMatch(/needs (at least )?17\d\d tokens/);
      await session.ask('What?', { videos: [{ frames: frames(4) }], maxTokens: 1 }).text();
      expect(runs).toBe(1);
      session.dispose();
    },
  );

  it('frames are read when the question is asked', async () => {
    const session = model.session();
    const list = frames(4);
    const answer = session.ask('What?', { videos: [{ frames: list }], maxTokens: 1 });
    list.length = 0;
    await answer.text();
    expect(answer.stats?.tokens.visualSeen).toBe(16);
    let reads = 0;
    const changing = {
      get frames() {
        return reads++ === 0 ? frames(4) : (5 as unknown as typeof list);
      },
    };
    expect((await errorOf(async () => session.ask('What?', { videos: [changing] }))).code).toBe('ERR_OPTION_INVALID');
    session.dispose();
  });
});
