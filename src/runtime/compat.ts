// Loads the engine, tfjs-node-gpu 4.22, instead of its own index.js: on current Node versions, which lack two functions that it calls, with the
// project's copy of tfjs-core and the binding that set-up compiled. Works under jest, where each spec file has its own module instances.

import { dirname, join } from 'node:path';
import { SparseVilaError } from '../errors';
import { requirePackage } from '../packages';
import { ENGINE_PACKAGE, enginePackage } from './engine';
import type { Tf } from './tensor';

/**
 * Gives `util` the two functions that tfjs-node calls: Node ≥ 23 has no `isNullOrUndefined`, and Node 22
 * warns about both at their first call. On Node < 22 nothing is changed.
 */
export function polyfillUtil(util: Record<string, unknown>, nodeVersion: string = process.versions.node): void {
  if (Number.parseInt(nodeVersion, 10) < 22) return;
  util.isNullOrUndefined = (value: unknown) => value === null || value === undefined;
  util.isArray = Array.isArray;
}

/** The functions of tfjs-core that register a backend. */
interface Core extends Tf {
  registerBackend(name: string, make: () => unknown, priority: number): boolean;
  setBackend(name: string): boolean;
}

const BACKEND = 'tensorflow';

/** Marks the backend: a second copy of this module in the process recognizes it, because tfjs's engine is global. */
const OURS = Symbol.for('sparsevila.backend');
type Marked = { [OURS]?: true };

/**
 * Gives the engine in `folder` our tfjs-core and registers its backend on `binding`, as tfjs-node's own index.js would.
 * @throws SparseVilaError `ERR_PACKAGE_INCOMPLETE` without tfjs-core; `ERR_BACKEND` where another backend has the name
 */
export function loadEngine(folder: string, binding: string): Tf {
  const core = requirePackage<Core>('@tensorflow/tfjs-core');
  const present = core.findBackend(BACKEND) as Marked | null;
  if (present !== null && present[OURS] !== true) {
    throw new SparseVilaError(
      'ERR_BACKEND',
      `Expected to register tfjs's backend '${BACKEND}' but the process has another one of that name. Load either tfjs-node ` +
        'or this package in a process, not both.',
    );
  }
  if (present === null) {
    const backend = makeBackend(folder, core, binding);
    core.registerBackend(BACKEND, () => backend, 3);
  }
  core.setBackend(BACKEND);
  return core;
}

/** Registers the engine's kernels and makes its backend. */
function makeBackend(folder: string, core: Core, binding: string): Marked {
  const dist = join(enginePackage(folder), 'dist');
  (require(join(folder, 'core.js')) as { tf: unknown }).tf = core;
  require(join(dist, 'register_all_kernels.js'));
  const { NodeJSKernelBackend } = require(join(dist, 'nodejs_kernel_backend.js')) as {
    NodeJSKernelBackend: new (binding: unknown, name: string) => Marked;
  };
  return Object.assign(new NodeJSKernelBackend(loadNative(binding), ENGINE_PACKAGE), { [OURS]: true as const });
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
