// Checks the packages that this one needs in node_modules one by one, so that an error names the missing one and the command that installs it.

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { codeOf, messageOf, SparseVilaError } from './errors';

/** The folder of this package; this module is in its dist/src. */
const PACKAGE = dirname(dirname(__dirname));

/** For each package manager, the commands that install all packages of a project's lock file, optional ones included, and that add one. */
const INSTALL: readonly (readonly [lockFile: string, command: string, add: string])[] = [
  ['pnpm-lock.yaml', 'pnpm install --force', 'pnpm add'],
  ['yarn.lock', 'yarn install --force', 'yarn add'],
  ['bun.lock', 'bun install --force', 'bun add'],
  ['bun.lockb', 'bun install --force', 'bun add'],
];
const NPM_INSTALL = 'npm install --include=optional';

/**
 * The command that installs missing packages, chosen by the lock file of the project that contains this package.
 * @param peer an optional peer dependency, which no lock file has before it is added
 */
export function installCommand(from: string = PACKAGE, peer?: string): string {
  for (let folder = from; ; folder = dirname(folder)) {
    const found = INSTALL.find(([lockFile]) => existsSync(join(folder, lockFile)));
    if (found !== undefined) return peer === undefined ? found[1] : `${found[2]} ${peer}`;
    if (folder === dirname(folder) || existsSync(join(folder, 'package-lock.json')))
      return peer === undefined ? NPM_INSTALL : `npm install ${peer}`;
  }
}

interface Manifest {
  readonly dependencies: Readonly<Record<string, string>>;
  readonly peerDependencies: Readonly<Record<string, string>>;
}

const manifest = (): Manifest => JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8'));

export interface PackageProblem {
  readonly name: string;
  readonly found: string;
  /** The command that installs it. */
  readonly command: string;
}

/** The `dependencies` of our package.json that are missing or cannot be loaded. */
export function packageProblems(): readonly PackageProblem[] {
  const command = installCommand();
  return Object.keys(manifest().dependencies).flatMap((name) => {
    if (!isThere(name)) return [{ name, found: 'not in node_modules', command }];
    // sharp has a native part, which is in separate optional packages.
    const error = name === 'sharp' ? loadError(name) : undefined;
    return error === undefined ? [] : [{ name, found: `does not load: ${error}`, command }];
  });
}

/** Whether a package is in a visible node_modules folder. It need not have a main file, or one for `require`. */
function isThere(name: string): boolean {
  const folders = require.resolve.paths(name) ?? [];
  if (folders.some((folder) => existsSync(join(folder, name, 'package.json')))) return true;
  try {
    return require.resolve(name) !== '';
  } catch (error) {
    return codeOf(error) !== 'MODULE_NOT_FOUND';
  }
}

function loadError(name: string): string | undefined {
  try {
    require(name);
    return undefined;
  } catch (error) {
    return firstLine(messageOf(error));
  }
}

/** The path of a package's file. @throws SparseVilaError `ERR_PACKAGE_INCOMPLETE` */
export function resolvePackage(request: string): string {
  try {
    return require.resolve(request);
  } catch (cause) {
    throw missingPackage(request, cause);
  }
}

/** A package's exports. @throws SparseVilaError `ERR_PACKAGE_INCOMPLETE` if it is missing or does not load */
export function requirePackage<T>(name: string): T {
  try {
    return require(name) as T;
  } catch (cause) {
    throw missingPackage(name, cause);
  }
}

/** The error for a missing package `name`, or for one that does not load because of `cause`. */
export function missingPackage(name: string, cause: unknown): SparseVilaError {
  const isMissing = codeOf(cause) === 'MODULE_NOT_FOUND' || codeOf(cause) === 'ERR_MODULE_NOT_FOUND';
  const found = isMissing ? 'it is not there' : `it does not load (${firstLine(messageOf(cause))})`;
  const range = manifest().peerDependencies[name];
  const command = installCommand(PACKAGE, range === undefined ? undefined : `${name}@${range}`);
  return new SparseVilaError(
    'ERR_PACKAGE_INCOMPLETE',
    `Expected the package ${name} in node_modules but ${found}. Run \`${command}\` in your project.`,
    { cause },
  );
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? '';
}
