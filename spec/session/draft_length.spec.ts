// How many tokens are drafted: a pure function of the acceptance and of times.

import { bestDraft, draftLength, expectedTokens, passTime } from '../../src/session/draft_length';
import { lookUp } from '../../src/session/look_up';

describe('the number of drafted tokens', () => {
  it('is that of the most expected tokens per millisecond', () => {
    expect(expectedTokens(0.5, 2)).toBe(1.75);
    const view = (acceptance: number, known: Parameters<typeof bestDraft>[1], most: number) =>
      bestDraft({ view: acceptance, lookup: 1 }, known, { view: most, lookup: 0 }).tokens;
    const times = (draft: number, row: number) => ({ draft, pass: (rows: number) => 1 + row * (rows - 1) });
    expect(view(0.9, times(0.2, 0.05), 16)).toBe(6);
    expect(view(0.3, times(0.2, 0.05), 16)).toBe(1);
    expect(view(0.1, times(0.2, 0.05), 16)).toBe(0);
    expect(view(1, times(0.2, 0.05), 3)).toBe(3);
    expect(view(1, times(1, 0), 16)).toBe(0);
    const both = (lookup: number) =>
      bestDraft({ view: 0.9, lookup }, times(0.2, 0.05), { view: 16, lookup: 16 }).source;
    expect([both(0.9), both(0.3)]).toEqual(['lookup', 'view']);
  });

  it('lies on the line through measured passes', () => {
    expect(passTime([undefined, 10], 3)).toBe(16);
    expect(passTime([undefined, 10, undefined, 14], 2)).toBe(12);
    expect(passTime([undefined, 10, undefined, 14], 5)).toBe(18);
    expect(passTime([undefined, 10, undefined, 8], 5)).toBe(8);
  });

  /** Lengths of the drafts of an answer whose drafted tokens are accepted as `accept` says. */
  function simulate(accept: (token: number) => boolean, draft: number, row: number, tokens: number): number[] {
    const chosen: number[] = [];
    const lengths = draftLength();
    for (let token = 0; token < tokens; ) {
      const { tokens: n } = lengths.next({ view: tokens - token, lookup: 0 });
      chosen.push(n);
      if (n > 0) lengths.drafted(n, n * draft);
      lengths.passed(n + 1, 1 + row * n);
      let taken = 0;
      for (let isAccepted = true; taken < n && isAccepted; ) {
        isAccepted = accept(token + taken);
        lengths.judged('view', isAccepted);
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
      lengths.judged('view', true);
    }
    const before = lengths.next({ view: 16, lookup: 0 }).tokens;
    lengths.drafted(1, 100);
    expect(before).toBeGreaterThan(4);
    expect(lengths.next({ view: 16, lookup: 0 }).tokens).toBeGreaterThan(2);
  });
});

it('looks up what followed the last tokens, the longest end and the latest place first', () => {
  expect(lookUp([1, 2, 3, 4, 1, 2], 3)).toEqual([3, 4, 1]);
  expect(lookUp([1, 2, 3, 9, 2, 4, 1, 2], 1)).toEqual([3]);
  expect(lookUp([5, 1, 2, 3, 6, 1, 2, 4, 5, 1, 2], 1)).toEqual([3]);
  expect(lookUp([5, 1, 2, 3, 6, 1, 2, 4, 7, 1, 2], 1)).toEqual([4]);
  expect(lookUp([7, 7, 7, 7], 4)).toEqual([7]);
  expect(lookUp([1, 2, 3], 4)).toEqual([]);
  expect(lookUp([1, 2, 1, 2], 0)).toEqual([]);
});
