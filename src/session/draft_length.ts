// How many tokens to draft before the next dense pass: the number with the most expected tokens per millisecond, from the acceptance and the
// times that were seen in the turn. No clock and no tensors: the caller reports what it measured.
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

/** The number of drafts, 0 to `most`, with the most expected tokens per millisecond; the lower one on ties. */
export function bestDrafts(acceptance: number, { draft, pass }: DraftTimes, most: number): number {
  let [best, rate] = [0, 0];
  for (let drafts = 0; drafts <= most; drafts++) {
    const own = expectedTokens(acceptance, drafts) / (drafts * draft + pass(drafts + 1));
    if (own > rate) [best, rate] = [drafts, own];
  }
  return best;
}

/** Chooses the length of each draft of a turn. */
export interface DraftLength {
  /** The number of tokens to draft now, at most `most`. */
  next(most: number): number;
  /** A draft of `tokens` tokens took `ms`. */
  drafted(tokens: number, ms: number): void;
  /** A dense pass over `rows` rows took `ms`. */
  passed(rows: number, ms: number): void;
  /** A drafted token was accepted or rejected. */
  judged(isAccepted: boolean): void;
}

/** Assumed until they are measured: the share of a dense step that a drafted token takes, and that each further row of a pass adds. */
const [DRAFT_SHARE, ROW_SHARE] = [0.5, 0.15];
/** Counts of accepted and rejected tokens before any was seen, and the factor by which older counts fade with each token. */
const [PRIOR_ACCEPTED, PRIOR_REJECTED, FADE] = [3, 1, 0.95];
/** Weight of a new time in a mean; a time above `OUTLIER` times the mean counts as that. */
const [WEIGHT, OUTLIER] = [0.3, 2];
/** Where drafting does not pay: number of steps after which it is tried again, doubled each time that it fails up to the most. */
const [WAIT, MOST_WAIT] = [16, 256];

export function draftLength(): DraftLength {
  let [accepted, rejected] = [PRIOR_ACCEPTED, PRIOR_REJECTED];
  let draft: number | undefined;
  const passes: (number | undefined)[] = [];
  let [wait, waited] = [WAIT, 0];
  const mean = (before: number | undefined, ms: number): number =>
    before === undefined ? ms : before + WEIGHT * (Math.min(ms, OUTLIER * before) - before);
  return {
    next(most) {
      const [, one] = passes;
      if (one === undefined) return 0;
      const times = { draft: draft ?? DRAFT_SHARE * one, pass: (rows: number) => passTime(passes, rows) };
      const best = bestDrafts(accepted / (accepted + rejected), times, Math.min(most, MOST_DRAFTS));
      if (best > 0) {
        [wait, waited] = [WAIT, 0];
        return best;
      }
      if (++waited < wait) return 0;
      [wait, waited] = [Math.min(2 * wait, MOST_WAIT), 0];
      return Math.min(most, 1);
    },
    drafted(tokens, ms) {
      draft = mean(draft, ms / tokens);
    },
    passed(rows, ms) {
      passes[rows] = mean(passes[rows], ms);
    },
    judged(isAccepted) {
      accepted = FADE * accepted + Number(isAccepted);
      rejected = FADE * rejected + Number(!isAccepted);
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
