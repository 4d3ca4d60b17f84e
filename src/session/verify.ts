// Lossless decoding: tokens are drafted on the turn's view, or looked up in the conversation, and verified in one dense pass over everything that the cache holds. A row of a pass
// has the bits that it has alone, and every token of the answer is chosen from the scores of a dense pass, by the same choices in the same order
// as without drafts. The answer is therefore that of dense decoding token for token, also when tokens are drawn: a draft is drawn with the random
// number of its place, so that it mostly is the token that the dense scores give for that number. The rejection rule of speculative sampling
// accepts somewhat more, but keeps only the distribution of the answer and not the answer of a seed.
// Source: the idea is that of Sparse-to-Dense, arXiv 2505.19155.

import { SparseVilaError } from '../errors';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { Chooser } from './choose';
import { type Conversation, lengthOf } from './conversation';
import { type DraftLength, type DraftSource, draftLength, MOST_DRAFTS } from './draft_length';
import { lookUp } from './look_up';
import { count, runRows, type StepContext, type Steps, type StepView } from './steps';

export interface VerifyOptions {
  /** Whether a token ends the answer. */
  readonly isEnd: (id: number) => boolean;
  /** What to draft. */
  readonly lengths?: DraftLength;
  /** Drafts without decoder steps after given ids, at most so many; for benchmarks with a given acceptance. */
  readonly found?: typeof lookUp;
  /** Replaces a drafted token, whose item in the conversation would be the i-th; for tests and benchmarks with a given acceptance. */
  readonly replace?: ((id: number, i: number) => number) | undefined;
}

/** A dense pass whose rows are in the cache, of which the conversation counts the first `taken`. */
interface Pass {
  readonly ids: readonly number[];
  /** The tokens drafted after each row, and how. */
  readonly drafts: readonly number[];
  readonly source: DraftSource;
  /** f32 [rows, v] */
  readonly scores: Tensor;
  /** Position of the first row. */
  readonly position: number;
  /** The point at which the states before the first row are saved, and whether it was made for this pass. */
  readonly point: number;
  readonly isOwnPoint: boolean;
  taken: number;
}

/** Steps whose scores are those of dense decoding. `view`: what drafts attend. */
export function verifiedSteps(context: StepContext, view: StepView, choices: Chooser, options: VerifyOptions): Steps {
  const { conversation, pace } = context;
  const { cache } = conversation;
  const { lengths = draftLength(), found = lookUp } = options;
  let pass: Pass | undefined;
  let drafted = 0;

  /** Counts the next row of the pass; returns its scores. */
  const take = (own: Pass): Tensor => {
    count(conversation, own.ids[own.taken] as number);
    const [n, width] = own.scores.shape as [number, number];
    const row = own.taken++;
    view.ran(1);
    return n === 1 ? own.scores.clone() : start().tf.slice(own.scores, [row, 0], [1, width]);
  };
  const settle = async (): Promise<void> => {
    const own = pass;
    free();
    if (own !== undefined) await settlePass(context, own);
  };
  const free = (): void => {
    pass?.scores.dispose();
    pass = undefined;
  };
  const judge = (source: DraftSource, isAccepted: boolean): void => {
    lengths.judged(source, isAccepted);
    if (source === 'view') view.judged(isAccepted);
  };
  /** Drafts what may follow `id`, and runs both over everything. */
  const run = async (id: number, more: number): Promise<Pass> => {
    const room = cache.limit - Math.max(conversation.nextPosition, lengthOf(conversation)) - 1;
    const most = Math.max(0, Math.min(more - 1, room));
    const known = upToEnd(found(conversation.ids, Math.min(most, MOST_DRAFTS)), options.isEnd);
    const { source, tokens } = lengths.next({ view: view.layers === undefined ? 0 : most, lookup: known.length });
    const [point, position] = [conversation.items.length, conversation.nextPosition];
    const isOwnPoint = tokens > 0 && cache.hasStates && !cache.points.includes(point);
    if (isOwnPoint) cache.save(point);
    const begin = performance.now();
    const isDecoded = source === 'view' && tokens > 0;
    const drafts = isDecoded
      ? await draftAfter(id, tokens, { context, view, choices, options })
      : known.slice(0, tokens);
    if (isDecoded) cache.truncate(counted(conversation), point);
    const middle = performance.now();
    // Nothing follows a token that ends the answer.
    const inner = drafts.length > 0 && options.isEnd(drafts.at(-1) as number) ? drafts.slice(0, -1) : drafts;
    const ids = [id, ...inner];
    const scores = await (view.isDue ? view.renew(ids, position) : runRows(context, ids, position, undefined));
    if (isDecoded && drafts.length > 0) lengths.drafted(drafts.length, middle - begin);
    lengths.passed(ids.length, performance.now() - middle);
    drafted += drafts.length;
    return { ids, drafts, source, scores, position, point, isOwnPoint, taken: 0 };
  };
  return {
    async next(id, more) {
      const expected = pass?.drafts[pass.taken - 1];
      if (pass !== undefined && expected !== undefined) judge(pass.source, expected === id);
      if (pass !== undefined && expected === id && pass.taken < pass.ids.length) {
        await pace();
        return take(pass);
      }
      await settle();
      pass = await run(id, more);
      return take(pass);
    },
    get draft() {
      return pass?.drafts[pass.taken - 1];
    },
    get drafted() {
      return drafted;
    },
    end: settle,
    dispose: free,
  };
}

/** The tokens that the view gives after `id`. The caller removes their rows. */
async function draftAfter(
  id: number,
  most: number,
  {
    context,
    view,
    choices,
    options: { isEnd, replace = (chosen) => chosen },
  }: { context: StepContext; view: StepView; choices: Chooser; options: VerifyOptions },
): Promise<number[]> {
  const { conversation } = context;
  const ahead = choices.ahead();
  const history = [...conversation.ids];
  const drafts: number[] = [];
  for (let last = id; drafts.length < most; ) {
    const scores = await runRows(context, [last], conversation.nextPosition + drafts.length, view.layers);
    try {
      const chosen = chosenOr(() => ahead.choose(scores, history).id);
      if (chosen === undefined) break;
      last = replace(chosen, conversation.items.length + drafts.length);
    } finally {
      scores.dispose();
    }
    drafts.push(last);
    history.push(last);
    if (isEnd(last) || ahead.isOver) break;
  }
  return drafts;
}

/** Removes the rows that are not counted. States cannot lose rows: they go back to before the pass, and its counted rows run again. */
async function settlePass(context: StepContext, { ids, taken, position, point, isOwnPoint }: Pass): Promise<void> {
  const { conversation } = context;
  const { cache } = conversation;
  if (taken < ids.length && cache.hasStates) {
    cache.truncate(counted(conversation, taken), point);
    (await runRows({ ...context, pace: noPace }, ids.slice(0, taken), position, undefined)).dispose();
  } else if (taken < ids.length) cache.truncate(counted(conversation));
  if (isOwnPoint) cache.forget((one) => one === point);
}

/** The tokens up to the first that ends the answer. */
function upToEnd(ids: readonly number[], isEnd: (id: number) => boolean): readonly number[] {
  const end = ids.findIndex(isEnd);
  return end < 0 ? ids : ids.slice(0, end + 1);
}

/** Per layer, the number of rows that the conversation counts, without the last ones. */
const counted = ({ layers }: Conversation, last = 0): number[] => layers.map(({ length }) => length - last);

const noPace = async (): Promise<void> => undefined;

/** The result of `choose`; undefined if nothing can be chosen. A draft may lead where the dense answer never goes. */
function chosenOr(choose: () => number): number | undefined {
  try {
    return choose();
  } catch (error) {
    if (error instanceof SparseVilaError) return undefined;
    throw error;
  }
}
