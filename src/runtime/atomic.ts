// Installs a folder or file all at once: the work happens in a temporary sibling, the rename at the end
// is the only step that others can see. So a target that exists is complete, whoever was killed when.

import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

const TEMPORARY = /\.tmp-[0-9a-f]{16}$/;
const STALE_AFTER_MS = 24 * 60 * 60 * 1000;

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

/** Removes the temporaries in `folder` that nothing has written to for a day: their makers were killed. */
export async function removeStale(folder: string, now: number = Date.now()): Promise<string[]> {
  const removed: string[] = [];
  for (const name of await readdir(folder).catch(() => [])) {
    if (!TEMPORARY.test(name)) continue;
    const path = join(folder, name);
    const written = await lastWritten(path);
    if (written === undefined || now - written < STALE_AFTER_MS) continue;
    await rm(path, { recursive: true, force: true });
    removed.push(basename(path));
  }
  return removed;
}

async function lastWritten(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).mtimeMs;
  } catch {
    return undefined; // its owner has just renamed or removed it
  }
}
