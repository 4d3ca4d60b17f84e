// Options of sessions and questions, and their validation.

import { received, SparseVilaError } from '../errors';
import { type AnswerFormat, checkFormat } from '../grammar/constraint';
import type { ImageInput } from '../image/decode';
import type { DecoderConfig } from '../models/config';
import type { MediaInput, VideoInput } from '../models/media';
import type { KvType } from '../ops/kv_cache';
import {
  ANYTHING,
  type Checks,
  COUNT,
  checkOptions,
  integer,
  invalidOption,
  listOf,
  NAME,
  OBJECT,
  oneOf,
  SIGNAL,
  TEXT,
} from '../options';
import { checkedMethod } from '../sparsity/checked';
import { dense } from '../sparsity/dense';
import type { SparsityMethod } from '../sparsity/method';
import type { SamplingOptions } from '../text/sampling';
import { dropStarts } from './drop';
import { copyOfVideo, VIDEO } from './videos';

/** What of a turn stays in the cache for the next one: 'keep', its text and media; 'forget', only its media. */
export type History = 'keep' | 'forget';

export interface SessionOptions {
  /** Default: dense. */
  readonly method?: SparsityMethod;
  /** Data type of keys and values in the cache; default bf16. */
  readonly kv?: KvType;
  /** Most rows that the cache may hold; default the model's `max_position_embeddings`, at most 32,768. Memory is taken as rows are written. */
  readonly contextLength?: number;
  /**
   * Bytes of the KV cache that stay in memory, for films: rows of frames that were not attended lately lie in a temporary file, and return when a
   * question chooses them. Needs a method with `retrieve.frames` and `retrieve.localFrames`, such as `reKv({ localFrames: 32 })`. At
   * least what one question attends stays in memory, however small the budget. Default: everything.
   */
  readonly kvBudget?: number;
  /** Default 'keep'. */
  readonly history?: History;
  /** System message. Refused if the chat template has no place for one. */
  readonly system?: string;
}

/** A part of a question: text, an image or a video. */
export type Part = string | MediaInput;

export interface AskOptions extends SamplingOptions {
  /** Images that this turn adds before its text. */
  readonly images?: readonly ImageInput[];
  /** Videos that this turn adds after its images, each a list of frames. */
  readonly videos?: readonly VideoInput[];
  /** Maximum number of answer tokens. Default from generation_config.json. */
  readonly maxTokens?: number;
  /** Strings at which the answer ends; they are not part of it. */
  readonly stop?: readonly string[];
  /** Reports the log-probability of each token and of this many most probable ones, of the softmax of the raw logits: `answer.pieces()`, `stats.logprobs`. */
  readonly logprobs?: number;
  /** Numbers from -100 to 100 that are added to the logits of these token ids. */
  readonly logitBias?: Readonly<Record<number, number>>;
  /** Holds the answer to JSON, or to a JSON schema: tokens that would break it are not drawn. Cut by `maxTokens`, it is incomplete. */
  readonly format?: AnswerFormat;
  readonly signal?: AbortSignal;
  /** Overrides the session's `history` for this turn. */
  readonly history?: History;
  /**
   * 'dense': the answer is that of dense decoding over everything that the cache still holds, token for token. What the method retrieves is used to
   * draft tokens, which a dense pass verifies. What `prune`, `drop` and a permanent `retrieve` have discarded stays discarded.
   */
  readonly verify?: 'dense';
}

const SAMPLING_KEYS = ['temperature', 'topK', 'topP', 'repetitionPenalty', 'seed'] as const;
const MOST_LOGPROBS = 100;
const HISTORY = oneOf('keep', 'forget');

/** The names of the sampling options. The sampler checks their values, together with the checkpoint's defaults. */
const SAMPLING = Object.fromEntries(SAMPLING_KEYS.map((key) => [key, ANYTHING])) as Checks<SamplingOptions>;

const ASK: Checks<AskOptions> = {
  images: listOf('images', ANYTHING),
  videos: listOf('videos, each { frames: [images] } or { file: path } with valid options,', VIDEO),
  maxTokens: COUNT,
  stop: listOf('strings of at least one character', NAME),
  logprobs: integer(0, MOST_LOGPROBS),
  logitBias: OBJECT,
  format: OBJECT,
  signal: SIGNAL,
  history: HISTORY,
  verify: oneOf('dense'),
  ...SAMPLING,
};

/** The media that a turn adds, images first. */
export function mediaOf({ images = [], videos = [] }: AskOptions): MediaInput[] {
  return [
    ...images.map((image) => ({ kind: 'image' as const, image })),
    ...videos.map((video) => ({ kind: 'video' as const, video })),
  ];
}

/** The sampling options among those of a question. */
export function samplingOf(options: AskOptions): SamplingOptions {
  const given = SAMPLING_KEYS.filter((key) => options[key] !== undefined);
  return Object.fromEntries(given.map((key) => [key, options[key]]));
}

/** Checks and copies session options; `checked` is the method with validation around it. @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_METHOD` */
export function checkSessionOptions(options: SessionOptions | undefined, { maxPositions, layers }: DecoderConfig) {
  const given = checkOptions<SessionOptions>('session', options, {
    method: { ...OBJECT, expected: 'a sparsity method, such as dense() or sparseVila(),' },
    kv: oneOf('bf16', 'f32'),
    contextLength: {
      ...integer(2, maxPositions),
      expected: `an integer from 2 to ${maxPositions} (the model's maximum)`,
    },
    kvBudget: COUNT,
    history: HISTORY,
    system: TEXT,
  });
  const { method = dense() } = given;
  const checked = checkedMethod(method);
  dropStarts(checked, layers);
  const { frames, localFrames } = checked.retrieve ?? {};
  if (given.kvBudget !== undefined && (frames === undefined || localFrames === undefined))
    throw invalidOption(
      'session',
      'a method with retrieve.frames and retrieve.localFrames for kvBudget, such as reKv({ localFrames: 32 })',
      received(method.name),
    );
  return { ...given, method, checked };
}

/** Checks and copies the options of a question to a model with this vocabulary, if it is known. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function checkAskOptions(
  options: AskOptions | undefined,
  { vocabSize }: Pick<DecoderConfig, 'vocabSize'> = { vocabSize: Number.POSITIVE_INFINITY },
): AskOptions {
  const { images, videos, stop, logitBias, format, ...given } = checkOptions('ask', options, ASK);
  const videoCopies = videos && Array.from(videos, copyOfVideo);
  const lists = { ...(images && { images: Array.from(images) }), ...(videoCopies && { videos: videoCopies }) };
  const bias = logitBias && { logitBias: checkBias(logitBias, vocabSize) };
  const checkedFormat = format && { format: checkFormat(format) };
  return { ...given, ...lists, ...bias, ...checkedFormat, ...(stop && { stop: Array.from(stop) }) };
}

/** A question over chosen frames has rows of its own, so that its answer cannot be that of dense decoding. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function checkVerified(
  call: string,
  { name, retrieve }: SparsityMethod,
  { verify }: Pick<AskOptions, 'verify'>,
): void {
  if (verify !== undefined && retrieve?.frames !== undefined)
    throw invalidOption(call, 'a method without retrieve.frames for verify', received(name));
}

/** A checked copy of a bias. @throws SparseVilaError `ERR_OPTION_INVALID` */
function checkBias(bias: Readonly<Record<number, number>>, vocabSize: number): Readonly<Record<number, number>> {
  let entries: [string, unknown][];
  try {
    entries = Object.entries(bias);
  } catch {
    throw invalidOption('ask', 'an object of numbers by token id for logitBias', 'one that cannot be read');
  }
  for (const [id, value] of entries) {
    if (!/^(0|[1-9]\d*)$/.test(id) || Number(id) >= vocabSize)
      throw invalidOption('ask', `token ids from 0 to ${vocabSize - 1} in logitBias`, received(id));
    if (typeof value !== 'number' || !(Math.abs(value) <= 100))
      throw invalidOption('ask', `a number from -100 to 100 for id ${id} of logitBias`, received(value));
  }
  return Object.fromEntries(entries) as Record<number, number>;
}

const PARTS = 'a text, { kind: "image", image } or { kind: "video", video }';

/** A copy of a part, each of its fields read once; undefined if it is not a valid part. */
function partOf(value: unknown): Part | undefined {
  if (typeof value === 'string') return value;
  if (!OBJECT.accepts(value)) return undefined;
  const { kind, image, video } = value as { kind?: unknown; image?: unknown; video?: unknown };
  if (kind === 'image' && image !== undefined) return { kind, image: image as ImageInput };
  return kind === 'video' && VIDEO.accepts(video) ? { kind, video: copyOfVideo(video as VideoInput) } : undefined;
}

/** Copies of the parts of a question or message; undefined if it is neither text nor a list of parts. */
function partsOf(content: unknown): Part[] | undefined {
  if (typeof content === 'string') return [content];
  try {
    if (!Array.isArray(content)) return undefined;
    const parts = Array.from(content as unknown[], partOf);
    return parts.some((part) => part === undefined) ? undefined : (parts as Part[]);
  } catch {
    // A getter or proxy threw.
    return undefined;
  }
}

/** A question as parts, with the media of its options. @throws SparseVilaError `ERR_QUESTION` if it is neither text nor a list of parts */
export function questionOf(question: unknown, options: AskOptions): { parts: Part[]; media: MediaInput[] } {
  const parts = partsOf(question);
  if (parts === undefined) {
    throw new SparseVilaError(
      'ERR_QUESTION',
      `Expected a question of at least one character, or a list of parts (${PARTS}), received ${received(question)}.`,
    );
  }
  return { parts, media: [...mediaOf(options), ...parts.filter((part) => typeof part !== 'string')] };
}
