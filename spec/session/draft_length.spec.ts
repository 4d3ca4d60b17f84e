// How many tokens are drafted: a pure function of the acceptance and of times.

import { bestDrafts, draftLength, expectedTokens, passTime } from '../../src/session/draft_length';

describe('the number of drafted tokens', () => {
  it('is that of the most expected tokens per millisecond', () => {
    expect(expectedTokens(0.5, 2)).toBe(1.75);
    const times = (draft: number, row: number) => ({ draft, pass: (rows: number) => 1 + row * (rows - 1) });
    expect(bestDrafts(0.9, times(0.2, 0.05), 16)).toBe(6);
    expect(bestDrafts(0.3, times(0.2, 0.05), 16)).toBe(1);
    expect(bestDrafts(0.1, times(0.2, 0.05), 16)).toBe(0);
    expect(bestDrafts(1, times(0.2, 0.05), 3)).toBe(3);
    expect(bestDrafts(1, times(1, 0), 16)).toBe(0);
  });

  it('lies on the line through measured passes', () => {
    expect(passTime([undefined, 10], 3)).toBe(13);
    expect(passTime([undefined, 10, undefined, 14], 2)).toBe(12);
    expect(passTime([undefined, 10, undefined, 14], 5)).toBe(18);
    expect(passTime([undefined, 10, undefined, 8], 5)).toBe(8);
  });

  /** Lengths of the drafts of an answer whose drafted tokens are accepted as `accept` says. */
  function simulate(accept: (token: number) => boolean, draft: number, row: number, tokens: number): number[] {
    const chosen: number[] = [];
    const lengths = draftLength();
    for (let token = 0; token < tokens; ) {
      const n = lengths.next(tokens - token);
      chosen.push(n);
      if (n > 0) lengths.drafted(n, n * draft);
      lengths.passed(n + 1, 1 + row * n);
      let taken = 0;
      for (let isAccepted = true; taken < n && isAccepted; ) {
        isAccepted = accept(token + taken);
        lengths.judged(isAccepted);
        if (isAccepted) taken++;
      }
      token += taken + 1;
    }
    return chosen;
  }

  it('grows where drafts are accepted', () => {
    const lengths = simulate(() => true, 0.2, 0.05, 300);
    expect(lengths.slice(0, 2)).toEqual([0, 1]);
    expect(Math.max(...lengths)).toBeGreaterThan(8);
  });

  it('shrinks to none where they are rejected, with rare trials', () => {
    const lengths = simulate(() => false, 0.2, 0.05, 600);
    expect(lengths.slice(0, 4).some((n) => n > 0)).toBe(true);
    expect(lengths.slice(-256).filter((n) => n > 0).length).toBeLessThanOrEqual(2);
  });

  it('grows again where the acceptance returns', () => {
    const lengths = simulate((token) => token > 200, 0.2, 0.05, 1200);
    expect(lengths.slice(-8).every((n) => n > 4)).toBe(true);
  });

  it('is none where a draft costs as much as a dense step', () => {
    expect(simulate(() => true, 1, 0.1, 600).filter((n) => n > 0).length).toBeLessThan(8);
  });

  it('ignores a single slow step', () => {
    const lengths = draftLength();
    for (let i = 0; i < 40; i++) {
      lengths.drafted(1, 0.2);
      lengths.passed(1, 1);
      lengths.passed(2, 1.05);
      lengths.judged(true);
    }
    const before = lengths.next(16);
    lengths.drafted(1, 100);
    expect(before).toBeGreaterThan(4);
    expect(lengths.next(16)).toBeGreaterThan(2);
  });
});
