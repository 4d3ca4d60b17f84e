// Every method of the table passes the common suite, and the entries of the table are complete.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { compose, load, METHODS, type MethodEntry, type Model } from '../../src';
import { TINY } from '../support/assets';
import { methodSuite, sessionSuite } from './suite';

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
  // The first turn makes constants that are kept for the process.
  using warm = model.session();
  await warm.ask('Hi').text();
});
afterAll(() => model.dispose());

it('the table names each method once, with its stage, title and source', () => {
  const names = METHODS.map(({ name }) => name);
  expect(names).toEqual([...new Set(names)]);
  // These are the paper's method and the baselines.
  expect(names).toEqual(expect.arrayContaining(['sparsevila', 'dense', 'random', 'uniform']));
  for (const { title, stage, source } of METHODS) expect([title, stage, source]).not.toContain('');
});

const SOURCES = join(__dirname, '../../../src/sparsity');
// `checkedMethod` returns methods, and is none.
const FILES = readdirSync(SOURCES).filter(
  (file) => file !== 'checked.ts' && /\): SparsityMethod \{$/m.test(readFileSync(join(SOURCES, file), 'utf8')),
);
it('finds the files of methods', () => expect(FILES.length).toBeGreaterThan(25));
it.each(FILES)(
  '%s has at most 60 lines of code: what methods share stands in vectors.ts, shares.ts, planes.ts and top_k.ts',
  (file) => {
    const code = readFileSync(join(SOURCES, file), 'utf8').replace(/\/\*\*[\s\S]*?\*\//g, '');
    const lines = code.split('\n').filter((line) => line.trim() !== '' && !/^\s*\/\//.test(line));
    expect(lines.length).toBeLessThanOrEqual(60);
  },
);

/** Two methods composed: the first prunes and drops, the second retrieves. */
function composed(first: string, second: string): MethodEntry {
  const [a, b] = [first, second].map((name) => METHODS.find((entry) => entry.name === name)) as [
    MethodEntry,
    MethodEntry,
  ];
  return {
    ...a,
    name: `${first}+${second}`,
    safeForLaterTurns: a.safeForLaterTurns && b.safeForLaterTurns,
    uses: { prefill: a.uses.prefill, decode: b.uses.decode },
    create: (ratios) => compose(a.create(ratios), b.create(ratios)),
  };
}

for (const entry of [
  ...METHODS,
  composed('visionzip', 'quest'),
  composed('pyramiddrop', 'sparsevila'),
  composed('vscan', 'snapkv'),
]) {
  methodSuite(entry);
  sessionSuite(entry, () => model);
}
