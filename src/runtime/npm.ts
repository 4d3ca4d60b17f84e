// Fetches a package's archive by name with the installed npm, so that its configured registry, proxy and certificates are used. Runs no script of
// the package. Also works in projects of other package managers, because npm comes with Node.

import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { SparseVilaError } from '../errors';
import { fullDiskIn } from './atomic';
import type { Environment } from './paths';
import { findProgram, run } from './process';

/** The command for npm: the one that runs this process, the one in PATH, or the one beside Node; undefined if there is none. */
export function findNpm(
  env: Environment = process.env,
  node: string = process.execPath,
): readonly string[] | undefined {
  const caller = env.npm_execpath;
  if (caller !== undefined && basename(caller) === 'npm-cli.js' && existsSync(caller)) return [node, caller];
  const program = findProgram(['npm'], env);
  if (program !== undefined) return [program];
  const besideNode = join(dirname(dirname(node)), 'lib', 'node_modules', 'npm', 'bin', 'npm-cli.js');
  return existsSync(besideNode) ? [node, besideNode] : undefined;
}

/** @throws SparseVilaError `ERR_NO_NPM` */
export function requireNpm(env: Environment = process.env, node: string = process.execPath): readonly string[] {
  const npm = findNpm(env, node);
  if (npm !== undefined) return npm;
  throw new SparseVilaError(
    'ERR_NO_NPM',
    'Expected npm, to fetch the TensorFlow.js engine by name, but found none in PATH or beside Node. Node comes with npm: ' +
      'install it (Debian, Ubuntu: `apt install npm`), also where your project uses another package manager, and run set-up again.',
  );
}

/**
 * The environment for npm. Another package manager passes its own settings to child processes as if they were npm's (yarn 1: its registry);
 * without them npm reads the user's .npmrc files.
 */
export function npmEnvironment(env: Environment): Environment {
  const agent = env.npm_config_user_agent ?? 'npm/';
  if (agent.startsWith('npm/')) return {};
  const foreign = Object.keys(env).filter((name) => name.startsWith('npm_config_'));
  return Object.fromEntries(foreign.map((name) => [name, undefined]));
}

export interface PackOptions {
  readonly env: Environment;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Fetches the archive of `name@version` into `folder`, which exists and is empty, and returns its path.
 * @throws SparseVilaError `ERR_NO_NPM`, `ERR_FETCH`; `signal.reason`
 */
export async function fetchPackage(
  name: string,
  version: string,
  folder: string,
  options: PackOptions,
): Promise<string> {
  const [program = 'npm', ...args] = requireNpm(options.env);
  // Run in the working directory, whose .npmrc applies. User settings that would change the command's behavior are reset.
  args.push('pack', `${name}@${version}`, '--pack-destination', folder, '--ignore-scripts', '--no-dry-run');
  args.push(
    '--prefer-offline',
    '--no-global',
    '--no-update-notifier',
    '--no-progress',
    '--loglevel=error',
    '--no-workspaces',
  );
  const env = { ...options.env, ...npmEnvironment(options.env) };
  const result = await run(program, args, { env, signal: options.signal });
  const [file, ...more] = (await readdir(folder)).filter((entry) => entry.endsWith('.tgz'));
  if (result.code === 0 && file !== undefined && more.length === 0) return join(folder, file);
  throw (
    fullDiskIn(result.tail, folder) ??
    new SparseVilaError(
      'ERR_FETCH',
      `Expected npm to fetch ${name}@${version} but it ended with exit code ${result.code}:\n${result.tail.slice(-12).join('\n')}\n` +
        'Check the network and npm’s registry (`npm config get registry`, `npm ping`), then run set-up again.',
    )
  );
}
