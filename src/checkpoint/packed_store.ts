// Packed weights on disk: a folder per model and way of packing, made aside and renamed, so that the next load maps the matrices and packs none.
// An entry is `<key>/weights`, matrices one after another, and `<key>/index.json`. The key comes from the content of the checkpoint, the
// instruction-set level and the version. An entry that is not as expected counts as absent. Knows no architecture.

import { mkdirSync, readdirSync, renameSync, rmSync, statfsSync, statSync, utimesSync } from 'node:fs';
import { basename, join } from 'node:path';
import { SparseVilaError } from '../errors';
import { filesBelow, makeFolder } from '../files';
import { type ConfigReader, configReader, readJson } from '../json';
import { isTemporary, replaceFile, temporaryName } from '../runtime/atomic';
import { takeLock } from '../runtime/lock';
import { cacheFolder, type Environment } from '../runtime/paths';

const WEIGHTS = 'weights';
const INDEX = 'index.json';
const FORMAT = 1;
/** The default of `SPARSEVILA_WEIGHT_CACHE`: bytes that all entries take together. */
const DEFAULT_LIMIT = 20e9;
/** Disk space that is left to others: bytes, and a share of the disk. */
const LEFT_FREE = { bytes: 5e9, share: 0.05 };
/** A folder that was made later may belong to a process that is about to lock or to rename it. */
const SETTLED_MS = 10_000;

/** One packed matrix of an entry. */
export interface PackedRecord {
  /** A digest of what was requested: names, shape and form. */
  readonly key: string;
  readonly offset: number;
  readonly bytes: number;
  /** Checksums of the packed bytes, and of the checkpoint's bytes that they were made from. */
  readonly sum: string;
  readonly source: string;
}

/** The content of `index.json`. `files`: identities of the checkpoint's files, by which unchanged ones are recognized. */
export interface PackedIndex {
  /** The checkpoint folder for which the entry was written, for people. */
  readonly model: string;
  readonly files: readonly string[];
  readonly records: readonly PackedRecord[];
}

/** A model in the cache. */
export interface CachedWeights {
  /** The checkpoint folder for which it was written. */
  readonly model: string;
  readonly folder: string;
  readonly bytes: number;
  /** Time of the last use, milliseconds since 1970. */
  readonly used: number;
}

/** The folder of all entries. */
export const packedFolder = (env: Environment = process.env): string => join(cacheFolder(env), 'packed');

export const weightsOf = (folder: string): string => join(folder, WEIGHTS);

/**
 * The most bytes that entries may take: `SPARSEVILA_WEIGHT_CACHE`, `off` or a size such as `20GB`; 0: nothing is read or written.
 * @throws SparseVilaError `ERR_OPTION_INVALID`
 */
export function weightCacheLimit(env: Environment = process.env): number {
  const given = env.SPARSEVILA_WEIGHT_CACHE?.trim() ?? '';
  if (given === '' || given === 'on') return DEFAULT_LIMIT;
  if (given === 'off') return 0;
  const [, number, unit] = /^(\d+(?:\.\d+)?)\s*([kmgt]?)b?$/i.exec(given) ?? [];
  if (number === undefined) {
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `SPARSEVILA_WEIGHT_CACHE: expected 'on', 'off' or a size such as 20GB, received '${given.slice(0, 40)}'.`,
    );
  }
  return Number(number) * 1000 ** ' kmgt'.indexOf((unit || ' ').toLowerCase());
}

/** The entry of a key; undefined if there is none, or none that can be used. */
export function findPacked(folder: string): PackedIndex | undefined {
  try {
    const index = configReader(readJson(join(folder, INDEX)), INDEX);
    if (index.json.format !== FORMAT || statSync(weightsOf(folder)).size !== index.json.bytes) return undefined;
    return { model: index.string('model'), files: textsOf(index, 'files'), records: recordsOf(index) };
  } catch {
    return undefined;
  }
}

function textsOf(index: ConfigReader, name: string): string[] {
  const list: unknown = index.json[name];
  if (!Array.isArray(list) || !list.every((one) => typeof one === 'string')) throw index.wrong(name, 'a list of texts');
  return list;
}

function recordsOf(index: ConfigReader): PackedRecord[] {
  const list: unknown = index.json.records;
  if (!Array.isArray(list)) throw index.wrong('records', 'a list');
  return list.map((one: unknown) => {
    const { key, offset, bytes, sum, source } = one as Partial<PackedRecord>;
    const areTexts = [key, sum, source].every((text) => typeof text === 'string' && /^[0-9a-f]+$/.test(text));
    if (!areTexts || !Number.isSafeInteger(offset) || !Number.isSafeInteger(bytes))
      throw index.wrong('records', 'records');
    return one as PackedRecord;
  });
}

/** Marks an entry as used now; a read-only cache stays as it is. */
export function markPacked(folder: string): void {
  const now = new Date();
  quietly(() => utimesSync(folder, now, now));
}

/** An entry that is being written. */
export interface PackedDraft {
  /** The file of the matrices, which does not exist yet. */
  readonly weights: string;
  /** Makes the entry visible in the place of an older one. */
  commit(index: PackedIndex): void;
  discard(): void;
}

/**
 * Begins an entry; undefined while another process writes the same one.
 * @throws SparseVilaError `ERR_OUTPUT_UNWRITABLE`, `ERR_DISK_FULL` if the cache cannot be written
 */
export function draftPacked(folder: string): PackedDraft | undefined {
  makeFolder(packedFolder());
  removeAbandoned();
  if (namesIn(packedFolder()).some((name) => isTemporary(name) && name.startsWith(`${basename(folder)}.`)))
    return undefined;
  const temporary = temporaryName(folder);
  mkdirSync(temporary);
  const lock = takeLock(temporary);
  const discard = (): void => {
    quietly(() => lock.release());
    quietly(() => rmSync(temporary, { recursive: true, force: true }));
  };
  return {
    weights: weightsOf(temporary),
    commit: (index) => {
      try {
        writeIndex(temporary, index);
        removePacked(folder);
        lock.release();
        renameSync(temporary, folder);
      } catch {
        discard(); // another process has renamed its own, or the disk is full
      }
    },
    discard,
  };
}

/** Writes the index of an entry. @throws SparseVilaError `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE` */
export function writeIndex(folder: string, index: PackedIndex): void {
  const bytes = statSync(weightsOf(folder)).size;
  replaceFile(join(folder, INDEX), JSON.stringify({ format: FORMAT, bytes, ...index }));
}

/** Removes an entry. Processes that have mapped it keep it until they end. */
export function removePacked(folder: string): void {
  const temporary = temporaryName(folder);
  quietly(() => renameSync(folder, temporary));
  quietly(() => rmSync(temporary, { recursive: true, force: true }));
}

/** The entries, the least recently used first. */
export function listPacked(root: string = packedFolder()): CachedWeights[] {
  const entries = namesIn(root).flatMap((name): CachedWeights[] => {
    const folder = join(root, name);
    try {
      const { model } = readJson(join(folder, INDEX));
      const { mtimeMs } = statSync(folder);
      return [{ model: String(model), folder, bytes: statSync(weightsOf(folder)).size, used: mtimeMs }];
    } catch {
      return [];
    }
  });
  return entries.sort((a, b) => a.used - b.used);
}

/** Removes all entries and what killed processes have left; returns the bytes that they took. */
export function clearPacked(root: string = packedFolder()): number {
  const bytes = namesIn(root).reduce((sum, name) => sum + bytesBelow(join(root, name)), 0);
  for (const name of namesIn(root)) if (!isTemporary(name)) removePacked(join(root, name));
  removeAbandoned(root, 0);
  return bytes - namesIn(root).reduce((sum, name) => sum + bytesBelow(join(root, name)), 0);
}

/** Removes drafts of processes that have ended. */
export function removeAbandoned(root: string = packedFolder(), settledMs: number = SETTLED_MS): void {
  for (const name of namesIn(root).filter(isTemporary)) {
    const folder = join(root, name);
    quietly(() => {
      if (Date.now() - Math.floor(statSync(folder).mtimeMs) < settledMs) return;
      takeLock(folder).release(); // throws if its owner is alive
      rmSync(folder, { recursive: true, force: true });
    });
  }
}

/**
 * Makes room for `bytes` more below `limit` and on the disk by removing the least recently used entries, if there is room without them.
 * @param own bytes of the entry that is being written
 * @throws SparseVilaError `ERR_DISK_FULL`
 */
export function makeRoom(bytes: number, own: number, limit: number, root: string = packedFolder()): void {
  const entries = listPacked(root);
  let taken = entries.reduce((sum, entry) => sum + entry.bytes, 0);
  const needs = `${gigabytes(own + bytes)} of packed weights`;
  if (own + bytes > limit)
    throw new SparseVilaError('ERR_DISK_FULL', `${needs} exceed SPARSEVILA_WEIGHT_CACHE, ${gigabytes(limit)}`);
  if (spareBytes(root) + taken < bytes)
    throw new SparseVilaError('ERR_DISK_FULL', `${needs} would leave too little free on the disk of ${root}`);
  for (const entry of entries) {
    if (own + taken + bytes <= limit && spareBytes(root) >= bytes) return;
    removePacked(entry.folder);
    taken -= entry.bytes;
  }
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;

/** Free bytes of the disk that entries may take. */
function spareBytes(folder: string): number {
  const { bavail, bsize, blocks } = statfsSync(folder);
  if (blocks === 0) return Number.POSITIVE_INFINITY; // a file system that does not report its size
  return bavail * bsize - Math.max(LEFT_FREE.bytes, LEFT_FREE.share * blocks * bsize);
}

function bytesBelow(folder: string): number {
  let bytes = 0;
  quietly(() => {
    for (const file of filesBelow(folder)) bytes += statSync(join(folder, file)).size;
  });
  return bytes;
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function quietly(work: () => void): void {
  try {
    work();
  } catch {
    // The cache is an accelerator: without it, loading packs.
  }
}
