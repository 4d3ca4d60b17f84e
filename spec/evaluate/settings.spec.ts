// Settings from names and ratios, and the fitted line for equal times.

import { shareAt } from '../../src/evaluate/equal_time';
import { nameOf, parseMethods, parseRatios, ratiosForShare, settingsOf } from '../../src/evaluate/settings';
import { METHODS } from '../../src/sparsity/methods';

test('an active share goes to the only stage of a method, and is split as 0.6/0.75 for two stages at 0.1', () => {
  for (const entry of METHODS) {
    for (const share of [0.025, 0.1, 0.25, 1]) {
      const { prefillSparsity: p, decodeSparsity: d } = ratiosForShare(entry, share);
      const { prefill, decode } = entry.uses;
      expect([p, d].every((sparsity) => sparsity >= 0 && sparsity < 1)).toBe(true);
      if (prefill || decode) expect((1 - p) * (1 - d)).toBeCloseTo(share, 3);
      if (!prefill) expect(p).toBe(0);
      if (!decode) expect(d).toBe(0);
      if (prefill && decode && share === 0.1) expect([p, d]).toEqual([0.6, 0.75]);
    }
  }
});

test('settings start with dense, are unique, and have only the stages of the method', () => {
  const methods = parseMethods('sparsevila,visionzip,dense');
  const names = settingsOf(methods, () => parseRatios('0.6/0.75,0.6/0.9,0/0.5'), ['original', 'compact']).map(nameOf);
  expect(names).toEqual([
    'dense 0/0 original',
    'sparsevila 0.6/0.75 original',
    'sparsevila 0.6/0.75 compact',
    'sparsevila 0.6/0.9 original',
    'sparsevila 0.6/0.9 compact',
    'sparsevila 0/0.5 original',
    'visionzip 0.6/0 original',
    'visionzip 0.6/0 compact',
    'visionzip 0/0 original',
  ]);
  expect(parseMethods('all')).toEqual(METHODS);
});

test.each(['0.6', '0.6/', '/0.75', '0.6/1', '-0.1/0', 'a/b', '0.6/0.75/0.8', '0.6/0.75,', '1e999/0'])(
  'refuses the ratios %s',
  (list) => {
    expect(() => parseRatios(list)).toThrow(/Expected ratios PREFILL\/DECODE/);
  },
);

test('ratios in percent are refused, and the error gives them as shares', () => {
  expect(() => parseRatios('60/75')).toThrow(/as shares.*received 60\/75\. Did you mean 0\.6\/0\.75\?/);
});

test('refuses an unknown method', () => {
  expect(() => parseMethods('sparsevila,none')).toThrow(/among dense, sparsevila.*, received none/);
});

test('equal time takes the share where the fitted line meets the target, within the measured range', () => {
  const line = [0.05, 0.5, 1].map((share) => ({ share, ms: 10 + 40 * share }));
  expect(shareAt(line, 30)).toBe(0.5);
  expect(shareAt(line, 1)).toBe(0.05);
  expect(shareAt(line, 100)).toBe(0.999);
  expect(
    shareAt(
      [
        { share: 0.1, ms: 9 },
        { share: 1, ms: 8 },
      ],
      8,
    ),
  ).toBe(0.999);
});
