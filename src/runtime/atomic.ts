// Installs a folder or file all at once: the work happens in a temporary sibling, the rename at the end
// is the only step that others can see. So a target that exists is complete, whoever was killed when.

import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/**
 * Makes `target` by calling `build` with a fresh path beside it and renaming the result.
 * Does nothing when `target` exists. If another process installs `target` meanwhile, ours is discarded.
 * `build` must create its path (file or folder); when it throws, what it left is removed.
 * Returns true when this call installed it.
 */
export async function installOnce(target: string, build: (temporary: string) => Promise<void>): Promise<boolean> {
  if (existsSync(target)) return false;
  await mkdir(dirname(target), { recursive: true });
  const temporary = `${target}.tmp-${randomBytes(8).toString('hex')}`;
  try {
    await build(temporary);
    // rename() silently replaces a file; for a file that is right too, since equal names mean equal content.
    await rename(temporary, target);
    return true;
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    // Whatever went wrong here (a lost race for the rename, a source that the winner has cleared away):
    // a target that exists is complete.
    if (existsSync(target)) return false;
    throw error;
  }
}

/** Removes `path` in one step as far as others can see, so that nobody finds half of it. */
export async function removeAtOnce(path: string): Promise<void> {
  const temporary = `${path}.tmp-${randomBytes(8).toString('hex')}`;
  const moved = await rename(path, temporary).then(
    () => true,
    () => false,
  );
  if (moved) await rm(temporary, { recursive: true, force: true });
}

const DAY_MS = 24 * 60 * 60 * 1000;

/** What may go, and after how long without use: temporaries of killed processes, and what old sources compiled to. */
const STALE: readonly (readonly [name: RegExp, afterMs: number])[] = [
  [/\.tmp-[0-9a-f]{16}$/, DAY_MS],
  [/^(native|gpu|standin|build)-[0-9a-f-]+(\.log|\.lock|\.failed)?$/, 30 * DAY_MS],
];

/** Removes what is stale in `folder`, and returns the names. */
export async function removeStale(folder: string, now: number = Date.now()): Promise<string[]> {
  const removed: string[] = [];
  for (const name of await readdir(folder).catch(() => [])) {
    const [, afterMs] = STALE.find(([pattern]) => pattern.test(name)) ?? [];
    const path = join(folder, name);
    const used = afterMs === undefined ? undefined : await lastUsed(path);
    if (afterMs === undefined || used === undefined || now - used < afterMs) continue;
    await rm(path, { recursive: true, force: true });
    removed.push(name);
  }
  return removed;
}

/** Notes that `path` is in use, so that `removeStale` keeps it. */
export async function markUsed(path: string): Promise<void> {
  const now = new Date();
  await utimes(path, now, now).catch(() => undefined); // a cache that is read-only is kept by others
}

async function lastUsed(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).mtimeMs;
  } catch {
    return undefined; // its owner has just renamed or removed it
  }
}
