// The time limit: loops, regular expressions, and nested work.
import { withinTime } from '../../src/text/limit';

const limited = <T>(work: () => T, ms = 200): T => withinTime(ms, work, 'ERR_TOKENIZER_LIMIT', 'Too slow.');
const ended = expect.objectContaining({
  code: 'ERR_TOKENIZER_LIMIT',
  message: expect.stringMatching(/^Too slow\. It was ended after \d+\.\d s\.$/),
});

it('gives the result, undefined too, and passes errors on', () => {
  expect(limited(() => 7)).toBe(7);
  expect(limited(() => undefined)).toBeUndefined();
  expect(() =>
    limited(() => {
      throw new RangeError('mine');
    }),
  ).toThrow(new RangeError('mine'));
});

it('ends loops and regular expressions, and can be used again', () => {
  expect(() =>
    limited(() => {
      for (;;);
    }),
  ).toThrow(ended);
  expect(() => limited(() => /^(a+)+$/.test(`${'a'.repeat(64)}!`))).toThrow(ended);
  expect(limited(() => 'again')).toBe('again');
});

it('ends work within work, the inner first', () => {
  const inner = (): string => {
    try {
      return limited(() => {
        for (;;);
      }, 50);
    } catch {
      return 'inner ended';
    }
  };
  expect(limited(inner, 60_000)).toBe('inner ended');
});
