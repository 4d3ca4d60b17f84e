// The scores of QuoTA: a question is decoupled into objects by the model, and each frame of a turn's films is scored by the probability with which
// the model, or a second one, says that it shows one of them.
// Source: QuoTA (Luo et al., arXiv 2503.08689); prompts of the frames as in MAC-AutoML/QuoTA `tools/qwen2vl_batch.py`.

import { received, SparseVilaError } from '../errors';
import type { ImageInput } from '../image/decode';
import type { VideoInput } from '../models/media';
import type { VisionLanguageModel } from '../models/model';
import { ANYTHING, type Check, checkOptions, checkValue, listOf, NAME, OBJECT, SIGNAL } from '../options';
import type { SparsityMethod } from '../sparsity/method';
import type { MethodEntry, MethodRatios } from '../sparsity/method_entry';
import { type QuotaOptions, quota } from '../sparsity/quota';
import { type AskOptions, checkAskOptions, mediaOf } from './options';
import { createSession } from './session';

export interface QuotaForOptions extends Omit<QuotaOptions, 'scores'> {
  /** The model that scores frames; default the one that answers. It needs to take pictures. */
  readonly judge?: VisionLanguageModel;
  /** The objects that the question is about; default: the answering model lists them. With none, a frame is scored by the question itself. */
  readonly objects?: readonly string[];
  readonly signal?: AbortSignal;
}

/** Most tokens of the answer that lists objects. */
const LIST_TOKENS = 256;

/**
 * QuoTA for one question about films: give the method to a session, and ask it this question with these media in its first turn. Costs an answer
 * of text and one prefill for each frame.
 * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_VIDEO` for a stream, which could not be read again for the answer; as `Session.ask`
 */
export async function quotaFor(
  model: VisionLanguageModel,
  question: string,
  media: Pick<AskOptions, 'images' | 'videos'>,
  options?: QuotaForOptions,
): Promise<SparsityMethod> {
  const { judge = model, objects, signal, ...method } = checkOptions<QuotaForOptions>('quotaFor', options, CHECKS);
  checkValue('quotaFor', 'question', question, NAME);
  const inputs = mediaOf(checkAskOptions(media));
  if (!inputs.some(({ kind }) => kind === 'video')) return quota(method);
  for (const input of inputs) if (input.kind === 'video') checkAgain(input.video);
  const about = objects ?? (await objectsOf(model, question, signal));
  const scores: (readonly number[] | undefined)[] = [];
  for (const input of inputs) {
    if (input.kind !== 'video') scores.push(undefined);
    else
      scores.push(
        await frameScores(judge, await framesOf(model, input.video, signal), framePrompt(question, about), signal),
      );
  }
  return quota({ ...method, scores });
}

/** The method of a row of the table for a question with media, with scores where the method takes them. */
export function methodFor(
  model: VisionLanguageModel,
  entry: MethodEntry,
  ratios: MethodRatios,
  turn: Pick<AskOptions, 'images' | 'videos'> & {
    readonly question: string;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<SparsityMethod> {
  if (entry.frameScores !== true) return Promise.resolve(entry.create(ratios));
  const { question, images = [], videos = [], signal } = turn;
  const { prefillSparsity, positions } = ratios;
  const options = { prefillSparsity, ...(positions && { positions }), ...(signal && { signal }) };
  return quotaFor(model, question, { images, videos }, options);
}

const OBJECTS: Check = listOf('names of objects', NAME);
const CHECKS = {
  ...{ judge: OBJECT, objects: OBJECTS, signal: SIGNAL },
  // `quota` checks these.
  ...{ prefillSparsity: ANYTHING, positions: ANYTHING },
};

/** Refuses frames that can be read only once. */
function checkAgain(video: VideoInput): void {
  const source: unknown = 'file' in video ? video.file : video.frames;
  if (typeof source !== 'object' || source === null || !(Symbol.asyncIterator in source)) return;
  throw new SparseVilaError(
    'ERR_VIDEO',
    `quotaFor: expected frames that can be read twice, for their scores and for the answer, received ${received(source)}. Collect them in a list.`,
  );
}

/** The frames of a video as the model draws them: of each one its first canvas. */
async function framesOf(
  model: VisionLanguageModel,
  video: VideoInput,
  signal: AbortSignal | undefined,
): Promise<ImageInput[]> {
  const frames: ImageInput[] = [];
  for (const { layout, canvases } of await model.prepare([{ kind: 'video', video }], signal))
    for (const [i, { frame }] of layout.canvases.entries()) {
      const canvas = canvases[i];
      if (canvas !== undefined) frames[frame] ??= { ...canvas, channels: 3 };
    }
  return frames;
}

/** Asks the model which objects have to be seen. */
async function objectsOf(
  model: VisionLanguageModel,
  question: string,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  using session = createSession(model);
  const request = `A video is asked about: "${question}"
Step 1: must physical things be seen to answer? yes or no.
Step 2: list what is asked about, as a JSON list of strings.
Step 3: keep of this list the physical things, as a JSON list of strings.
Answer in three lines that begin with "Step 1:", "Step 2:" and "Step 3:".`;
  const answer = session.ask(request, { temperature: 0, maxTokens: LIST_TOKENS, ...(signal && { signal }) });
  return objectsIn(await answer.text());
}

/** The objects of an answer in three steps; none if its form is another, or no objects are needed. */
export function objectsIn(answer: string): string[] {
  const text = answer.toLowerCase();
  if (/step 1:\s*(yes|no)/.exec(text)?.[1] !== 'yes') return [];
  try {
    const list: unknown = JSON.parse(/step 3:\s*(\[[^\]]*\])/.exec(text)?.[1] ?? '[]');
    return Array.isArray(list) ? list.filter((name): name is string => typeof name === 'string' && name !== '') : [];
  } catch {
    return [];
  }
}

/** The question about one frame. */
export function framePrompt(question: string, objects: readonly string[]): string {
  const asked =
    objects.length > 0
      ? `Does the image contain any object of ${objects.join(', ')}?`
      : `${question}\nDoes the image contain sufficient information to answer the given question?`;
  return `${asked} A. yes, B. no\nAnswer with the option's letter directly.`;
}

/** Of each frame the probability of "A" as the first token of the answer, of the softmax of the raw logits. */
export async function frameScores(
  judge: VisionLanguageModel,
  frames: readonly ImageInput[],
  request: string,
  signal: AbortSignal | undefined,
): Promise<number[]> {
  const letter = judge.tokenizer.encode('A').at(-1) as number;
  const scores: number[] = [];
  for (const frame of frames) {
    using session = createSession(judge);
    // The bias makes "A" the answer, and the reported probability is that without it.
    const forced = { temperature: 0, maxTokens: 1, logprobs: 0, logitBias: { [letter]: 100 } };
    const answer = session.ask(request, { ...forced, images: [frame], ...(signal && { signal }) });
    await answer;
    const first = answer.stats?.logprobs?.[0];
    scores.push(first?.id === letter ? Math.exp(first.logprob) : 0);
  }
  return scores;
}
