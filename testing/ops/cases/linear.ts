// Cases of `linear`, `gatedMlp` and `embed`. Sizes are odd and all different, so that an exchanged dimension is detected.

import { type Activation, embed, gatedMlp, linear } from '../../../src/ops/linear';
import { float32 } from '../../../src/ops/run';
import { packArrays, WEIGHT_BYTES, type WeightType } from '../../../src/ops/weights';
import { gatedLinearReference, gatedMlpReference, linearReference } from '../references/linear';
import { coldCopies, compare, inTurn, keeper, type OpCase, once, type PreparedCase, take } from './case';
import { elementsOf, noise, rowsOf, sample, weightValues } from './data';
import {
  INT4_GRID,
  type Int4Grid,
  isInt4,
  packer,
  type StoredType,
  storedBytes,
  storedValues,
  toleranceOf,
} from './stored';

/** A product is bound by memory when it has at most this many rows. */
const FEW_ROWS = 8;
const SAMPLED_ROWS = 5;
const SAMPLED_OUTPUTS = 61;

export interface LinearSizes {
  readonly t: number;
  readonly k: number;
  readonly n: number;
  readonly type: StoredType;
  readonly grid?: Int4Grid;
  readonly dot?: boolean;
  readonly bias?: boolean;
  readonly activation?: Activation;
  /** Gate and up, [n, k] each. */
  readonly gated?: boolean;
  readonly big?: boolean;
}

/** Tolerance and storage follow from `type`. */
export function linearCase(sizes: LinearSizes): OpCase {
  const { t, k, n, type, grid = INT4_GRID, dot = false, bias = false, gated = false, big = false } = sizes;
  const { activation = 'none' } = sizes;
  const texts = [
    gridName(type, grid),
    gated ? 'gated' : '',
    bias ? 'bias' : '',
    activation === 'none' ? '' : activation,
  ];
  const extras = texts.filter((text) => text !== '').join(' ');
  return {
    op: 'linear',
    name: `${t}x${k}x${n}${extras && ` ${extras}`}`,
    dtype: dot ? 'bf16 dot' : type,
    tolerance: gated && type === 'int4 fast' ? 'int4FastGated' : toleranceOf(type, dot),
    big,
    prepare: () => prepareLinear({ ...sizes, grid, dot, bias, activation, gated, big }),
  };
}

/** Of a 4-bit matrix, else empty. */
function gridName(type: StoredType, { group, stored, zeros, scales }: Int4Grid): string {
  if (!isInt4(type)) return '';
  return `group ${group}${group === stored ? '' : ` as ${stored}`} zeros ${zeros} scales ${scales}`;
}

function prepareLinear(sizes: Required<LinearSizes>): PreparedCase {
  const { t, k, n, type, grid, dot, bias, activation, gated, big } = sizes;
  const keep = keeper();
  const seed = `linear ${t} ${k} ${n} ${type} `;
  const x = noise(`${seed}x`, t * k);
  const parts = (gated ? ['gate', 'up'] : ['w']).map((name) => storedValues(seed + name, n, k, type, grid));
  const b = noise(`${seed}b`, bias ? parts.length * n : 0);
  const weightBytes = parts.length * storedBytes(type, n, k, grid);
  const copies = big && t <= FEW_ROWS ? coldCopies(weightBytes) : 1;
  const pack = packer(parts, k, type, { grid, roundActivations: dot, gated });
  const matrices = Array.from({ length: copies }, () => keep.matrix(pack()));
  const next = inTurn(matrices);
  const [input, biases] = [keep.tensor(float32(x, [t, k])), keep.tensor(float32(b, [b.length]))];
  const run = () => [linear(input, next(), biases, activation)];
  const [rows, outputs] = [sample(t, big ? SAMPLED_ROWS : t), sample(n, big ? SAMPLED_OUTPUTS : n)];
  const expected = once(() => {
    const some = bias ? elementsOf(b, [...outputs, ...(gated ? outputs.map((at) => n + at) : [])]) : undefined;
    const [w, up] = parts.map((part) => rowsOf(part, k, outputs)) as [Float64Array, Float64Array?];
    const input = rowsOf(x, k, rows);
    if (up !== undefined) return gatedLinearReference(input, { gate: w, up, bias: some }, k, activation);
    return linearReference(input, w, k, some, activation);
  });
  return {
    run,
    check() {
      const [y = new Float32Array()] = take(run());
      const places = rows.flatMap((row) => outputs.map((output) => row * n + output));
      return [compare('y', y.length === t * n ? elementsOf(y, places) : y, expected())];
    },
    bytes: weightBytes + 4 * (t * k + t * n + b.length),
    flops: 2 * t * k * n * parts.length,
    dispose: keep.dispose,
  };
}

export interface MlpSizes {
  readonly t: number;
  readonly d: number;
  readonly m: number;
  readonly type: StoredType;
  readonly grid?: Int4Grid;
  readonly dot?: boolean;
  readonly big?: boolean;
}

export function mlpCase(sizes: MlpSizes): OpCase {
  const { t, d, m, type, grid = INT4_GRID, dot = false, big = false } = sizes;
  return {
    op: 'gatedMlp',
    name: [`${t}x${d}x${m}`, gridName(type, grid)].filter((text) => text !== '').join(' '),
    dtype: dot ? 'bf16 dot' : type,
    tolerance: type === 'int4 fast' ? 'int4FastGated' : toleranceOf(type, dot),
    big,
    prepare: () => prepareMlp({ ...sizes, grid, dot, big }),
  };
}

function prepareMlp({ t, d, m, type, grid, dot, big }: Required<MlpSizes>): PreparedCase {
  const keep = keeper();
  const seed = `mlp ${t} ${d} ${m} ${type} `;
  const x = noise(`${seed}x`, t * d);
  const matrix = (name: string, rows: number, k: number) => storedValues(seed + name, rows, k, type, grid);
  const [gate, up, down] = [matrix('gate', m, d), matrix('up', m, d), matrix('down', d, m)];
  const weightBytes = 2 * storedBytes(type, m, d, grid) + storedBytes(type, d, m, grid);
  const options = { grid, roundActivations: dot };
  const packGateUp = packer([gate, up], d, type, { ...options, gated: true });
  const packDown = packer([down], m, type, options);
  const copies = Array.from({ length: big && t <= FEW_ROWS ? coldCopies(weightBytes) : 1 }, () => ({
    gateUp: keep.matrix(packGateUp()),
    down: keep.matrix(packDown()),
  }));
  const next = inTurn(copies);
  const input = keep.tensor(float32(x, [t, d]));
  const run = () => {
    const w = next();
    return [gatedMlp(input, w.gateUp, w.down)];
  };
  const rows = sample(t, big ? SAMPLED_ROWS : t);
  const expected = once(() => gatedMlpReference(rowsOf(x, d, rows), gate, up, down, d));
  return {
    run,
    check() {
      const [y = new Float32Array()] = take(run());
      return [compare('y', y.length === t * d ? rowsOf(y, d, rows) : y, expected())];
    },
    bytes: weightBytes + 8 * t * d,
    flops: 6 * t * d * m,
    dispose: keep.dispose,
  };
}

function embedCase(vocabulary: number, k: number, ids: readonly number[], type: WeightType, big = false): OpCase {
  const prepare = (): PreparedCase => {
    const keep = keeper();
    const values = weightValues(`embed ${vocabulary} ${k}`, vocabulary, k, type);
    const table = keep.matrix(packArrays([values], k, { type }));
    const run = () => [embed(table, ids)];
    return {
      run,
      check() {
        const [y = new Float32Array()] = take(run());
        return [compare('y', y, rowsOf(values, k, ids))];
      },
      bytes: ids.length * k * (WEIGHT_BYTES[type] + 4),
      flops: 0,
      dispose: keep.dispose,
    };
  };
  return {
    op: 'embed',
    name: `${ids.length} of ${vocabulary}x${k}`,
    dtype: type,
    tolerance: 'exact',
    big,
    prepare,
  };
}

const TYPES: readonly { type: WeightType; dot?: boolean }[] = [
  { type: 'f32' },
  { type: 'f16' },
  { type: 'bf16' },
  { type: 'bf16', dot: true },
];

const IDS = [4, 0, 36, 4, 17, 16, 15, 32, 31];

export const LINEAR_CASES: readonly OpCase[] = [
  ...TYPES.flatMap((type) => [
    linearCase({ t: 1, k: 1027, n: 131, ...type }),
    linearCase({ t: 7, k: 131, n: 1027, ...type, bias: true }),
    // More rows than a tile has (96), more inputs than a block (2048), one output more than a group of strips (128).
    linearCase({ t: 103, k: 2055, n: 129, ...type }),
    linearCase({ t: 3, k: 1, n: 5, ...type, bias: true }),
    linearCase({ t: 2, k: 17, n: 1, ...type }),
  ]),
  ...(['gelu_pytorch_tanh', 'gelu', 'quick_gelu', 'silu'] as const).map((activation) =>
    linearCase({ t: 5, k: 72, n: 203, type: 'f32', bias: true, activation }),
  ),
  ...TYPES.flatMap((type) => [
    linearCase({ t: 1, k: 131, n: 203, ...type, gated: true, bias: true, activation: 'gelu_pytorch_tanh' }),
    linearCase({ t: 29, k: 72, n: 259, ...type, gated: true, bias: true, activation: 'silu' }),
  ]),
  ...(['gelu', 'quick_gelu', 'none'] as const).map((activation) =>
    linearCase({ t: 5, k: 72, n: 203, type: 'f32', gated: true, activation }),
  ),
  linearCase({ t: 1, k: 4096, n: 11008, type: 'bf16', big: true }),
  linearCase({ t: 1, k: 896, n: 4864, type: 'bf16', big: true }),
  linearCase({ t: 512, k: 896, n: 4864, type: 'bf16', big: true }),
  linearCase({ t: 512, k: 896, n: 4864, type: 'bf16', dot: true, big: true }),
  linearCase({ t: 1024, k: 1024, n: 4096, type: 'bf16', bias: true, activation: 'gelu_pytorch_tanh', big: true }),
  linearCase({ t: 1024, k: 1024, n: 4096, type: 'f32', big: true }),

  ...TYPES.flatMap((type) => [mlpCase({ t: 1, d: 131, m: 203, ...type }), mlpCase({ t: 29, d: 72, m: 1027, ...type })]),
  mlpCase({ t: 1, d: 896, m: 4864, type: 'bf16', big: true }),
  mlpCase({ t: 512, d: 896, m: 4864, type: 'bf16', big: true }),

  ...(['f32', 'f16', 'bf16'] as const).map((type) => embedCase(37, 131, IDS, type)),
  embedCase(37, 131, [], 'bf16'),
  embedCase(65537, 896, sample(65537, 512), 'bf16', true),
];
