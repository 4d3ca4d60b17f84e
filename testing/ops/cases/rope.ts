// Cases of `rope`.

import { rope, ropeTable } from '../../../src/ops/rope';
import { float32, floats } from '../../../src/ops/run';
import { ropeReference } from '../references/rope';
import { coldCopies, compare, inTurn, keeper, type OpCase, type PreparedCase, take } from './case';
import { noise } from './data';

/** Inverse frequencies of Qwen2: base^(-2 j / c). */
export function inverseFrequencies(c: number, base = 1e6): Float64Array {
  return Float64Array.from({ length: c / 2 }, (_, j) => base ** ((-2 * j) / c));
}

function ropeCase(t: number, heads: number, c: number, big = false): OpCase {
  const prepare = (): PreparedCase => {
    const keep = keeper();
    const x = noise(`rope ${t} ${heads} ${c}`, t * heads * c);
    const positions = Array.from({ length: t }, (_, i) => i * 131 + 7);
    const table = keep.tensor(ropeTable(positions, inverseFrequencies(c)));
    const next = inTurn(
      Array.from({ length: big ? coldCopies(4 * x.length) : 1 }, () => keep.tensor(float32(x, [t, heads, c]))),
    );
    const run = () => [rope(next(), table)];
    return {
      run,
      check() {
        const [y = new Float32Array()] = take(run());
        return [compare('y', y, ropeReference(x, floats(table), heads, c))];
      },
      bytes: 8 * x.length,
      flops: 0,
      dispose: keep.dispose,
    };
  };
  return { op: 'rope', name: `${t}x${heads}x${c}`, dtype: 'f32', tolerance: 'f32', big, prepare };
}

export const ROPE_CASES: readonly OpCase[] = [
  ropeCase(1, 7, 72),
  ropeCase(37, 3, 40),
  ropeCase(5, 1, 2),
  ropeCase(512, 14, 64, true),
];
