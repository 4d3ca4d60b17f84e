// The folder that CMake builds in. In a clone it is kept, so that an edit recompiles what it touched; an installed
// package is compiled once, in a folder that goes away. Knows nothing of what is built.

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
  /** What the kept folder is for, besides this clone: a change means another folder. */
  readonly inputs: readonly string[];
  /** The files that are compiled, and hashes of their content. */
  readonly sources: Readonly<Record<string, string>>;
  /** Where to build instead. */
  readonly temporary: string;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Calls `build` with a folder to build in: one kept in `cache` for equal `inputs`, when this is a clone and no other
 * process is building there; else `temporary`. A kept folder is wiped when a build in it did not end by itself, since
 * a killed compiler leaves half an object file with a new date.
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
 * make goes by dates. A source whose content changed while its date did not (`cp -p`, an archive) would keep its old
 * object, so such a tree is wiped.
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

/** What the last build noted; nothing where the note is broken, so that every source counts as changed. */
async function readNote(note: string): Promise<Record<string, string>> {
  try {
    return JSON.parse(await readFile(note, 'utf8')) as Record<string, string>;
  } catch {
    return {};
  }
}

/**
 * The lock of `tree`, or undefined while another process builds there. When its last owner was killed, the tree is removed, and this
 * build is made elsewhere: compilers that the owner had started may still be writing to paths below the tree.
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
