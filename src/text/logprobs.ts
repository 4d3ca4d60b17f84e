// Log-probabilities of tokens, as OpenAI's and vLLM's APIs report them: of the softmax of the raw logits, before bias, penalty, temperature and
// any constraint.
import type { TokenBytes } from './detokenize';

/** A token and its natural log-probability. */
export interface RankedToken {
  readonly id: number;
  /** Its bytes as text; U+FFFD where they are not whole characters. */
  readonly text: string;
  readonly bytes: readonly number[];
  readonly logprob: number;
}

/** A token of an answer, and the most probable tokens in its place, highest first, lower id first on ties. */
export interface TokenLogprob extends RankedToken {
  readonly top: readonly RankedToken[];
}

/** The log-probabilities of `id` and of the `count` most probable tokens by finite logits, f32 [vocabulary]. Sums in double precision. */
export function logprobsOf(logits: Float32Array, id: number, count: number, vocabulary: TokenBytes): TokenLogprob {
  const top = highest(logits, Math.max(1, count));
  const most = logits[top[0] ?? id] ?? 0;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - most);
  const total = Math.log(sum);
  const ranked = (token: number): RankedToken => {
    const bytes = vocabulary.bytesOf(token);
    const logprob = (logits[token] ?? Number.NEGATIVE_INFINITY) - most - total;
    return { id: token, text: Buffer.from(bytes).toString('utf8'), bytes: Array.from(bytes), logprob };
  };
  return { ...ranked(id), top: top.slice(0, count).map(ranked) };
}

/** The ids of the `count` highest logits, highest first, lower id first on ties. For small counts: an insertion into a sorted list. */
function highest(logits: Float32Array, count: number): number[] {
  const ids: number[] = [];
  let least = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id] ?? Number.NaN;
    if (ids.length === count && !(logit > least)) continue;
    let at = ids.length;
    while (at > 0 && (logits[ids[at - 1] ?? 0] ?? 0) < logit) at--;
    ids.splice(at, 0, id);
    if (ids.length > count) ids.pop();
    least = logits[ids.at(-1) ?? 0] ?? 0;
  }
  return ids;
}
