// The files of native/kernels that are for one instruction-set level, and the flags with which CMake compiles them.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageFolder } from '../../src/runtime/paths';

export const NATIVE = join(packageFolder(), 'native');

/** The names without `.cc` of the files whose suffix is a level that `pattern` matches. */
export function levelFiles(pattern: RegExp): { readonly file: string; readonly level: string }[] {
  return readdirSync(join(NATIVE, 'kernels')).flatMap((name) => {
    const [, file, level] = /^(\w+_([a-z0-9]+))\.cc$/.exec(name) ?? [];
    return file !== undefined && level !== undefined && pattern.test(level) ? [{ file, level }] : [];
  });
}

/** A level's flags, from the same lines that CMake reads. */
export function flagsOf(level: string): string[] {
  const cmake = readFileSync(join(NATIVE, 'CMakeLists.txt'), 'utf8');
  const variable = (name: string): string => new RegExp(`set\\(${name} ([^)"]*)\\)`).exec(cmake)?.[1] ?? '';
  const expand = (text: string): string => text.replace(/\$\{(\w+)\}/g, (_, name: string) => expand(variable(name)));
  return expand(`${variable('kernel_flags')} ${level === 'portable' ? '' : variable(`isa_${level}`)}`)
    .split(/\s+/)
    .filter((flag) => flag !== '');
}
