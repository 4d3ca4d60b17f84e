// The commands that repair an installation, `doctor` and `setup`, and --version, without yargs: they also run where packages are missing.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { codeOf, messageOf } from '../errors';
import { missingPackage } from '../packages';
import { packageFolder } from '../runtime/paths';
import { UsageError } from './usage';

const HELP: Readonly<Record<string, string>> = {
  doctor: 'sparsevila doctor [--json]\n\nCheck this machine: what is installed, what is missing, and how to fix it.\n',
  setup: 'sparsevila setup [--gpu | --no-gpu] [--json]\n\nFetch the engine and compile the native modules.\n',
};

/** yargs, an ES module, which a CommonJS module can load only by `import()`; or the error if it cannot be loaded. */
export async function loadYargs(): Promise<
  typeof import('yargs', { with: { 'resolution-mode': 'import' }}).default | Error
> {
  try {
    return (await import('yargs')).default;
  } catch (error) {
    return missingPackage('yargs', error);
  }
}

/** The package's version. */
export function version(): string {
  return (JSON.parse(readFileSync(join(packageFolder(), 'package.json'), 'utf8')) as { version: string }).version;
}

/** Runs `doctor`, `setup` or `--version`. @throws `missing` for everything else; UsageError for unknown options */
export async function runBare(command: string | undefined, args: readonly string[], missing: Error): Promise<void> {
  if (command === undefined && args.includes('--version')) {
    process.stdout.write(`${version()}\n`);
    return;
  }
  if (command !== 'doctor' && command !== 'setup') throw missing;
  const flag = { type: 'boolean' } as const;
  const options = { json: flag, help: { ...flag, short: 'h' }, debug: flag, ...(command === 'setup' && { gpu: flag }) };
  const { json = false, help = false, gpu } = parse(args, options);
  if (help) process.stdout.write(HELP[command] ?? '');
  else if (command === 'doctor') await (await import('./doctor.js')).runDoctor({ json });
  else await (await import('./setup.js')).runSetup({ json, gpu });
}

function parse(
  args: readonly string[],
  options: ParseArgsConfig['options'],
): { json?: boolean; help?: boolean; gpu?: boolean } {
  try {
    return parseArgs({ args: [...args], options, allowNegative: true, strict: true }).values;
  } catch (error) {
    throw new UsageError(messageOf(error));
  }
}

/** Turns Node's error about a missing package into one that names the command to install it; returns other errors unchanged. */
export function asPackageError(error: unknown): unknown {
  const code = codeOf(error);
  if (code !== 'MODULE_NOT_FOUND' && code !== 'ERR_MODULE_NOT_FOUND') return error;
  const [, name] = /^Cannot find (?:module|package) '((?:@[^/']+\/)?[^./'][^/']*)/.exec(messageOf(error)) ?? [];
  return name === undefined ? error : missingPackage(name, error);
}
