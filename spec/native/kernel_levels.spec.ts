// The kernels of every level of ARM, compiled by a cross-compiler and run by an emulator: they give the bits of AVX2 in every number,
// dispatch finds what a processor has, and no file of a level defines a weak symbol (see symbols.spec.ts). No time is measured.

import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ARM_PROCESSORS, findArmTools } from '../support/emulator';
import { flagsOf, levelFiles, NATIVE } from '../support/kernel_flags';
import { requireCompiler } from '../support/standin';

const compile = promisify(execFile);
const tools = process.arch === 'x64' ? findArmTools() : undefined;
const onArm = tools === undefined ? test.skip : test;
const HARNESS = { file: '../../spec/native/kernel_levels', level: '' };
/** The levels of ARM, with a processor on which they have to run. */
const LEVELS = [
  ['neon', ARM_PROCESSORS.neon],
  ['dotprod', ARM_PROCESSORS.dotprod],
  ['i8mm', ARM_PROCESSORS.bf16],
  ['bf16', ARM_PROCESSORS.bf16],
] as const;
const ARM_FILES = levelFiles(/^(neon|dotprod|i8mm|bf16)$/);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-levels-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Compiles files of native/kernels and the harness into a program, two files at a time. */
async function build(
  compiler: string,
  files: readonly { readonly file: string; readonly level: string }[],
  name: string,
  link: readonly string[] = [],
): Promise<string> {
  const object = (file: string): string => join(folder, `${name}-${file.replace(/^.*\//, '')}.o`);
  const all = [...files, HARNESS];
  const one = ({ file, level }: { readonly file: string; readonly level: string }): Promise<unknown> => {
    const flags = ['-std=c++17', '-O1', '-DNDEBUG', '-fvisibility=hidden', `-I${NATIVE}`, ...flagsOf(level)];
    return compile(compiler, [...flags, '-c', join(NATIVE, 'kernels', `${file}.cc`), '-o', object(file)]);
  };
  for (let i = 0; i < all.length; i += 2) await Promise.all(all.slice(i, i + 2).map(one));
  const program = join(folder, name);
  await compile(compiler, [...link, ...all.map(({ file }) => object(file)), '-o', program]);
  return program;
}

describe('kernels of ARM', () => {
  let arm: string;
  let expected: string[];
  beforeAll(async () => {
    if (tools === undefined) return;
    const portable = levelFiles(/^portable$/);
    arm = await build(tools.compiler, [...ARM_FILES, ...portable, { file: 'dispatch', level: 'portable' }], 'arm', [
      '-static',
    ]);
    const avx2 = await build(requireCompiler(), levelFiles(/^avx2$/), 'x86');
    expected = (await compile(avx2, ['avx2'], { maxBuffer: 1 << 26 })).stdout.trim().split('\n');
  });

  onArm.each(LEVELS)('%s gives the bits of AVX2 on a %s', (level, processor) => {
    const lines = tools?.run(processor, arm, [level]).trim().split('\n') ?? [];
    const [, worst] = /^worst: (\S+)/.exec(lines.at(-1) ?? '') ?? [];
    expect(lines.slice(0, -1).filter((line, i) => line !== expected[i])).toEqual([]);
    expect(lines).toHaveLength(expected.length + 1);
    expect(expected.length).toBeGreaterThan(600);
    // Against the portable level, which does not fuse: the greatest is a long chain of an attention.
    expect(Number(worst)).toBeLessThan(1e-10);
  });

  onArm('dispatch takes the best level that a processor has, and refuses those that it lacks', () => {
    const features = (processor: string) => tools?.run(processor, arm, ['features']).trim();
    expect(features(ARM_PROCESSORS.neon)).toBe('neon; neon');
    expect(features(ARM_PROCESSORS.dotprod)).toBe('neon dotprod; dotprod');
    expect(features(ARM_PROCESSORS.bf16)).toBe('neon dotprod i8mm bf16; bf16');
    expect(() => tools?.run(ARM_PROCESSORS.dotprod, arm, ['i8mm'])).toThrow('does not have that instruction set');
    expect(() => tools?.run(ARM_PROCESSORS.bf16, arm, ['avx2'])).toThrow(
      'expected portable, neon, dotprod, i8mm or bf16',
    );
  });

  onArm.each(ARM_FILES)('$file defines no weak symbol', async ({ file }) => {
    const { stdout } = await compile(tools?.nm ?? '', ['-C', join(folder, `arm-${file}.o`)]);
    expect(stdout).toMatch(/ [RTD] /i);
    expect(stdout.split('\n').filter((line) => / [VWu] /.test(line))).toEqual([]);
  });
});

test('every level of ARM has its files', () => {
  expect(ARM_FILES.map(({ file }) => file).sort()).toEqual(
    [
      'dot_bf16',
      'level_neon',
      'quantize_neon',
      ...['int4', 'int8'].flatMap((name) => [`${name}_neon`, `${name}_dotprod`, `${name}_i8mm`]),
    ].sort(),
  );
});
