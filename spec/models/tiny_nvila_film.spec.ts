// The packaged film model against its f32 reference (transformers' classes on the same bf16 weights) on the reference films, and the
// port of its films and questions against the Python specification. Fixtures: scripts/fixtures/films.py.

import { createHash } from 'node:crypto';
import { load, type Model, PACKAGED_FILM_MODEL, sparseVila } from '../../src';
import type { SessionOptions } from '../../src/session/session';
import { type DrawnFilm, referenceFilms } from '../support/reference_films';

const films = referenceFilms();
const FRAMES = films.map(({ frames }, i) => [i, frames] as const);
let model: Model;
beforeAll(async () => {
  model = await load(PACKAGED_FILM_MODEL, { imageCache: 64e6 });
});
afterAll(() => model.dispose());

/** All questions, each as if it were the first about the film. */
async function answers({ pixels, turns }: DrawnFilm, options: SessionOptions): Promise<string[]> {
  using session = model.session({ ...options, history: 'forget' });
  const texts: string[] = [];
  for (const [i, { question }] of turns.entries())
    texts.push(await session.ask(question, i === 0 ? { videos: [{ frames: pixels }] } : {}).text());
  return texts;
}

describe.each(FRAMES)('film %i, of %i frames', (i) => {
  const film = films[i] as DrawnFilm;

  it('has the questions and the truth of film_questions.py', () => {
    const turns = film.turns.map(({ question, truth, kind }) => ({ question, answer: truth, kind }));
    expect(film.asked.map(({ frame: _, ...turn }) => turn)).toEqual(turns);
  });

  it('has the pixels of the reference', () => {
    const hash = createHash('sha256');
    for (const { data } of film.pixels) hash.update(data);
    expect(hash.digest('hex')).toBe(film.sha256);
    expect(film.patches.length).toBeLessThan(8);
  });

  it("every greedy answer is the reference's", async () => {
    expect(await answers(film, { kv: 'f32' })).toEqual(film.turns.map(({ greedy }) => greedy));
  });
});

it('SparseVILA with 2.5 % of the visual tokens active loses no answer', async () => {
  const [film] = films as [DrawnFilm];
  const method = sparseVila({ prefillSparsity: 0.75, decodeSparsity: 0.9 });
  expect(await answers(film, { method })).toEqual(film.turns.map(({ truth }) => truth));
});
