// A vocabulary as two tries over the bytes of its tokens, in which a walk finds all tokens that an expression allows. Long tokens, of which there are
// few, have a trie of their own: see `masks`.

import type { TokenBytes } from '../text/detokenize';

/** Nodes in depth-first order; children ascend by byte. Node i is the byte `bytes[i]` at depth `depths[i]` (from 1), and its subtree ends at `ends[i]`. */
export interface Trie {
  readonly bytes: Uint8Array;
  readonly depths: Int32Array;
  readonly ends: Int32Array;
  /** The tokens of node i are `tokens[firsts[i]]` to `tokens[firsts[i + 1] - 1]`. */
  readonly firsts: Int32Array;
  readonly tokens: Int32Array;
  readonly depth: number;
}

export interface Vocabulary {
  /** Number of logits. */
  readonly size: number;
  /** Tokens of at most `SHORT` bytes, and the others. */
  readonly short: Trie;
  readonly long: Trie;
  bytesOf(id: number): Uint8Array;
}

/** Maximum number of bytes of a short token. */
export const SHORT = 16;

/** The tokens that produce text; ids for which `isExcluded` holds produce none. */
export function vocabularyOf(tokens: TokenBytes, size: number, isExcluded: (id: number) => boolean): Vocabulary {
  const short: number[] = [];
  const long: number[] = [];
  for (let id = 0; id < size; id++) {
    if (tokens.isSpecial(id) || isExcluded(id)) continue;
    const { length } = tokens.bytesOf(id);
    if (length > 0) (length > SHORT ? long : short).push(id);
  }
  const bytesOf = (id: number): Uint8Array => tokens.bytesOf(id);
  return { size, short: trie(short, bytesOf), long: trie(long, bytesOf), bytesOf };
}

function trie(ids: readonly number[], bytesOf: (id: number) => Uint8Array): Trie {
  const sorted = sortedByBytes(ids, bytesOf);
  const most = sorted.reduce((sum, id) => sum + bytesOf(id).length, 0);
  const [bytes, depths, ends] = [new Uint8Array(most), new Int32Array(most), new Int32Array(most)];
  const firsts = new Int32Array(most + 1);
  const path: number[] = []; // the nodes from the root to the last token
  let count = 0;
  let depth = 0;
  let before: Uint8Array = new Uint8Array();
  for (const [at, id] of sorted.entries()) {
    const own = bytesOf(id);
    let shared = 0;
    while (shared < own.length && own[shared] === before[shared]) shared++;
    for (const node of path.splice(shared)) ends[node] = count;
    for (let i = shared; i < own.length; i++) {
      bytes[count] = own[i] ?? 0;
      depths[count] = i + 1;
      firsts[count] = at;
      path.push(count++);
    }
    depth = Math.max(depth, own.length);
    before = own;
  }
  for (const node of path) ends[node] = count;
  firsts[count] = sorted.length;
  return {
    ...{ bytes: bytes.slice(0, count), depths: depths.slice(0, count), ends: ends.slice(0, count) },
    ...{ firsts: firsts.slice(0, count + 1), tokens: sorted, depth },
  };
}

/** Sorts Latin-1 texts of the bytes, which takes a tenth of the time of comparing byte by byte. */
function sortedByBytes(ids: readonly number[], bytesOf: (id: number) => Uint8Array): Int32Array {
  const byText = new Map<string, number[]>();
  for (const id of ids) {
    const text = Buffer.from(bytesOf(id)).toString('latin1');
    const same = byText.get(text);
    if (same === undefined) byText.set(text, [id]);
    else same.push(id);
  }
  const texts = [...byText.keys()].sort();
  return Int32Array.from(texts.flatMap((text) => byText.get(text) ?? []));
}
