// Locates the tensors of a checkpoint: safetensors headers and the shard index, checked before any weight byte is read.
// Knows neither models, nor the meaning of names, nor quantization; loading maps or reads the bytes itself.
// Source: the safetensors format description (huggingface/safetensors, README "Format"); its rules on gaps and overlaps are kept.
import { closeSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { SparseVilaError } from '../errors';
import { insideFolder, isFolder, isPresent, openRegular, readRange } from '../files';
import { configReader, parseJson, readJson } from '../json';
import { decodeFloats } from './half';

/** Every type of the format; most are never read, but an unused tensor may have any. */
const DTYPES = [
  ...(['F64', 'F32', 'F16', 'BF16', 'C64', 'I64', 'I32', 'I16', 'I8', 'U64', 'U32', 'U16', 'U8', 'BOOL'] as const),
  ...(['F8_E4M3', 'F8_E5M2', 'F8_E8M0', 'F8_E4M3FNUZ', 'F8_E5M2FNUZ', 'F6_E2M3', 'F6_E3M2', 'F4'] as const),
] as const;
export type TensorDtype = (typeof DTYPES)[number];

/** The first number in a type's name. */
const bitsOf = (dtype: TensorDtype): number => Number(/\d+/.exec(dtype)?.[0] ?? 8);
const MAX_HEADER_BYTES = 100_000_000;
const WEIGHTS = { what: 'a safetensors file', missing: 'ERR_CHECKPOINT_MISSING' } as const;

/** Tensors by name, in the order of their files. */
export type TensorEntries = ReadonlyMap<string, TensorEntry>;

/** One tensor of a checkpoint: row-major, little-endian. */
export interface TensorEntry {
  name: string;
  file: string;
  dtype: TensorDtype;
  shape: readonly number[];
  /** Absolute byte offset in the file. */
  offset: number;
  bytes: number;
}

/**
 * Every tensor of one file, in order of its bytes. Reads the header only.
 * @throws SparseVilaError `ERR_CHECKPOINT_MISSING` if the file cannot be opened, `ERR_CHECKPOINT_INVALID` if the header breaks a rule of the format
 *   or has more than some millions of values.
 */
export function readSafetensorsHeader(file: string): TensorEntry[] {
  const { json, dataStart, fileBytes } = readHeader(file);
  const entries = Object.entries(json)
    .filter(([name]) => name !== '__metadata__')
    .map(([name, value]) => parseEntry(file, name, value, dataStart))
    .sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  checkLayout(file, entries, dataStart, fileBytes);
  return entries;
}

/**
 * The tensors of a checkpoint folder by name: `model.safetensors`, else the shards of `model.safetensors.index.json`, else a single `*.safetensors`.
 * @throws SparseVilaError `ERR_CHECKPOINT_MISSING` if the folder holds none of these, `ERR_CHECKPOINT_INVALID` for a bad header, a name in two shards,
 *   an index entry that no shard has, or a shard outside the folder; `ERR_CONFIG_INVALID` if the index is no JSON object;
 *   `ERR_CONFIG_UNSUPPORTED` if there is an adapter beside the weights.
 */
export function openCheckpoint(folder: string): Map<string, TensorEntry> {
  refuseAdapter(folder);
  const whole = join(folder, 'model.safetensors');
  if (isPresent(whole)) return collect([whole]);
  const index = join(folder, 'model.safetensors.index.json');
  return isPresent(index) ? openShards(folder, index) : collect([onlySafetensors(folder)]);
}

/** Bytes of a tensor, whole or `length` from `begin`. @throws SparseVilaError `ERR_FILE_CHANGED` for a file that has become shorter since its header was read */
export function readBytes({ file, offset, bytes }: TensorEntry, begin = 0, length = bytes - begin): Uint8Array {
  const read = new Uint8Array(length);
  const { fd } = openRegular(file, WEIGHTS);
  try {
    readRange(fd, read, offset + begin, file);
  } finally {
    closeSync(fd);
  }
  return read;
}

/**
 * One tensor widened to f32, flat [product of shape]; it opens the file for each call.
 * @throws SparseVilaError `ERR_WEIGHT_DTYPE` for a type other than BF16, F16, F32; errors of `readBytes`
 */
export function readTensor(entry: TensorEntry): Float32Array {
  const { dtype, name, file } = entry;
  if (dtype === 'F32' || dtype === 'F16' || dtype === 'BF16') return decodeFloats(readBytes(entry), dtype);
  throw new SparseVilaError(
    'ERR_WEIGHT_DTYPE',
    `${file}: expected BF16, F16 or F32 for ${shown(name)}, received ${dtype}.`,
  );
}

/** One finite tensor widened to f32. @throws SparseVilaError `ERR_NOT_FINITE`; errors of `readTensor` */
export function readFloats(entry: TensorEntry): Float32Array {
  const values = readTensor(entry);
  // A plain loop: `findIndex` takes ten times as long.
  for (let i = 0; i < values.length; i++) {
    if (Number.isFinite(values[i])) continue;
    throw new SparseVilaError(
      'ERR_NOT_FINITE',
      `${entry.file}: ${shown(entry.name)} holds ${values[i]} at element ${i}. A checkpoint with such weights cannot be quantized; ` +
        'download it again.',
    );
  }
  return values;
}

function readHeader(file: string): { json: Record<string, unknown>; dataStart: number; fileBytes: number } {
  const { fd, size: fileBytes } = openRegular(file, WEIGHTS);
  try {
    if (fileBytes < 8)
      throw invalid(file, `expected at least 8 bytes, received ${fileBytes}; the download is incomplete`);
    const length = Buffer.alloc(8);
    readRange(fd, length, 0, file);
    const headerBytes = length.readBigUInt64LE();
    if (headerBytes > MAX_HEADER_BYTES) {
      throw invalid(
        file,
        `expected a header of at most ${MAX_HEADER_BYTES} bytes, received ${headerBytes}; is this a safetensors file?`,
      );
    }
    const dataStart = 8 + Number(headerBytes);
    if (dataStart > fileBytes) {
      throw invalid(
        file,
        `truncated: the header alone needs ${dataStart} bytes, the file has ${fileBytes}; download it again`,
      );
    }
    const header = Buffer.alloc(Number(headerBytes));
    readRange(fd, header, 8, file);
    return { json: parseHeader(file, header), dataStart, fileBytes };
  } finally {
    closeSync(fd);
  }
}

function parseHeader(file: string, header: Buffer): Record<string, unknown> {
  const question = 'is this a safetensors file?';
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(header);
  } catch {
    throw invalid(file, `the header is not UTF-8; ${question}`);
  }
  const json = parseJson(text, (why) => invalid(file, `the header is not JSON (${why}); ${question}`));
  if (!isObject(json)) throw invalid(file, 'expected a JSON object as header');
  return json;
}

function parseEntry(file: string, name: string, value: unknown, dataStart: number): TensorEntry {
  const wrong = (expected: string, received: unknown): SparseVilaError =>
    invalid(file, `expected ${expected} for tensor ${shown(name)}, received ${shown(received)}`);
  if (!isObject(value)) throw wrong('an object with dtype, shape and data_offsets', value);
  const { dtype, shape, data_offsets: span } = value;
  if (!isDtype(dtype)) throw wrong(`a dtype of ${DTYPES.join(', ')}`, dtype);
  if (!isCounts(shape)) throw wrong('a shape of non-negative integers', shape);
  const bytes = shape.reduce((product, size) => product * size, bitsOf(dtype)) / 8;
  if (!Number.isSafeInteger(bytes)) throw wrong('a shape of at most 2^53 bytes', shape);
  if (!isCounts(span)) throw wrong('data_offsets [begin, end] of non-negative integers', span);
  const [begin, end] = span;
  if (begin === undefined || end === undefined || span.length !== 2) throw wrong('data_offsets [begin, end]', span);
  if (end - begin !== bytes) throw wrong(`data_offsets ${bytes} bytes apart (${dtype} × [${shape.join(', ')}])`, span);
  return { name, file, dtype, shape, offset: dataStart + begin, bytes };
}

/** The format allows neither overlap nor gap, and the data ends where the file ends. */
function checkLayout(file: string, entries: readonly TensorEntry[], dataStart: number, fileBytes: number): void {
  const needed = entries.reduce((end, entry) => Math.max(end, entry.offset + entry.bytes), dataStart);
  if (needed > fileBytes) {
    const last = entries.find((entry) => entry.offset + entry.bytes > fileBytes);
    throw invalid(
      file,
      `truncated: ${needed} bytes are expected, ${fileBytes} are present; tensor ${shown(last?.name)} is out of the file`,
    );
  }
  let end = dataStart;
  let previous = '';
  for (const { name, offset, bytes } of entries) {
    if (offset < end)
      throw invalid(file, `tensor ${shown(name)} overlaps tensor ${shown(previous)} by ${end - offset} bytes`);
    if (offset > end) throw invalid(file, `${hole(offset - end)} before tensor ${shown(name)}`);
    end = offset + bytes;
    previous = name;
  }
  if (end < fileBytes) throw invalid(file, `${hole(fileBytes - end)} after tensor ${shown(previous)}`);
}

function hole(bytes: number): string {
  return `${bytes} bytes belong to no tensor (a name written twice in the header looks like this, too)`;
}

function openShards(folder: string, index: string): Map<string, TensorEntry> {
  const config = configReader(readJson(index), index);
  const map = config.object('weight_map');
  if (map === undefined) throw config.wrong('weight_map', 'an object from tensor name to shard');
  const names = Object.keys(map.json);
  const shardOf = (name: string): string =>
    insideFolder(folder, map.string(name), {
      what: `the shard of tensor ${shown(name)}`,
      code: 'ERR_CHECKPOINT_INVALID',
    });
  const tensors = collect([...new Set(names.map(shardOf))].sort());
  // The shards themselves decide which one has a tensor: transformers reads all of them.
  const lost = names.find((name) => !tensors.has(name));
  if (lost !== undefined) throw invalid(index, `expected tensor ${shown(lost)} in ${shardOf(lost)}, found it nowhere`);
  return tensors;
}

/** Refuses peft adapters beside the weights, because transformers would apply them. @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` */
export function refuseAdapter(folder: string): void {
  const adapter = join(folder, 'adapter_config.json');
  if (!isPresent(adapter)) return;
  throw new SparseVilaError(
    'ERR_CONFIG_UNSUPPORTED',
    `${adapter}: the folder holds an adapter (LoRA), which would not be applied. Merge it into the weights (in Python: peft, ` +
      'merge_and_unload), or remove the file to load the weights without it.',
  );
}

function collect(files: readonly string[]): Map<string, TensorEntry> {
  const tensors = new Map<string, TensorEntry>();
  for (const entry of files.flatMap(readSafetensorsHeader)) {
    const other = tensors.get(entry.name);
    if (other !== undefined)
      throw invalid(
        entry.file,
        `tensor ${shown(entry.name)} is also in ${other.file}; a checkpoint holds each name once`,
      );
    tensors.set(entry.name, entry);
  }
  return tensors;
}

function onlySafetensors(folder: string): string {
  // Ignores files that begin with a dot: macOS adds "._model.safetensors" beside each file.
  const files = isFolder(folder) ? readdirSync(folder).filter((name) => !name.startsWith('.')) : [];
  const [only, ...others] = files.filter((name) => name.endsWith('.safetensors')).sort();
  if (only !== undefined && others.length === 0) return join(folder, only);
  const pickled = files.find((name) => /\.(bin|pth|pt)(\.index\.json)?$/.test(name));
  const found =
    only !== undefined ? `${others.length + 1} *.safetensors files and no index` : (pickled ?? 'no weights');
  const advice = pickled
    ? 'Convert the weights to safetensors (in Python: load the model and save_pretrained with safe_serialization).'
    : 'Give the folder that the weights lie in.';
  throw new SparseVilaError(
    'ERR_CHECKPOINT_MISSING',
    `${folder}: expected model.safetensors, model.safetensors.index.json or one *.safetensors, found ${found}. ${advice}`,
  );
}

function invalid(file: string, what: string): SparseVilaError {
  return new SparseVilaError('ERR_CHECKPOINT_INVALID', `${file}: ${what}`);
}

/** A name or value of a header for a message; both may be long. */
const shown = (value: unknown): string => {
  const text = JSON.stringify(Array.isArray(value) ? value.slice(0, 40) : value) ?? 'nothing';
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
};

const isDtype = (value: unknown): value is TensorDtype => DTYPES.some((dtype) => dtype === value);
const isCounts = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((count) => Number.isSafeInteger(count) && count >= 0);
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
