// The folder that CMake builds in. In a clone it is kept, so that an edit recompiles only what depends on it; an installed package is compiled
// once, in a temporary folder. Does not know what is built.

import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { codeOf } from '../errors';
import { removeAtOnce, replaceFile } from './atomic';
import { type Lock, takeLock } from './lock';
import { packageFolder } from './paths';

export interface BuildTreeOptions {
  readonly cache: string;
  /** The purpose of the kept folder, besides this clone: another value means another folder. */
  readonly inputs: readonly string[];
  /** The files that are compiled, and hashes of their content. */
  readonly sources: Readonly<Record<string, string>>;
  /** The folder to build in otherwise. */
  readonly temporary: string;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Calls `build` with a folder to build in: in a clone, one kept in `cache` for equal `inputs`, unless another process is building there;
 * otherwise `temporary`. A kept folder is wiped if a build in it was killed, because a killed compiler leaves a partial object file with a new
 * date.
 */
export async function inBuildTree(options: BuildTreeOptions, build: (tree: string) => Promise<void>): Promise<void> {
  const isClone = existsSync(join(packageFolder(), 'src'));
  const key = createHash('sha256')
    .update([packageFolder(), ...options.inputs].join('\0'))
    .digest('hex')
    .slice(0, 16);
  const tree = join(options.cache, `build-${key}`);
  const lock = isClone ? await lockTree(tree) : undefined;
  if (lock === undefined) {
    await mkdir(options.temporary, { recursive: true });
    await build(options.temporary);
    await rm(options.temporary, { recursive: true });
    return;
  }
  try {
    await wipeIfMisdated(tree, options.sources);
    await build(tree);
  } finally {
    if (options.signal?.aborted) await rm(tree, { recursive: true, force: true });
    lock.release();
  }
}

/**
 * make compares dates. If a source's content changed while its date did not (`cp -p`, an archive), make would keep its old object, so such a
 * tree is wiped.
 */
async function wipeIfMisdated(tree: string, sources: Readonly<Record<string, string>>): Promise<void> {
  const note = join(tree, 'sources.json');
  const built = statSync(note, { throwIfNoEntry: false })?.mtimeMs;
  if (built !== undefined) {
    const before = await readNote(note);
    const changed = Object.keys(sources).filter((path) => before[path] !== sources[path]);
    if (changed.some((path) => statSync(path).mtimeMs <= built)) await rm(tree, { recursive: true });
  }
  await mkdir(tree, { recursive: true });
  replaceFile(note, JSON.stringify(sources));
}

/** The hashes of the last build; empty if the record is broken, so that every source counts as changed. */
async function readNote(note: string): Promise<Record<string, string>> {
  try {
    return JSON.parse(await readFile(note, 'utf8')) as Record<string, string>;
  } catch {
    return {};
  }
}

/**
 * Locks `tree`; returns undefined while another process builds there. If its last owner was killed, the tree is removed, and this build uses
 * the temporary folder, because compilers that the owner started may still be writing below the tree.
 */
async function lockTree(tree: string): Promise<Lock | undefined> {
  try {
    const lock = takeLock(`${tree}.lock`);
    if (!lock.wasAbandoned) return lock;
    await removeAtOnce(tree);
    lock.release();
    return undefined;
  } catch (error) {
    if (codeOf(error) === 'ERR_BUSY') return undefined;
    throw error;
  }
}
