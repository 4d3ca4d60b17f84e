// Copies of a checkpoint to damage. Knows the safetensors format and no model.

import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Json, readJson } from '../../src/json';

/** A tensor of a file, with its bytes. */
export interface Stored {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** A copy of a checkpoint folder in a temporary place; `work` gets its path; it is removed in the end. */
export async function withCopy<T>(folder: string, work: (copy: string) => Promise<T>): Promise<T> {
  const copy = mkdtempSync(join(tmpdir(), 'sparsevila-'));
  try {
    cpSync(folder, copy, { recursive: true });
    return await work(copy);
  } finally {
    rmSync(copy, { recursive: true });
  }
}

/** Merges `changes` into a JSON file; undefined removes a key. */
export function changeJson(file: string, changes: Json): void {
  writeFileSync(file, JSON.stringify({ ...readJson(file), ...changes }));
}

/** Rewrites a safetensors file after `change` on its tensors by name. */
export function changeTensors(file: string, change: (tensors: Map<string, Stored>) => void): void {
  const tensors = tensorsIn(file);
  change(tensors);
  writeTensors(file, tensors);
}

const weightFiles = (folder: string): string[] =>
  readdirSync(folder).filter((name) => /^model.*\.safetensors(\.index\.json)?$/.test(name));

/** The tensors of a folder, of all shards. */
export function readShards(folder: string): Map<string, Stored> {
  const files = weightFiles(folder).filter((name) => name.endsWith('.safetensors'));
  return new Map(files.flatMap((name) => [...tensorsIn(join(folder, name))]));
}

/** Writes tensors as the one file of a folder, in place of its shards. */
export function replaceShards(folder: string, tensors: ReadonlyMap<string, Stored>): void {
  for (const name of weightFiles(folder)) rmSync(join(folder, name));
  writeTensors(join(folder, 'model.safetensors'), tensors);
}

function tensorsIn(file: string): Map<string, Stored> {
  const bytes = readFileSync(file);
  const start = 8 + Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.subarray(8, start).toString()) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, Stored>();
  for (const [name, { dtype, shape, data_offsets: span }] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    tensors.set(name, { dtype, shape, data: bytes.subarray(start + span[0], start + span[1]) });
  }
  return tensors;
}

function writeTensors(file: string, tensors: ReadonlyMap<string, Stored>): void {
  let end = 0;
  const entries = [...tensors].map(([name, { dtype, shape, data }]) => {
    const begin = end;
    end += data.length;
    return [name, { dtype, shape, data_offsets: [begin, end] }];
  });
  const text = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(file, Buffer.concat([length, text, ...[...tensors.values()].map(({ data }) => data)]));
}
