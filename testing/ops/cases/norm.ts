// Cases of `rmsNorm` and `layerNorm`.

import { layerNorm, rmsNorm } from '../../../src/ops/norm';
import { float32 } from '../../../src/ops/run';
import type { Tensor } from '../../../src/runtime/tensor';
import { layerNormReference, rmsNormReference } from '../references/norm';
import { coldCopies, compare, inTurn, keeper, type OpCase, type PreparedCase, take } from './case';
import { aroundOne, noise } from './data';

const EPS = 1e-6;

interface NormSizes {
  readonly t: number;
  readonly d: number;
  /** Added to every input: a mean that dwarfs the deviation is what breaks one-pass variances. */
  readonly offset?: number;
  readonly big?: boolean;
}

function normCase(op: 'rmsNorm' | 'layerNorm', { t, d, offset = 0, big = false }: NormSizes): OpCase {
  const prepare = (): PreparedCase => {
    const keep = keeper();
    const x = noise(`${op} ${t} ${d} x`, t * d).map((value) => value + offset);
    const [w, b] = [aroundOne(`${op} w`, d), noise(`${op} b`, d)];
    const next = inTurn(Array.from({ length: big ? coldCopies(4 * t * d) : 1 }, () => keep.tensor(float32(x, [t, d]))));
    const [weight, bias] = [keep.tensor(float32(w, [d])), keep.tensor(float32(b, [d]))];
    const eps = keep.tensor(float32([EPS], [1]));
    const run = (): Tensor[] => [
      op === 'rmsNorm' ? rmsNorm(next(), weight, eps) : layerNorm(next(), weight, bias, eps),
    ];
    return {
      run,
      check() {
        const [y = new Float32Array()] = take(run());
        const e = Math.fround(EPS);
        return [compare('y', y, op === 'rmsNorm' ? rmsNormReference(x, w, e) : layerNormReference(x, w, b, e))];
      },
      bytes: 8 * t * d,
      flops: 0,
      dispose: keep.dispose,
    };
  };
  const name = `${t}x${d}${offset === 0 ? '' : ` around ${offset}`}`;
  return { op, name, dtype: 'f32', tolerance: 'f32', big, prepare };
}

export const NORM_CASES: readonly OpCase[] = (['rmsNorm', 'layerNorm'] as const).flatMap((op) => [
  normCase(op, { t: 1, d: 1027 }),
  normCase(op, { t: 37, d: 131 }),
  normCase(op, { t: 3, d: 5 }),
  normCase(op, { t: 5, d: 72, offset: 30 }),
  normCase(op, op === 'rmsNorm' ? { t: 512, d: 896, big: true } : { t: 1024, d: 1152, big: true }),
]);
