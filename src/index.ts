/// <reference types="node" preserve="true" />
// The public API.

import { type CachedWeights, clearPacked, listPacked } from './checkpoint/packed_store';
import { convert as convertFolder } from './convert/convert';
import { type CountOptions, countContent } from './engine/count';
import type { Engine, TokenCounts } from './engine/types';
import { coded } from './errors';
import type { Removed, StoredModel } from './hub/stored';
import { openQueue as openJobQueue } from './jobs/queue';
import { openWorker as openJobWorker } from './jobs/worker';
import {
  type DownloadOptions,
  type DownloadResult,
  download as downloadModel,
  inspectByName,
  list as listModels,
  loadByName,
  type RemoveOptions,
  remove as removeModel,
} from './models/by_name';
import type { Inspection, InspectOptions } from './models/inspect';
import type { FilmFile } from './models/media';
import type { LoadOptions, VisionLanguageModel } from './models/model';
import { signalOf, withCodes } from './options';
import { quantize as quantizeFolder } from './quantize/quantize';
import { type SetupOptions, type SetupResult, setup as setUp } from './runtime/setup';
import type { Server, ServerOptions } from './server/server';
import { type EmbedOptions, embed } from './session/embed';
import { type FilmFrames, type FilmFramesOptions, filmFrames } from './session/film_frames';
import { quotaFor as quotaOf } from './session/quota_scores';
import {
  createSession,
  type Part,
  type RestoreOptions,
  restoreSession,
  type Session,
  type SessionOptions,
} from './session/session';
import { tokenize } from './text/tokenize';

export type { CachedWeights } from './checkpoint/packed_store';
export type { ConvertOptions, ConvertResult } from './convert/convert';
export type { PlaneCells, TurnCells } from './engine/cells';
export type { CountOptions } from './engine/count';
export { openEngine } from './engine/engine';
export type {
  CountRequest,
  Engine,
  EngineEvent,
  EngineModel,
  EngineOptions,
  EngineRequest,
  EngineStats,
  PromptTokens,
  RequestTimes,
  RunOptions,
  SparsityRequest,
  TokenCounts,
  Usage,
} from './engine/types';
export { type ErrorCode, SparseVilaError } from './errors';
export { type DataSet, readDataSet, scenesSet, type TrueConversation, type TrueTurn } from './evaluate/data_set';
export { type EvaluateOptions, evaluate } from './evaluate/evaluate';
export { SCORES, type Score, type ScoreName } from './evaluate/scores';
export type { Setting } from './evaluate/settings';
export type { MethodSummary } from './evaluate/summary';
export { type Goal, type Tuned, type TuneOptions, tune } from './evaluate/tune';
export { type ExplainedTurn, type ExplainedVideo, type ExplainOptions, explain } from './explain/explain';
export type { AnswerFormat } from './grammar/constraint';
export type { Removed, StoredModel, StoredRevision } from './hub/stored';
export type { CellGeometry } from './image/cells';
export type { ImageInput, RawPixels } from './image/decode';
export type { BatchOptions, BatchResult } from './jobs/batch';
export { runBatch } from './jobs/batch';
export { engineRunner, type Job, type JobProgress, type JobResult, type JobRunner } from './jobs/job';
export { type JobFile, readJobs } from './jobs/job_file';
export type { EnqueueOptions, JobQueue, QueueOptions } from './jobs/queue';
export type { JobWorker, WorkerOptions } from './jobs/worker';
export type { DownloadOptions, DownloadResult, RemoveOptions } from './models/by_name';
export type { Decoder } from './models/decoder';
export type { Inspection, InspectOptions, PartInspection, Problem } from './models/inspect';
export type {
  FilmFile,
  FrameList,
  FrameStream,
  FrameTimes,
  Grid,
  MediaInput,
  MediumLayout,
  PreparedMedium,
  Run,
  VideoInput,
} from './models/media';
export type { EncodedMedium, EncodeOptions, LoadOptions, VisionLanguageModel } from './models/model';
export type { Plan } from './models/plan';
export type { QuantizeOptions, QuantizeResult } from './quantize/quantize';
export { diagnose, type Report } from './runtime/doctor';
export { PACKAGED_FILM, PACKAGED_FILM_MODEL, PACKAGED_MODEL, PACKAGED_PICTURE } from './runtime/paths';
export type { SetupOptions, SetupResult } from './runtime/setup';
export type { Server, ServerLimits, ServerOptions } from './server/server';
export type { Mark } from './session/conversation';
export type { EmbedOptions } from './session/embed';
export type { FilmFrames, FilmFramesOptions } from './session/film_frames';
export type { QuotaForOptions } from './session/quota_scores';
export type {
  Answer,
  AskOptions,
  ChatMessage,
  FinishReason,
  Part,
  Piece,
  RestoreOptions,
  Session,
  SessionOptions,
  TurnStats,
} from './session/session';
export type { StageTimes } from './session/times';
export { type CdPrunerOptions, cdPruner } from './sparsity/cd_pruner';
export { compose } from './sparsity/compose';
export { type DartOptions, dart } from './sparsity/dart';
export { dense } from './sparsity/dense';
export { type DivPruneOptions, divPrune } from './sparsity/div_prune';
export { type DownsampleOptions, downsample } from './sparsity/downsample';
export { type EvsOptions, evs } from './sparsity/evs';
export { type FastVOptions, fastV } from './sparsity/fast_v';
export { type HiPruneOptions, hiPrune } from './sparsity/hi_prune';
export { type HoloVOptions, holoV } from './sparsity/holo_v';
export { type InfiniPotVOptions, infiniPotV } from './sparsity/infini_pot_v';
export type {
  Bound,
  BoundView,
  Drop,
  DropView,
  Encode,
  FramePlace,
  Matrix,
  PixelView,
  Prune,
  Refresh,
  Retrieve,
  Reuse,
  ReuseView,
  Selection,
  SparsityMethod,
  TowerView,
  VisualPlace,
} from './sparsity/method';
export { METHODS, type MethodEntry, type MethodRatios } from './sparsity/methods';
export { type MmTokOptions, mmTok } from './sparsity/mm_tok';
export { type LayerRelevance, type Observed, observed } from './sparsity/observed';
export { type PixelPruneOptions, pixelPrune } from './sparsity/pixel_prune';
export { perPlane } from './sparsity/planes';
export { type PruMergeOptions, pruMerge, pruMergePlus } from './sparsity/pru_merge';
export { type PyramidDropOptions, pyramidDrop } from './sparsity/pyramid_drop';
export { type QuestOptions, quest } from './sparsity/quest';
export { type QuotaOptions, quota } from './sparsity/quota';
export { type RandomOptions, random } from './sparsity/random';
export { type RandomDeepOptions, randomDeep } from './sparsity/random_deep';
export { type ReKvOptions, reKv } from './sparsity/re_kv';
export { refreshed } from './sparsity/refreshed';
export { type Schedule, scheduled } from './sparsity/schedule';
export { type SnapKvOptions, snapKv } from './sparsity/snap_kv';
export { SPARSE_VILA_PRESETS, type SparseVilaOptions, sparseVila } from './sparsity/sparse_vila';
export { type SparseVlmOptions, sparseVlm, sparseVlmPlus } from './sparsity/sparse_vlm';
export { type StcCacherOptions, stcCacher } from './sparsity/stc_cacher';
export { type StormOptions, storm } from './sparsity/storm';
export { budget, topK } from './sparsity/top_k';
export { type UniformOptions, uniform } from './sparsity/uniform';
export { type VCastOptions, vCast } from './sparsity/v_cast';
export { type VScanOptions, vScan } from './sparsity/v_scan';
export { type VidCom2Options, vidCom2 } from './sparsity/vid_com2';
export { type VideoScanOptions, videoScan } from './sparsity/video_scan';
export { type VisionZipOptions, visionZip } from './sparsity/vision_zip';
export type { RankedToken, TokenLogprob } from './text/logprobs';
export type { SamplingOptions } from './text/sampling';
export type { ChatTemplate } from './text/template';
export type { Tokenizer } from './text/tokenizer';

/** Prepares this machine; does nothing if everything is installed. See `SetupOptions`. */
export const setup: (options?: SetupOptions) => Promise<SetupResult> = withCodes(setUp);

/** Quantizes a checkpoint folder into a new one, as `sparsevila quantize` does. After an abort, the same call continues. */
export const quantize = withCodes(quantizeFolder);

/** Converts a checkpoint folder into a new one, as `sparsevila convert` does. After an abort, the same call continues. */
export const convert = withCodes(convertFolder);

/**
 * Describes a checkpoint folder from its config files and safetensors headers, as `sparsevila inspect` does; needs no engine. Of a model on the Hub
 * (`owner/name`) no more than these is fetched.
 * @throws SparseVilaError as `load` for an unsupported model; errors of its tensors are in `problems`
 */
export const inspect: (path: string, options?: InspectOptions) => Promise<Inspection> = withCodes(inspectByName);

/**
 * Downloads a model of the Hub by name (`owner/name`, `owner/name@revision`) into the cache of Hugging Face's tools, as `sparsevila download` does:
 * only the files that are read here, those that are new on the Hub. Stopped, the same call continues.
 * @throws SparseVilaError `ERR_HUB_…`, `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE`; `ERR_MODEL_TYPE`, `ERR_CONFIG_…`, `ERR_CHECKPOINT_MISSING` for what
 *   cannot be loaded, before its weights are fetched; `signal.reason`
 */
export const download: (name: string, options?: DownloadOptions) => Promise<DownloadResult> = withCodes(downloadModel);

/** The models in the cache, downloaded by any tool. @throws SparseVilaError `ERR_HUB_SETTINGS` */
export const list: () => Promise<StoredModel[]> = withCodes(listModels);

/**
 * Removes a model from the cache, or one revision of it with the files that no other revision has.
 * @throws SparseVilaError `ERR_MODEL_MISSING`; `ERR_BUSY` while it is downloaded; `ERR_OUTPUT_UNWRITABLE`
 */
export const remove: (name: string, options?: RemoveOptions) => Promise<Removed> = withCodes(removeModel);

/** The models whose packed weights are in the cache folder, the least recently used first. */
export const weightCache: () => CachedWeights[] = () => listPacked();

/** Removes packed weights from the cache folder and returns the bytes that they took; loaded models keep theirs. */
export const clearWeightCache: () => number = () => clearPacked();

/** Connects to a queue of jobs for one model, on Redis or Postgres; results are stored there for a week. See `QueueOptions`. */
export const openQueue = withCodes(openJobQueue);

/** Takes jobs of a queue and runs them, such as on `engineRunner(await openEngine(…))`, until it is closed. See `WorkerOptions`. */
export const openWorker = withCodes(openJobWorker);
/**
 * Serves an engine over HTTP with OpenAI's API, as `sparsevila serve` does: docs/server.md.
 * @example
 * const engine = await openEngine(PACKAGED_MODEL);
 * const server = await serve(engine, { port: 8000 });
 * // … later: running answers are finished first
 * await server.close();
 * await engine.close();
 * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_LISTEN`
 */
export const serve: (engine: Engine, options?: ServerOptions) => Promise<Server> = withCodes(
  // Loaded here, because most programs serve nothing.
  async (engine: Engine, options?: ServerOptions) => (await import('./server/server.js')).serve(engine, options),
);

/**
 * QuoTA for one question about films: the model, or a `judge`, scores every frame, and frames of higher scores get more tokens. Give the method to a
 * session, and ask it this question with these media first.
 * @throws SparseVilaError as `Session.ask`; `ERR_VIDEO` for a stream of frames
 */
export const quotaFor = withCodes(quotaOf);

/** A loaded model. */
export interface Model extends VisionLanguageModel {
  /** Opens a conversation. Sessions share the weights; each has its own KV cache. */
  session(options?: SessionOptions): Session;
  /**
   * Continues a conversation that `save` of a session wrote, with its pictures and without a prefill. The method has to be the one that it was
   * saved with.
   * @throws SparseVilaError `ERR_SAVED_INVALID`, `ERR_SAVED_MODEL`, `ERR_FILE_…`, `ERR_CONTEXT_OVERFLOW`; `signal.reason`
   */
  restore(file: string, options?: RestoreOptions): Promise<Session>;
  /**
   * Counts the tokens of a first question, in the chat template, without the vision tower: of text, and visual ones before and after a method of
   * `METHODS` has pruned them. Pictures are decoded.
   * @throws SparseVilaError as `Session.ask`; `signal.reason`
   */
  countTokens(content: string | readonly Part[], options?: CountOptions): Promise<TokenCounts>;
  /** The ids of a text and the text of each, without a template. @throws SparseVilaError `ERR_TOKENIZER` */
  tokenize(text: string): { readonly id: number; readonly text: string }[];
  /** The vector of a text, a picture or several: see `embed` of docs/configuration.md. @throws SparseVilaError as `Session.ask` */
  embed(content: string | readonly Part[], options?: EmbedOptions): Promise<Float32Array>;
  /**
   * Finds the frames of a film file that the model looks at, as `ask` does, to be shown or to be explained; decodes none.
   * @throws SparseVilaError `ERR_VIDEO_…`, `ERR_OPTION_INVALID`; `signal.reason`
   */
  frames(film: FilmFile, options?: FilmFramesOptions): Promise<FilmFrames>;
  [Symbol.dispose](): void;
}

/**
 * Loads a checkpoint folder, or a model of the Hub by name (`owner/name`, `owner/name@revision`). A folder that exists comes before a name; a
 * model that is whole in the cache is loaded without a request.
 * @example
 * const vlm = await load(PACKAGED_MODEL);
 * const chat = vlm.session({ method: sparseVila() });
 * for await (const text of chat.ask('Where is the yellow 2?', { images: [PACKAGED_PICTURE] })) process.stdout.write(text);
 * chat.dispose();
 * vlm.dispose();
 * @throws SparseVilaError `ERR_NOT_SET_UP` before `npx sparsevila setup` has run; `ERR_MODEL_…`, `ERR_CONFIG_…`,
 *   `ERR_CHECKPOINT_…`, `ERR_WEIGHT_…`, `ERR_TOKENIZER_…`, `ERR_TEMPLATE_…` naming the file and what was expected;
 *   for a name `ERR_HUB_…`, `ERR_DISK_FULL` and what `download` throws
 */
export async function load(path: string, options?: LoadOptions): Promise<Model> {
  try {
    const model = await loadByName(path, options);
    return {
      ...model,
      session: (sessionOptions) => createSession(model, sessionOptions),
      restore: (file, options) => restoreSession(model, file, options),
      countTokens: withCodes((content, given) => countContent(model, content, given)),
      tokenize: (text) => tokenize(model, text),
      embed: withCodes((content, given) => embed(model, content, given)),
      frames: withCodes((film, given) => filmFrames(model, film, given)),
      [Symbol.dispose]: () => model.dispose(),
    };
  } catch (error) {
    throw coded(error, signalOf(options));
  }
}
