// Functions that tfjs-node-gpu needs on newer Node versions.
import { polyfillUtil } from '../../src/runtime/compat';

describe('polyfillUtil', () => {
  test.each(['22.12.0', '23.0.0', '24.9.0'])('gives isNullOrUndefined and isArray on Node %s', (version) => {
    const util: Record<string, unknown> = {};
    polyfillUtil(util, version);
    const isNullOrUndefined = util.isNullOrUndefined as (value: unknown) => boolean;
    expect([null, undefined, 0, '', false].map(isNullOrUndefined)).toEqual([true, true, false, false, false]);
    expect((util.isArray as (value: unknown) => boolean)([])).toBe(true);
  });

  test('leaves Node 20 as it is', () => {
    const util: Record<string, unknown> = {};
    polyfillUtil(util, '20.19.0');
    expect(util).toEqual({});
  });
});
