// Declarations that a TypeScript user compiles: those reachable from the public ones import only Node's modules, so that they
// compile without the DOM's types and with every declaration file checked.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

const PUBLISHED = resolve(__dirname, '../src');

/** The modules that `file` and the declarations it leads to import by name, and which of them does. */
function packagesBehind(file: string, seen = new Set<string>()): string[] {
  if (seen.has(file)) return [];
  seen.add(file);
  const imports = readFileSync(file, 'utf8').matchAll(
    /(?:\bfrom|\bimport\s*\(|^\s*import)\s*['"]([^'"]+)['"]|<reference\s+(?:types|lib)="([^"]+)"/gm,
  );
  return [...imports].flatMap(([, name = '', reference]) => {
    if (name.startsWith('.')) return packagesBehind(declarationsOf(join(dirname(file), name)), seen);
    // TypeScript 7 finds Node's own types by this reference alone.
    if (reference === 'node' || (reference === undefined && name.startsWith('node:'))) return [];
    return [`${relative(PUBLISHED, file)}: ${reference ?? name}`];
  });
}

/** The declarations of a module, or of a folder's index. */
function declarationsOf(path: string): string {
  const file = `${path.replace(/\.js$/, '')}.d.ts`;
  return existsSync(file) ? file : join(path, 'index.d.ts');
}

it('the public types name no other package', () => {
  expect(packagesBehind(join(PUBLISHED, 'index.d.ts'))).toEqual([]);
});

it('a type of another package would be found', () => {
  expect(packagesBehind(join(PUBLISHED, 'cli/doctor.d.ts'))).toEqual(['cli/doctor.d.ts: yargs']);
});
