// The error class of the package, its codes with their meaning, and the safe display of values in messages.
// docs/errors.md is generated from ERROR_CODES: `npm run build && node dist/scripts/errors.js`.

import { inspect, types } from 'node:util';

/** Every code, what it means and what to do. Messages may change between versions; codes do not. */
export const ERROR_CODES = {
  // Options and their order.
  ERR_OPTION_INVALID:
    'An option or argument is unknown or has a value that is not allowed. Change it as the message says.',
  ERR_OPTION_MISSING: 'A required option is missing. Add it.',
  ERR_QUESTION: 'A question is empty, is not text, or contains control tokens of the model. Reword it.',
  ERR_BUSY: 'Something else is still using the session, model or folder. Wait for it, abort it, or use another one.',
  ERR_DISPOSED: 'The session or model has been disposed of. Open a new session, or load the model again.',
  ERR_SAVED_INVALID: 'A saved conversation is damaged, or another version of the package saved it. Save it again.',
  ERR_SAVED_MODEL: 'A saved conversation is of another model or method. Load the one that the message names.',
  ERR_MARK: 'A mark was not made by this session, or the session was rewound to an earlier point. Take a new mark.',
  ERR_CONTEXT_OVERFLOW: 'The turn does not fit into the context. Rewind, ask in a new session, or raise contextLength.',
  ERR_OUT_OF_MEMORY: 'The machine has less memory than the call needs. Lower contextLength or use a smaller model.',
  ERR_CALLBACK: 'A function that was given as an option threw an error, which is the cause. Correct that function.',
  ERR_INTERNAL: 'An unexpected failure of the package; the cause has the details. Report it with the cause.',

  // Engines.
  ERR_ENGINE_FULL: 'As many requests as an engine accepts are answered and wait. Try again later, or raise maxWaiting.',
  ERR_ENGINE_ENDED: 'The thread of an engine ended unexpectedly, and with it all requests. Open the engine again.',

  // Sparsity methods.
  ERR_METHOD: 'A sparsity method is malformed or threw an error, which is the cause. Correct the method.',
  ERR_METHOD_UNSUPPORTED:
    "A sparsity method leaves tokens out before the tower, which the model's family cannot do for this medium. Use another method.",
  ERR_SCORES: 'A score by which tokens are ranked is not a number. Correct the method that computed it.',
  ERR_SELECTION: 'A method returned a selection of tokens that does not fit its input. Correct the method.',

  // Images.
  ERR_IMAGE_CORRUPT: 'An image is damaged or truncated. Fetch or export it again.',
  ERR_IMAGE_EMPTY: 'An image file or buffer has no bytes. Check how it was written or read.',
  ERR_IMAGE_FETCH: 'An image or video could not be fetched from its URL. Check the URL and the network.',
  ERR_IMAGE_INVALID: 'An image argument is not one of the accepted forms. Pass a path, a URL, bytes or raw pixels.',
  ERR_IMAGE_NOT_FOUND: 'An image file does not exist. Check its path.',
  ERR_IMAGE_TOO_LARGE: 'An image has more pixels or bytes than the limit. Scale it down or raise the limit.',
  ERR_IMAGE_UNREADABLE: 'An image file or stream cannot be read. Check that it is a file and its permissions.',
  ERR_IMAGE_UNSUPPORTED: 'An image has an unsupported format. Convert it to PNG or JPEG.',
  ERR_IMAGE_URL:
    'An image or video is given by an http(s) URL, and the caller does not allow it. Load the model with allowUrls.',

  // Videos.
  ERR_VIDEO:
    'A video cannot be taken: the model takes none, or its frames are not of one size or number. The message says which.',
  ERR_VIDEO_CORRUPT: 'A video file is damaged or truncated. Fetch or export it again.',
  ERR_VIDEO_EMPTY: 'A video has no bytes, or no frames in the given segment. Check the file, from and to.',
  ERR_VIDEO_NOT_FOUND: 'A video file does not exist. Check its path.',
  ERR_VIDEO_TIMEOUT: 'Reading a video took too long. Give a shorter segment or fewer frames.',
  ERR_VIDEO_TOO_LARGE: 'A video has more pixels or frames than the limit. Scale it down, or give a shorter segment.',
  ERR_VIDEO_TOOL: 'ffmpeg or ffprobe is missing, too old or does not run. Install FFmpeg, or pass frames.',
  ERR_VIDEO_UNREADABLE:
    'A video file or a stream of frames cannot be read, or a file is not a regular one. Check its kind and its permissions.',
  ERR_VIDEO_UNSUPPORTED: 'A file is not a video of an accepted format. Convert it, for example to MP4.',

  // Checkpoints.
  ERR_MODEL_MISSING: 'The folder does not exist or contains no checkpoint. Check the path.',
  ERR_MODEL_TYPE: 'No model family supports this "model_type". Use a supported checkpoint.',
  ERR_CHECKPOINT_INVALID: 'A weights file breaks the rules of its format. Download it again.',
  ERR_CHECKPOINT_MISSING: 'A weights file cannot be opened. Download the whole checkpoint.',
  ERR_CONFIG_INVALID: 'A config file is not JSON or has an invalid value. Correct it or download it again.',
  ERR_CONFIG_MISSING: 'A config file is missing or cannot be read. Download the whole checkpoint.',
  ERR_CONFIG_UNSUPPORTED: 'A config requires a computation that is not supported. Use another checkpoint.',
  ERR_PREPROCESSOR_CONFIG:
    'The image settings are missing, malformed or not implemented. Compare them with the original.',
  ERR_QUANTIZATION_UNSUPPORTED: 'The weights have an unsupported quantization. Use or make another format.',
  ERR_TEMPLATE_INVALID: 'The chat template cannot be parsed or rendered. Correct it or give another one.',
  ERR_TEMPLATE_LIMIT: 'The chat template takes more steps, text or time than a template can need. Give another one.',
  ERR_TEMPLATE_MISSING: 'The checkpoint has no chat template. Add one as the message describes.',
  ERR_TOKENIZER:
    'The tokenizer cannot encode a text or decodes it to another one. Compare its files with the original.',
  ERR_TOKENIZER_LIMIT: 'A pattern of the tokenizer takes too long. Compare its files with the original.',
  ERR_WEIGHT_DTYPE: 'A tensor has an unsupported data type. Convert it, or use another checkpoint.',
  ERR_WEIGHT_EXTRA: 'The checkpoint has tensors that the model does not use. Check the model type.',
  ERR_WEIGHT_FORMAT: 'The tensors of a quantized module do not follow its format. Quantize or download it again.',
  ERR_WEIGHT_MISSING: 'A tensor is not in the checkpoint. Download the whole checkpoint.',
  ERR_WEIGHT_SHAPE:
    'A tensor does not have the shape that its config requires. Check that config and weights belong together.',
  ERR_WEIGHT_VALUE: 'A tensor holds values that cannot be used, such as NaN. Download the file again.',
  ERR_LOGITS_INVALID:
    'The model computed no usable scores (NaN, infinite or all equal). Check the weights and the method.',

  // Models by name.
  ERR_HUB_ACCESS:
    'The Hub refuses access to the model: it is gated or private. Accept its conditions, and set HF_TOKEN.',
  ERR_HUB_HASH: 'A downloaded file does not have the hash that the Hub lists. Try again, or use another HF_ENDPOINT.',
  ERR_HUB_NOT_FOUND: 'The Hub has no such model, revision or file, and no such folder exists. Check the name.',
  ERR_HUB_OFFLINE: 'The model is not in the cache, and HF_HUB_OFFLINE is set. Unset it, or download the model first.',
  ERR_HUB_RATE_LIMIT: 'The Hub received too many requests. Wait some minutes, or set HF_TOKEN.',
  ERR_HUB_RESPONSE: 'The Hub, or the server at HF_ENDPOINT, sent an invalid response. Check HF_ENDPOINT.',
  ERR_HUB_SETTINGS: 'An environment variable for the Hub has an invalid value. Correct or unset it.',
  ERR_HUB_UNREACHABLE:
    'The Hub cannot be reached, or breaks off each time. Check the network; what was downloaded is kept.',

  // Jobs.
  ERR_CANCELLED: 'A job was cancelled before it ended. Enqueue it again under another id if it is wanted after all.',
  ERR_JOB_UNKNOWN:
    'A queue has no job of this id, or no longer has its result. Check the id, or enqueue the job again.',
  ERR_JOBS: 'A file of jobs cannot be read. Correct the line that the message names.',
  ERR_QUEUE_UNREACHABLE: 'The server of a queue does not answer or refuses. Check that it runs, and the URL.',

  // Files that a user or a checkpoint names.
  ERR_FILE_CHANGED: 'A file changed while it was read. Wait until it is written, then try again.',
  ERR_FILE_ENCODING: 'A text file is not UTF-8. Convert it.',
  ERR_FILE_MISSING: 'A file does not exist. Check its path.',
  ERR_FILE_TOO_LARGE: 'A file is larger than any file of its kind. Check that it is the right one.',
  ERR_FILE_UNREADABLE: 'A file cannot be read, or is not a regular file. Check its kind and its permissions.',
  ERR_PATH_OUTSIDE: 'A name leads out of its folder. Use names of files inside the folder.',

  // Quantizing and converting.
  ERR_ALREADY_QUANTIZED: 'The checkpoint is quantized already. Start from its float original.',
  ERR_NOT_QUANTIZED: 'A 4-bit format was requested for float weights. Quantize them first.',
  ERR_CALIBRATION: 'The calibration set is missing, unreadable or malformed. Correct it as the message describes.',
  ERR_CONVERT_LOSS: 'The converted values differ from the original. Report it; the output is not kept.',
  ERR_NOT_FINITE: 'A computation of the quantizer became NaN or infinite. Check the weights and the calibration set.',
  ERR_QUANTIZE_SHAPE: 'The format cannot hold a matrix of this shape. Choose another --group-size or --format.',
  ERR_RESUME_MISMATCH: 'The output folder holds an unfinished run of another kind. Repeat its command or remove it.',
  ERR_DISK_FULL: 'There is not enough space on the disk. Free some, or name a folder on another disk.',
  ERR_OUTPUT_EXISTS: 'The output folder exists. Give another name or remove it.',
  ERR_OUTPUT_INSIDE: 'The output would be inside an input folder, or the reverse. Give an output outside of it.',
  ERR_OUTPUT_UNWRITABLE: 'The output cannot be written. Check the folder and its permissions.',

  // Evaluating.
  ERR_DATA_SET: 'A data set is missing or malformed. Correct the line that the message names.',
  ERR_GOAL: 'No ratios of the grid reach the goal. Lower the goal.',

  // Serving.
  ERR_LISTEN: 'The server cannot listen at its address. Choose another port or host.',

  // Set-up and engine.
  ERR_BACKEND: 'The process already has a tfjs backend of the same name. Load either tfjs-node or this package.',
  ERR_BAD_DEVICE: 'SPARSEVILA_DEVICE has an unknown value. Unset it or use one that the message lists.',
  ERR_BAD_ISA: 'SPARSEVILA_ISA names instructions that this processor lacks. Unset it.',
  ERR_BAD_LIBTENSORFLOW: 'SPARSEVILA_LIBTENSORFLOW names a folder without a usable libtensorflow. Correct or unset it.',
  ERR_BAD_NATIVE: 'A native module does not load. Remove its folder and run `npx sparsevila setup`.',
  ERR_BAD_THREADS: 'An environment variable has an invalid number of threads. Correct or unset it.',
  ERR_BAD_ZIP: 'A downloaded archive is damaged. Run set-up again.',
  ERR_COMPILE: 'The native code did not compile. The message has the last lines and the path of the log.',
  ERR_FETCH: 'A download failed. Check the network and the package index, then run set-up again.',
  ERR_NOT_SET_UP: 'The engine is not set up. Run `npx sparsevila setup`.',
  ERR_OP: 'TensorFlow refused or failed to run an operation; the message has the reason. Report it with the message.',
  ERR_NO_COMPILER: 'No C++ compiler or CMake was found. Install them.',
  ERR_NO_GPU: 'A GPU was requested and cannot be used. Unset SPARSEVILA_DEVICE, or follow the message.',
  ERR_NO_PIP: 'Python with pip was not found. Install it, or set SPARSEVILA_LIBTENSORFLOW.',
  ERR_NO_NPM: 'npm, which fetches the engine, was not found. Install it; it comes with Node.',
  ERR_NO_WHEEL: 'TensorFlow is not pinned for this platform. Set SPARSEVILA_LIBTENSORFLOW to your own build.',
  ERR_PACKAGE_INCOMPLETE: 'A file of this package, or a package that it needs, is missing. Install again.',
  ERR_SOURCES_CHANGED: 'The native sources changed while they were compiled. Run set-up again.',
  ERR_WRONG_HASH: 'A download is not the pinned file. Run set-up again, or use another index.',
} as const satisfies Readonly<Record<`ERR_${string}`, string>>;

/** The codes, for programs to branch on. */
export type ErrorCode = keyof typeof ERROR_CODES;

/** Maximum number of characters of a message. */
const MESSAGE_LENGTH = 1500;
/** Maximum number of characters of a value in a message. */
const VALUE_LENGTH = 120;

/**
 * An error whose message says what was expected, for which name, what was received and what to try.
 * `code` is one of `ERROR_CODES`; `cause` is the underlying error, if there is one. A message has at most 1,500 characters and no control
 * characters except line breaks and tabs, whatever it quotes.
 */
export class SparseVilaError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown } = {}) {
    super(safeText(message, MESSAGE_LENGTH), options);
    this.name = 'SparseVilaError';
    this.code = code;
  }
}

/**
 * The error that may leave the public API: the error itself if it is ours, the reason of the caller's aborted `signal`, or an `ERR_INTERNAL`
 * with any other error as its cause.
 */
export function coded(error: unknown, signal?: AbortSignal): unknown {
  if (error instanceof SparseVilaError || (signal?.aborted && error === signal.reason)) return error;
  return new SparseVilaError('ERR_INTERNAL', `Unexpected: ${messageOf(error)}`, { cause: error });
}

/** The `code` of any error, ours or Node's (`ENOENT`, …); undefined if it has none. */
export function codeOf(error: unknown): string | undefined {
  try {
    if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
    return typeof error.code === 'string' ? error.code : undefined;
  } catch {
    return undefined; // a getter or a proxy that throws
  }
}

/** The message of any thrown value, in one line. Never throws. */
export function messageOf(error: unknown): string {
  try {
    if (isError(error) && typeof error.message === 'string') return safeText(error.message, MESSAGE_LENGTH);
  } catch {
    // A getter or a proxy that throws: shown as any other value.
  }
  return typeof error === 'string' ? safeText(error, MESSAGE_LENGTH) : received(error);
}

/** Whether a value is an error, also of another realm (native modules, worker threads). */
const isError = (value: unknown): value is Error => value instanceof Error || types.isNativeError(value);

/** Displays any value briefly and safely: strings are quoted and cut, no code of objects is called. Never throws. */
export function received(value: unknown): string {
  try {
    return safeText(display(value), VALUE_LENGTH);
  } catch {
    return typeof value === 'function' ? 'a function' : 'an object that cannot be shown';
  }
}

function display(value: unknown): string {
  // Cut before it is quoted: a string may have any length.
  if (typeof value === 'string') return JSON.stringify(cut(value, VALUE_LENGTH));
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'bigint') return value > -(2n ** 64n) && value < 2n ** 64n ? `${value}n` : 'a bigint';
  if (typeof value !== 'object' || value === null) return Object.is(value, -0) ? '-0' : String(value);
  if (types.isProxy(value)) return 'a proxy';
  if (isError(value)) return `the error ${messageOf(value)}`;
  if (ArrayBuffer.isView(value))
    return `a ${Object.prototype.toString.call(value).slice(8, -1)} of ${value.byteLength} bytes`;
  const isList = Array.isArray(value);
  const keys = isList ? value.length : Object.keys(value).length;
  if (keys > 8) return isList ? `a list of ${keys}` : `an object of ${keys} keys`;
  return inspect(value, { depth: 0, customInspect: false, maxStringLength: 40, breakLength: Number.POSITIVE_INFINITY });
}

/** Control characters except line feed and tab, which are harmless; marks that change the direction of text; lone surrogates. */
const UNSAFE = /(?![\n\t])\p{Cc}|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]|\p{Surrogate}/gu;

/** `text` for a terminal: unsafe characters as `\x1b` or `\u202e`, cut in the middle to `limit` characters. */
function safeText(text: string, limit: number): string {
  const visible = cut(String(text), limit).replace(UNSAFE, (character) => {
    const code = character.charCodeAt(0).toString(16);
    return code.length <= 2 ? `\\x${code.padStart(2, '0')}` : `\\u${code.padStart(4, '0')}`;
  });
  return cut(visible, limit).replace(/\p{Surrogate}/gu, '\ufffd');
}

function cut(text: string, limit: number): string {
  if (text.length <= limit) return text;
  const head = Math.ceil((limit * 2) / 3);
  return `${text.slice(0, head)}…${text.slice(text.length - (limit - head - 1))}`;
}
