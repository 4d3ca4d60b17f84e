// A conversation in a file: its messages, its pictures as the tower sees them, and its KV cache, so that it continues without a prefill. The file
// is in the safetensors format, with the state as JSON in one tensor. What a file holds is checked as if it came from anyone.

import { decodeFloats, encodeFloats } from '../checkpoint/half';
import { readBytes, readSafetensorsHeader, type TensorEntry } from '../checkpoint/safetensors';
import { type TensorSource, writeSafetensors } from '../checkpoint/safetensors_writer';
import { codeOf, messageOf, SparseVilaError } from '../errors';
import { shownPath } from '../files';
import { parseJson } from '../json';
import { type DecoderConfig, isStateLayer } from '../models/config';
import { fingerprintOf } from '../models/fingerprint';
import type { KvCache } from '../models/kv_cache';
import { canvasesOf, type PreparedMedium } from '../models/media';
import type { VisionLanguageModel } from '../models/model';
import { appendKv, type KvType, readKv } from '../ops/kv_cache';
import { float32, floats } from '../ops/run';
import { type Conversation, type KnownMedium, startConversation } from './conversation';
import { checkSaved, type Saved, type SavedMedium } from './saved_state';
import { restoreStates, stateSources, wholePoints } from './saved_states';

/** Files with states have the second version, so that all others are read by older releases. */
const [VERSION, STATES_VERSION] = [1, 2];
const STATE = 'conversation';
/** Maximum bytes of the state: some millions of rows. */
const STATE_BYTES = 2 ** 28;

interface Container {
  readonly version: number;
  readonly model: string;
  readonly family: string;
  readonly method: string;
  readonly kv: KvType;
  readonly contextLength: number;
  readonly state: Saved;
}

export interface SaveContext {
  readonly model: VisionLanguageModel;
  readonly method: string;
  readonly kv: KvType;
  readonly conversation: Conversation;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Writes a conversation. On any error the file is as it was.
 * @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` for a cache with a host tier; `ERR_OUTPUT_UNWRITABLE`, `ERR_DISK_FULL`; `signal.reason`
 */
export async function saveConversation(
  file: string,
  { model, method, kv, conversation, signal }: SaveContext,
): Promise<void> {
  const { nextPosition, places, ids, items, script, capacity, layers, cache } = conversation;
  if (cache.isTiered)
    throw new SparseVilaError(
      'ERR_CONFIG_UNSUPPORTED',
      'Expected a session without kvBudget to save, received one whose rows lie partly in a temporary file. Keep the messages, and give them to open().',
    );
  const media: SavedMedium[] = [];
  for (const { prepared, first } of conversation.media) {
    const { size, turn } = prepared.made;
    media.push({ first, size, turn, canvases: await canvasSizes(prepared, signal) });
  }
  const positions = layers.map((_, layer) => cache.positions(layer));
  const { config } = model.decoder;
  const points = cache.hasStates ? wholePoints(conversation, config) : [];
  const own = { nextPosition, places, ids, items, script, layers, media, positions };
  const state: Saved = cache.hasStates ? { ...own, points } : own;
  const facts = {
    version: cache.hasStates ? STATES_VERSION : VERSION,
    model: fingerprintOf(model),
    family: model.family,
    method,
    kv,
    contextLength: capacity,
  };
  const json = Buffer.from(JSON.stringify({ ...facts, state } satisfies Container));
  const tensors: TensorSource[] = [
    { name: STATE, dtype: 'U8', shape: [json.length], byteLength: json.length, bytes: () => json },
    ...layers.flatMap(({ length }, layer) =>
      length === 0 || isStateLayer(config, layer) ? [] : [kvSource(conversation, model, kv, layer)],
    ),
    ...stateSources(conversation, config, points),
    ...conversation.media.flatMap(({ prepared }, medium) =>
      canvasSources(prepared, medium, media[medium]?.canvases ?? [], signal),
    ),
  ];
  await writeSafetensors(file, tensors, { signal });
}

/** The sizes of a medium's canvases. Those of a film are all equal, because they are drawn by the same steps from frames of one size. */
async function canvasSizes(
  prepared: PreparedMedium,
  signal: AbortSignal | undefined,
): Promise<SavedMedium['canvases']> {
  if (prepared.film === undefined) return prepared.canvases.map(({ width, height }) => [width, height] as const);
  for await (const { width, height } of canvasesOf(prepared, signal))
    return prepared.layout.canvases.map(() => [width, height] as const);
  return [];
}

/** Rows of one layer, [2 (keys, values), kvHeads, rows, c]. */
function kvSource(
  { cache, layers }: Conversation,
  model: VisionLanguageModel,
  kv: KvType,
  layer: number,
): TensorSource {
  const { kvHeads, headDim } = model.decoder.config;
  const rows = layers[layer]?.length ?? 0;
  const dtype = kv === 'bf16' ? 'BF16' : 'F32';
  const shape = [2, kvHeads, rows, headDim];
  const bytes = (): Uint8Array => {
    const values = readKv(cache.tensor(layer), 0, rows, headDim);
    try {
      return encodeFloats(floats(values), dtype);
    } finally {
      values.dispose();
    }
  };
  const elements = shape.reduce((product, size) => product * size, 1);
  return { name: `layers.${layer}`, dtype, shape, byteLength: elements * (kv === 'bf16' ? 2 : 4), bytes };
}

/** The canvases of a medium; those of a film are drawn as they are written, in their order. */
function canvasSources(
  prepared: PreparedMedium,
  medium: number,
  sizes: SavedMedium['canvases'],
  signal: AbortSignal | undefined,
): TensorSource[] {
  const canvases = canvasesOf(prepared, signal);
  return sizes.map(([width, height], i) => ({
    ...{ name: `media.${medium}.${i}`, dtype: 'U8', shape: [height, width, 3], byteLength: 3 * width * height },
    async *bytes() {
      const { value, done } = await canvases.next();
      if (done !== true) yield value.data;
      if (i === sizes.length - 1) await canvases.return(undefined);
    },
  }));
}

export interface RestoreContext {
  readonly model: VisionLanguageModel;
  readonly method: string;
  /** Most rows; default as it was. */
  readonly contextLength?: number | undefined;
  readonly pace: () => Promise<void>;
}

/**
 * Reads a conversation that `saveConversation` wrote.
 * @throws SparseVilaError `ERR_SAVED_INVALID` for anything that it would not have written; `ERR_SAVED_MODEL` for another model or method;
 *   `ERR_FILE_MISSING`, `ERR_FILE_UNREADABLE`, `ERR_CONTEXT_OVERFLOW`, `ERR_OUT_OF_MEMORY`; what `pace` throws
 */
export async function restoreConversation(
  file: string,
  { model, method, contextLength, pace }: RestoreContext,
): Promise<{ readonly conversation: Conversation; readonly kv: KvType }> {
  const invalid = (why: string): SparseVilaError =>
    new SparseVilaError('ERR_SAVED_INVALID', `${shownPath(file)}: expected a saved conversation, ${why}.`);
  const entries = openSaved(file, invalid);
  const saved = readState(entries, invalid);
  if (saved.model !== fingerprintOf(model))
    throw other(file, `the model that it was saved with, of type ${saved.family},`, model.path);
  if (saved.method !== method) throw other(file, `the method ${saved.method}`, method);
  const { config } = model.decoder;
  const state = checkSaved(saved.state, model, invalid);
  const limit = contextLength ?? Math.min(saved.contextLength, config.maxPositions);
  const conversation = startConversation(model.decoder.cache(saved.kv, limit));
  try {
    for (const layer of conversation.layers.keys()) {
      restoreLayer(conversation, model, { layer, state, kv: saved.kv, entries }, invalid);
      await pace();
    }
    for (const [i, medium] of state.media.entries()) {
      conversation.media.push(restoreMedium(model, medium, i, entries, invalid));
      await pace();
    }
  } catch (error) {
    conversation.cache.dispose();
    throw error;
  }
  return { conversation: withState(conversation, state), kv: saved.kv };
}

function openSaved(file: string, invalid: (why: string) => SparseVilaError): ReadonlyMap<string, TensorEntry> {
  try {
    return new Map(readSafetensorsHeader(file).map((entry) => [entry.name, entry]));
  } catch (cause) {
    if (codeOf(cause) === 'ERR_CHECKPOINT_MISSING')
      throw new SparseVilaError('ERR_FILE_MISSING', messageOf(cause), { cause });
    throw codeOf(cause) === 'ERR_CHECKPOINT_INVALID' ? invalid(`but ${messageOf(cause)}`) : cause;
  }
}

function readState(entries: ReadonlyMap<string, TensorEntry>, invalid: (why: string) => SparseVilaError): Container {
  const entry = entries.get(STATE);
  if (entry === undefined || entry.bytes > STATE_BYTES) throw invalid('found a file without its state');
  const json = parseJson(Buffer.from(readBytes(entry)).toString('utf8'), invalid) as Partial<Container> | null;
  if (json?.version !== VERSION && json?.version !== STATES_VERSION)
    throw invalid(`of version ${VERSION} or ${STATES_VERSION}, found another`);
  const { model, family, method, kv, contextLength } = json;
  const isText = [model, family, method].every((text) => typeof text === 'string');
  const isKv = kv === 'bf16' || kv === 'f32';
  if (isText && isKv && Number.isSafeInteger(contextLength) && (contextLength as number) > 1) return json as Container;
  throw invalid('found one without its model, method or cache type');
}

function other(file: string, expected: string, found: string): SparseVilaError {
  return new SparseVilaError('ERR_SAVED_MODEL', `${shownPath(file)}: expected ${expected} received ${found}.`);
}

/** Writes the rows of a layer, or its states, into its cache. */
function restoreLayer(
  conversation: Conversation,
  model: VisionLanguageModel,
  { layer, state, kv, entries }: { layer: number; state: Saved; kv: KvType; entries: ReadonlyMap<string, TensorEntry> },
  invalid: (why: string) => SparseVilaError,
): void {
  const { config } = model.decoder;
  const { cache } = conversation;
  const rows = state.layers[layer]?.length ?? 0;
  if (rows === 0) return;
  const range = { from: layer, to: layer + 1 };
  const positions = state.positions[layer] ?? [];
  if (isStateLayer(config, layer)) {
    cache.reserve(rows, range);
    restoreStates(conversation, config, { layer, points: state.points ?? [], entries }, invalid);
  } else restoreRows(cache, config, { layer, rows, kv, entry: entries.get(`layers.${layer}`) }, invalid);
  cache.extend(positions.length > 0 ? positions : rows, range);
}

function restoreRows(
  cache: KvCache,
  { kvHeads, headDim }: DecoderConfig,
  { layer, rows, kv, entry }: { layer: number; rows: number; kv: KvType; entry: TensorEntry | undefined },
  invalid: (why: string) => SparseVilaError,
): void {
  const dtype = kv === 'bf16' ? 'BF16' : 'F32';
  const isRight = entry?.dtype === dtype && String(entry.shape) === String([2, kvHeads, rows, headDim]);
  if (entry === undefined || !isRight) throw invalid(`found no cache of ${rows} rows for layer ${layer}`);
  const values = decodeFloats(readBytes(entry), dtype);
  if (!values.every(Number.isFinite)) throw invalid(`found a cache that is not finite in layer ${layer}`);
  cache.reserve(rows, { from: layer, to: layer + 1 });
  const [k, v] = [0, 1].map((half) =>
    float32(byRow(values, half, { kvHeads, rows, headDim }), [rows, kvHeads, headDim]),
  );
  try {
    if (k !== undefined && v !== undefined) appendKv(cache.tensor(layer), k, v, 0);
  } finally {
    k?.dispose();
    v?.dispose();
  }
}

/** Keys or values, [kvHeads, rows, c], as [rows, kvHeads, c]. */
function byRow(
  values: Float32Array,
  half: number,
  { kvHeads, rows, headDim: c }: { kvHeads: number; rows: number; headDim: number },
): Float32Array {
  const turned = new Float32Array(rows * kvHeads * c);
  for (let head = 0; head < kvHeads; head++)
    for (let row = 0; row < rows; row++) {
      const from = ((half * kvHeads + head) * rows + row) * c;
      turned.set(values.subarray(from, from + c), (row * kvHeads + head) * c);
    }
  return turned;
}

/** Lays a medium out again from its sizes, with the canvases of the file. */
function restoreMedium(
  { plan }: VisionLanguageModel,
  { first, size, turn, canvases: sizes }: SavedMedium,
  medium: number,
  entries: ReadonlyMap<string, TensorEntry>,
  invalid: (why: string) => SparseVilaError,
): KnownMedium {
  const layout = plan.layout(size, turn);
  if (layout.canvases.length !== sizes.length) throw invalid(`found ${sizes.length} canvases for medium ${medium}`);
  const canvases = sizes.map(([width, height], i) => {
    const entry = entries.get(`media.${medium}.${i}`);
    if (entry === undefined || entry.dtype !== 'U8' || String(entry.shape) !== String([height, width, 3]))
      throw invalid(`found no canvas ${i} of ${width}x${height} for medium ${medium}`);
    return { data: readBytes(entry), width, height };
  });
  return { prepared: { layout, made: { size, turn }, canvases }, first };
}

function withState(conversation: Conversation, state: Saved): Conversation {
  return {
    ...conversation,
    nextPosition: state.nextPosition,
    layers: state.layers.map(({ length, visual, tokens }) => ({ length, visual: [...visual], tokens: [...tokens] })),
    ...{ places: [...state.places], ids: [...state.ids], items: [...state.items], script: state.script },
    states: [{ id: 0, items: state.items.length }],
  };
}
