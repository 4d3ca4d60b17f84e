// What to draft before the next dense pass: the source and number of tokens with the most expected tokens per millisecond, from the acceptance
// and the times that were seen in the turn. No clock and no tensors: the caller reports what it measured.
// Source: the expected number of tokens of a pass is that of Leviathan et al., arXiv 2211.17192, equation 1.

/** Milliseconds. */
export interface DraftTimes {
  /** One drafted token. */
  readonly draft: number;
  /** A dense pass over that many rows. */
  pass(rows: number): number;
}

/** Most tokens of a draft. */
export const MOST_DRAFTS = 16;

/** The expected number of tokens of a pass after `drafts` drafted tokens, each accepted with probability `acceptance` if those before it were. */
export function expectedTokens(acceptance: number, drafts: number): number {
  let [sum, power] = [1, 1];
  for (let i = 0; i < drafts; i++) {
    power *= acceptance;
    sum += power;
  }
  return sum;
}

/** Where drafts come from: decoder steps over the turn's view, or what followed the last tokens earlier in the conversation, which costs nothing. */
export type DraftSource = 'view' | 'lookup';

/** A number of tokens to draft; 0: none. */
export interface Draft {
  readonly source: DraftSource;
  readonly tokens: number;
}

/** The draft of at most `most` tokens of each source with the most expected tokens per millisecond; the shorter one on ties. */
export function bestDraft(
  acceptance: Readonly<Record<DraftSource, number>>,
  { draft, pass }: DraftTimes,
  most: Readonly<Record<DraftSource, number>>,
): Draft {
  let best: Draft = { source: 'view', tokens: 0 };
  let rate = 1 / pass(1);
  for (const source of ['lookup', 'view'] as const)
    for (let tokens = 1; tokens <= most[source]; tokens++) {
      const ms = (source === 'view' ? tokens * draft : 0) + pass(tokens + 1);
      const own = expectedTokens(acceptance[source], tokens) / ms;
      if (own > rate) [best, rate] = [{ source, tokens }, own];
    }
  return best;
}

/** Chooses the drafts of a turn. */
export interface DraftLength {
  /** What to draft now; `most`: the numbers of tokens that each source can give. */
  next(most: Readonly<Record<DraftSource, number>>): Draft;
  /** Drafting `tokens` tokens over the view took `ms`. */
  drafted(tokens: number, ms: number): void;
  /** A dense pass over `rows` rows took `ms`. */
  passed(rows: number, ms: number): void;
  /** A drafted token was accepted or rejected. */
  judged(source: DraftSource, isAccepted: boolean): void;
}

/** Assumed until they are measured: the share of a dense step that a drafted token takes, and that each further row of a pass adds. */
const [DRAFT_SHARE, ROW_SHARE] = [0.4, 0.3];
/** Counts of accepted and rejected tokens before any was seen, and the factor by which older counts fade with each token. */
const [PRIOR_ACCEPTED, PRIOR_REJECTED, FADE] = [1.5, 0.5, 0.97];
/** Weight of a new time in a mean; a time above `OUTLIER` times the mean counts as that. */
const [WEIGHT, OUTLIER] = [0.3, 2];
/** Where drafting does not pay: number of steps after which it is tried again, doubled each time that it fails up to the most. */
const [WAIT, MOST_WAIT] = [32, 256];

export function draftLength(): DraftLength {
  const counts = {
    view: { accepted: PRIOR_ACCEPTED, rejected: PRIOR_REJECTED },
    lookup: { accepted: PRIOR_ACCEPTED, rejected: PRIOR_REJECTED },
  };
  let draft: number | undefined;
  const passes: (number | undefined)[] = [];
  let [wait, waited] = [WAIT, 0];
  const mean = (before: number | undefined, ms: number): number =>
    before === undefined ? ms : before + WEIGHT * (Math.min(ms, OUTLIER * before) - before);
  const acceptance = ({ accepted, rejected }: (typeof counts)['view']): number => accepted / (accepted + rejected);
  return {
    next(most) {
      const [, one] = passes;
      const none: Draft = { source: 'view', tokens: 0 };
      if (one === undefined || Math.max(most.view, most.lookup) === 0) return none;
      const times = { draft: draft ?? DRAFT_SHARE * one, pass: (rows: number) => passTime(passes, rows) };
      const bounded = { view: Math.min(most.view, MOST_DRAFTS), lookup: Math.min(most.lookup, MOST_DRAFTS) };
      const accepted = { view: acceptance(counts.view), lookup: acceptance(counts.lookup) };
      const best = bestDraft(accepted, times, bounded);
      if (best.tokens > 0) {
        [wait, waited] = [WAIT, 0];
        return best;
      }
      if (++waited < wait) return none;
      [wait, waited] = [Math.min(2 * wait, MOST_WAIT), 0];
      return { source: most.lookup > 0 ? 'lookup' : 'view', tokens: 1 };
    },
    drafted(tokens, ms) {
      draft = mean(draft, ms / tokens);
    },
    passed(rows, ms) {
      passes[rows] = mean(passes[rows], ms);
    },
    judged(source, isAccepted) {
      const own = counts[source];
      own.accepted = FADE * own.accepted + Number(isAccepted);
      own.rejected = FADE * own.rejected + Number(!isAccepted);
    },
  };
}

/** Milliseconds of a pass over `rows` rows: measured, or on the line through the nearest measured ones. `passes[1]` is measured. */
export function passTime(passes: readonly (number | undefined)[], rows: number): number {
  const own = passes[rows];
  if (own !== undefined) return own;
  const known = passes.flatMap((ms, at) => (ms === undefined ? [] : [{ at, ms }]));
  const above = known.find(({ at }) => at > rows);
  const [first, ...others] = known.filter(({ at }) => at < rows).reverse();
  const one = passes[1] as number;
  const from = first ?? { at: 1, ms: one };
  const to = above ?? others[0];
  const slope = to === undefined ? ROW_SHARE * one : Math.max(0, (to.ms - from.ms) / (to.at - from.at));
  return from.ms + slope * (rows - from.at);
}
