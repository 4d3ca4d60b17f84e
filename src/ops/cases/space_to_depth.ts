// Cases of `spaceToDepth`.

import { float32 } from '../run';
import { spaceToDepth, spaceToDepthReference } from '../space_to_depth';
import { coldCopies, compare, inTurn, keeper, type OpCase, type PreparedCase, take } from './case';
import { noise } from './data';

function spaceToDepthCase(h: number, w: number, c: number, k: number, big = false): OpCase {
  const prepare = (): PreparedCase => {
    const keep = keeper();
    const x = noise(`s2d ${h} ${w} ${c}`, h * w * c);
    const next = inTurn(
      Array.from({ length: big ? coldCopies(4 * x.length) : 1 }, () => keep.tensor(float32(x, [h * w, c]))),
    );
    const run = () => [spaceToDepth(next(), h, w, k)];
    return {
      run,
      check() {
        const [y = new Float32Array()] = take(run());
        return [compare('y', y, spaceToDepthReference(x, h, w, k))];
      },
      bytes: 4 * (x.length + Math.ceil(h / k) * Math.ceil(w / k) * k * k * c),
      flops: 0,
      dispose: keep.dispose,
    };
  };
  return { op: 'spaceToDepth', name: `${h}x${w}x${c} by ${k}`, dtype: 'f32', tolerance: 'exact', big, prepare };
}

export const SPACE_TO_DEPTH_CASES: readonly OpCase[] = [
  spaceToDepthCase(5, 7, 9, 2),
  spaceToDepthCase(4, 6, 131, 3),
  spaceToDepthCase(2, 3, 5, 1),
  spaceToDepthCase(1, 1, 3, 4),
  spaceToDepthCase(32, 32, 1152, 2, true),
];
