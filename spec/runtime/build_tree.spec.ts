// The build folder: kept in a clone, never shared, and never reused after a kill.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { inBuildTree } from '../../src/runtime/build_tree';
import { takeLock } from '../../src/runtime/lock';
import { leaveLock } from './locks';

let cache: string;
beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), 'sparsevila-build-'));
});
afterEach(() => rmSync(cache, { recursive: true }));

/** Builds by noting `text` in the tree; gives the tree's path and the notes it had before. */
async function built(text: string, signal?: AbortSignal, sources = {}): Promise<{ tree: string; before: string[] }> {
  const result = { tree: '', before: [] as string[] };
  await inBuildTree({ cache, inputs: ['a'], sources, temporary: join(cache, 'temporary'), signal }, async (tree) => {
    result.tree = tree;
    result.before = readdirSync(tree).filter((name) => name !== 'sources.json');
    writeFileSync(join(tree, text), text);
  });
  return result;
}

describe('inBuildTree', () => {
  test('keeps the tree for the next build, and no lock', async () => {
    const first = await built('one');
    const second = await built('two');
    expect(second.tree).toBe(first.tree);
    expect(second.before).toEqual(['one']);
    expect(readdirSync(cache)).toEqual([basename(first.tree)]);
  });

  test('builds elsewhere while another process is building', async () => {
    const { tree } = await built('one');
    const lock = takeLock(`${tree}.lock`);
    expect(await built('two')).toEqual({ tree: join(cache, 'temporary'), before: [] });
    expect(existsSync(join(cache, 'temporary'))).toBe(false);
    lock.release();
    expect((await built('three')).tree).toBe(tree);
  });

  test('wipes the tree of a process that was killed', async () => {
    const { tree } = await built('half an object file');
    leaveLock(`${tree}.lock`);
    // The compilers of the dead process may still be writing below the tree, so this call does not use it.
    expect(await built('two')).toEqual({ tree: join(cache, 'temporary'), before: [] });
    expect(readdirSync(cache)).toEqual([]);
    expect(await built('three')).toEqual({ tree, before: [] });
  });

  test('wipes the tree when a source changed under an old date, and only then', async () => {
    const source = join(cache, 'a.cc');
    writeFileSync(source, '');
    const dated = (seconds: number) => utimesSync(source, seconds, seconds);
    dated(0);
    await built('one', undefined, { [source]: 'hash 1' });
    expect((await built('two', undefined, { [source]: 'hash 1' })).before).toEqual(['one']);
    dated(2 ** 32);
    expect((await built('three', undefined, { [source]: 'hash 2' })).before).toEqual(['one', 'two']);
    dated(0);
    expect((await built('four', undefined, { [source]: 'hash 3' })).before).toEqual([]);
  });

  test('keeps the tree after a failed build, and wipes it after a stopped one', async () => {
    const options = { cache, inputs: ['a'], sources: {}, temporary: join(cache, 'temporary') };
    const fail = async (tree: string) => {
      mkdirSync(join(tree, 'object'));
      throw new Error('syntax error');
    };
    await expect(inBuildTree(options, fail)).rejects.toThrow('syntax error');
    expect((await built('two')).before).toEqual(['object']);
    const { tree } = await built('three', AbortSignal.abort());
    expect(readdirSync(cache)).toEqual([]);
    expect(existsSync(tree)).toBe(false);
  });
});
