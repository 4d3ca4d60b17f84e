// Finds the files of native/ that a build consists of, and hashes them for the build's name in the cache. Follows includes, so that a build is
// repeated exactly if a file that it reads has changed.

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { packageFolder } from './paths';

export interface SourceSet {
  /** The files that are compiled or configure the build, as paths within native/. */
  readonly roots: RegExp;
  /** A folder outside native/, as a path from there, all of whose files are compiled or included. */
  readonly beside?: string;
}

/**
 * Hashes of a set's files by their sorted paths: the roots, and all files of native/ that they include with quotes.
 */
export function sourceHashes(
  { roots, beside }: SourceSet,
  native: string = join(packageFolder(), 'native'),
): Readonly<Record<string, string>> {
  const all = readdirSync(native, { recursive: true, encoding: 'utf8' });
  const outside = beside !== undefined && existsSync(join(native, beside)) ? readdirSync(join(native, beside)) : [];
  const names = new Set([...all.filter((name) => roots.test(name)), ...outside.map((name) => `${beside}/${name}`)]);
  const hashes = new Map<string, string>();
  for (const name of names) {
    const content = readFileSync(join(native, name), 'utf8');
    hashes.set(`${native}/${name}`, createHash('sha256').update(content).digest('hex'));
    for (const [, included = ''] of content.matchAll(/^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"/gm)) {
      const found = [join(dirname(name), included), normalize(included)].find((path) => existsSync(join(native, path)));
      if (found !== undefined && !found.startsWith('..')) names.add(found);
    }
  }
  return Object.fromEntries([...hashes].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** A hash of a set's files and of `inputs`, short enough for a file's name. */
export function sourceKey(
  set: SourceSet,
  inputs: readonly string[],
  native: string = join(packageFolder(), 'native'),
): string {
  const hash = createHash('sha256');
  for (const [path, content] of Object.entries(sourceHashes(set, native)))
    hash.update(`${path.slice(native.length)} ${content}\0`);
  return hash.update(inputs.join('\0')).digest('hex').slice(0, 16);
}
