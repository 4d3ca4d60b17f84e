// Every small case of the op table against its reference at every instruction-set level, and the same bits for any number of
// threads and at any level that fuses multiply and add.

import type { PreparedCase } from '../../testing/ops/cases/case';
import { OP_CASES, titleOf } from '../../testing/ops/cases/index';
import { TOLERANCES, within } from '../../testing/ops/tolerance';
import { atLevel, bitsOf, expectSameBits, levels, withThreads } from './levels';

const SMALL = OP_CASES.filter((item) => !item.big).map((item) => ({ ...item, title: titleOf(item) }));

test('no two cases share a title', () => {
  const titles = OP_CASES.map(titleOf);
  expect(titles.filter((title, i) => titles.indexOf(title) !== i)).toEqual([]);
});

describe.each(SMALL)('$title', (item) => {
  let prepared: PreparedCase;
  beforeAll(() => {
    prepared = item.prepare();
  });
  afterAll(() => prepared.dispose());

  test.each(levels())('equals its reference at %s', (level) => {
    const wrong = atLevel(level, () => prepared.check()).filter(({ error }) => !within(error, item.tolerance));
    const [first] = wrong;
    const message =
      first &&
      `${first.output}: NMSE ${first.error} is not within ${item.tolerance} (${TOLERANCES[item.tolerance]}). Likely cause: ` +
        `${
          Number.isNaN(first.error) ? 'NaN or a wrong length' : `a sum or an index in this level's kernels`
        }; compare with the other levels.`;
    expect(message).toBeUndefined();
  });

  test('gives the same bits with 1, 2, 3 and 5 threads', () => {
    // One level is enough: the same code splits the work for all levels.
    const one = withThreads(1, () => bitsOf(prepared.run()));
    for (const count of [2, 3, 5])
      expectSameBits(
        withThreads(count, () => bitsOf(prepared.run())),
        one,
        `${count} threads`,
        'a sum that is split by thread instead of at fixed places, or scratch memory that two threads share.',
      );
  });

  test('gives the same bits at every level with fused multiply-add', () => {
    // The bf16 dot product rounds activations where the others do not; tiles take bf16 products in another order.
    const tiles = item.tiles === true ? ['avx512amx'] : [];
    const apart =
      { 'bf16 dot': ['avx512bf16', 'avx512amx', 'bf16'], bf16: ['avx512amx'] }[item.dtype as string] ?? tiles;
    const fused = levels().filter((level) => level !== 'portable' && !apart.includes(level));
    const [first, ...others] = fused.map((level) => ({ level, bits: atLevel(level, () => bitsOf(prepared.run())) }));
    for (const { level, bits } of others)
      expectSameBits(
        bits,
        first?.bits ?? [],
        `${level} against ${first?.level}`,
        'a multiply and an add that one level fuses and the other does not, or sums over lanes in another order.',
      );
  });
});
