// Cases of `sample`: every filter, ties, numbers at the borders of shares, and rows that are drawn from together.

import { float32 } from '../../../src/ops/run';
import { sample } from '../../../src/ops/sample';
import type { Draw } from '../../../src/text/draw';
import { sampleReference } from '../references/sample';
import { coldCopies, compare, inTurn, keeper, type OpCase, type PreparedCase, take } from './case';
import { noise, random } from './data';

interface SampleSizes extends Omit<Draw, 'uniform'> {
  readonly v: number;
  /** Rounds logits, so that many are equal. */
  readonly ties?: boolean;
  readonly big?: boolean;
}

/** Numbers that are drawn with in turn, the ends of [0, 1) among them. */
const UNIFORM = [0, 1 - 2 ** -24, ...Array.from({ length: 10 }, random('uniform'))];

function sampleCase({ v, ties = false, big = false, ...draw }: SampleSizes): OpCase {
  const prepare = (): PreparedCase => {
    const keep = keeper();
    const logits = noise(`sample ${v}`, v, 3).map((x) => (ties ? Math.round(x) : x));
    const next = inTurn(
      Array.from({ length: big ? coldCopies(4 * v) : 1 }, () => keep.tensor(float32(logits, [1, v]))),
    );
    const draws = big ? UNIFORM.slice(-1) : UNIFORM;
    const run = () => draws.map((uniform) => sample(next(), { ...draw, uniform }));
    return {
      run,
      check() {
        const ids = take(run()).flatMap((id) => [...id]);
        const expected = draws.map((uniform) => sampleReference(logits, { ...draw, uniform }));
        return [compare('ids', ids, expected)];
      },
      bytes: 4 * v,
      flops: 0,
      dispose: keep.dispose,
    };
  };
  const { temperature, topK, topP } = draw;
  const name = `${v}, temperature ${temperature}, top-k ${topK}, top-p ${topP}${ties ? ', ties' : ''}`;
  return { op: 'sample', name, dtype: 'f32', tolerance: 'exact', big, prepare };
}

/** Rows with a draw each, in one call. */
function rowsCase(v: number, draws: readonly Draw[]): OpCase {
  const prepare = (): PreparedCase => {
    const keep = keeper();
    const logits = draws.map((_, row) => noise(`sample row ${row}`, v, 3));
    const all = Float32Array.from(logits.flatMap((row) => [...row]));
    const tensor = keep.tensor(float32(all, [draws.length, v]));
    const run = () => [sample(tensor, ...draws)];
    return {
      run,
      check: () => [
        compare(
          'ids',
          take(run()).flatMap((ids) => [...ids]),
          draws.map((draw, row) => sampleReference(logits[row] as Float32Array, draw)),
        ),
      ],
      bytes: 4 * all.length,
      flops: 0,
      dispose: keep.dispose,
    };
  };
  return { op: 'sample', name: `${draws.length} rows of ${v}`, dtype: 'f32', tolerance: 'exact', big: false, prepare };
}

export const SAMPLE_CASES: readonly OpCase[] = [
  sampleCase({ v: 1, temperature: 0.7, topK: 3, topP: 0.5 }),
  ...[false, true].flatMap((ties) => [
    sampleCase({ v: 1031, temperature: 0, topK: 0, topP: 1, ties }),
    sampleCase({ v: 1031, temperature: 1, topK: 0, topP: 1, ties }),
    sampleCase({ v: 1031, temperature: 0.3, topK: 7, topP: 1, ties }),
    sampleCase({ v: 1031, temperature: 1.7, topK: 0, topP: 0.8, ties }),
    sampleCase({ v: 1031, temperature: 0.9, topK: 50, topP: 0.9, ties }),
  ]),
  rowsCase(1031, [
    { temperature: 0, topK: 0, topP: 1, uniform: 0 },
    { temperature: 1.3, topK: 0, topP: 1, uniform: 0.9 },
    { temperature: 0.8, topK: 7, topP: 1, uniform: 0.2 },
    { temperature: 1, topK: 100, topP: 0.7, uniform: 0.999 },
    { temperature: 1.3, topK: 0, topP: 1, uniform: 0.1 },
  ]),
  sampleCase({ v: 152064, temperature: 0, topK: 0, topP: 1, big: true }),
  sampleCase({ v: 152064, temperature: 0.7, topK: 20, topP: 0.8, big: true }),
];
