// Stop strings: what is emitted does not depend on how the text was cut.
import { uniform } from '../../src/text/random';
import { stopMatcher } from '../../src/text/stop';

function feed(stops: string[], parts: string[]): { text: string; stopped: boolean } {
  const matcher = stopMatcher(stops);
  let text = '';
  let stopped = false;
  for (const part of parts) {
    const result = matcher.push(part);
    text += result.emit;
    stopped = result.stopped;
  }
  return { text: text + matcher.flush(), stopped };
}

describe('stopMatcher', () => {
  it('holds back only what could begin a stop string', () => {
    const matcher = stopMatcher(['\nUser:']);
    expect(matcher.push('Hello\n')).toEqual({ emit: 'Hello', stopped: false });
    expect(matcher.push('Us')).toEqual({ emit: '', stopped: false });
    expect(matcher.push('eful\nUser')).toEqual({ emit: '\nUseful', stopped: false });
    expect(matcher.push(': more')).toEqual({ emit: '', stopped: true });
    expect(matcher.push('later')).toEqual({ emit: '', stopped: true });
    expect(matcher.flush()).toBe('');
  });

  it('gives back at the end what did not stop', () => {
    expect(feed(['###'], ['a#', '#'])).toEqual({ text: 'a##', stopped: false });
    expect(feed([], ['a', 'b'])).toEqual({ text: 'ab', stopped: false });
  });

  it('lets the stop string that ends first win, the longest of those', () => {
    expect(feed(['abcd', 'bc'], ['xabcd'])).toEqual({ text: 'xa', stopped: true });
    expect(feed(['bc', 'abc'], ['xabcd'])).toEqual({ text: 'x', stopped: true });
    expect(feed(['aab'], ['aaab'])).toEqual({ text: 'a', stopped: true });
  });

  it('gives the same text however it is cut', () => {
    const stops = ['abab', 'bba', 'aaaa', 'c'];
    const random = uniform(7);
    for (let trial = 0; trial < 300; trial++) {
      const length = 1 + Math.floor(random() * 30);
      const text = Array.from({ length }, () =>
        'abac'[Math.floor(random() * (trial % 4 === 0 ? 4 : 3))]?.replace(/^a$/, random() < 0.5 ? 'a' : 'b'),
      ).join('');
      const cut: string[] = [];
      for (let at = 0; at < text.length; ) {
        const end = at + 1 + Math.floor(random() * 5);
        cut.push(text.slice(at, end));
        at = end;
      }
      const whole = feed(stops, [text]);
      expect(feed(stops, cut)).toEqual(whole);
      expect(feed(stops, [...text])).toEqual(whole);
      expect(whole.stopped).toBe(stops.some((stop) => text.includes(stop)));
      expect(text.startsWith(whole.text)).toBe(true);
    }
  });

  it('refuses an empty stop string', () => {
    expect(() => stopMatcher(['a', ''])).toThrow(expect.objectContaining({ code: 'ERR_OPTION_INVALID' }));
  });
});
