// What tfjs-node-gpu 4.22 needs to load on today's Node and from outside node_modules: two functions that
// Node ≥ 23 removed, and the path of its compiled binding. Touches no file of the package.

import { dirname, resolve } from 'node:path';
import { SparseVilaError } from '../errors';

const PACKAGE = '@tensorflow/tfjs-node-gpu';

/**
 * Gives `util` the two functions that tfjs-node calls: Node ≥ 23 has no `isNullOrUndefined`, and Node 22
 * warns about both at their first call. On Node < 22 nothing is changed.
 */
export function polyfillUtil(util: Record<string, unknown>, nodeVersion: string = process.versions.node): void {
  if (Number.parseInt(nodeVersion, 10) < 22) return;
  util.isNullOrUndefined = (value: unknown) => value === null || value === undefined;
  util.isArray = Array.isArray;
}

interface PreBinding {
  find(packageJson: string, ...rest: unknown[]): string;
}

/**
 * Makes node-pre-gyp answer `binding` when tfjs-node-gpu asks where its binding is; other packages get
 * node-pre-gyp's own answer. The patch is on the module's export, not on Node's loader, so it works under
 * jest too, where every spec file has its own copy of the module.
 */
export function redirectBinding(binding: string): void {
  const tfjsPackage = require.resolve(`${PACKAGE}/package.json`);
  const path = require.resolve('@mapbox/node-pre-gyp/lib/pre-binding.js', { paths: [dirname(tfjsPackage)] });
  const preBinding = require(path) as PreBinding;
  const find = preBinding.find;
  preBinding.find = (packageJson, ...rest) =>
    resolve(packageJson) === tfjsPackage ? binding : find(packageJson, ...rest);
}

/** The tfjs-core that tfjs-node-gpu itself uses: another copy would have an engine of its own, without our backend. */
export function resolveCore(): string {
  const tfjsNode = dirname(require.resolve(`${PACKAGE}/package.json`));
  const tfjs = dirname(require.resolve('@tensorflow/tfjs/package.json', { paths: [tfjsNode] }));
  return require.resolve('@tensorflow/tfjs-core', { paths: [tfjs] });
}

/** Loads a compiled module. Throws `ERR_BAD_NATIVE` with what the loader said. */
export function loadNative(path: string): unknown {
  try {
    return require(path);
  } catch (cause) {
    throw new SparseVilaError(
      'ERR_BAD_NATIVE',
      `Expected ${path} to load but it did not: ${cause instanceof Error ? cause.message : String(cause)}. ` +
        `Remove ${dirname(path)} and run \`npx sparsevila setup\`.`,
      { cause },
    );
  }
}
