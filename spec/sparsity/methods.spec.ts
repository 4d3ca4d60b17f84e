// Every method of the table keeps to what all keep to; and the table says what it must.

import { load, METHODS, type Model } from '../../src';
import { TINY } from '../support/assets';
import { methodSuite, sessionSuite } from './suite';

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
  // The first turn makes what is made once per process.
  using warm = model.session();
  await warm.ask('Hi').text();
});
afterAll(() => model.dispose());

it('the table names each method once, with its stage, title and source', () => {
  expect(METHODS.map(({ name }) => name)).toEqual(
    'dense sparsevila visionzip prumerge prumerge+ divprune hiprune fastv pyramiddrop sparsevlm sparsevlm+ vscan snapkv quest random uniform'.split(
      ' ',
    ),
  );
  for (const { title, stage, source } of METHODS) expect([title, stage, source]).not.toContain('');
});

for (const entry of METHODS) {
  methodSuite(entry);
  sessionSuite(entry, () => model);
}
