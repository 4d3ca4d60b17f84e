// The layouts of 4-bit checkpoints: round trips are the identity, and single nibbles are in the places of the formats' closed forms.

import { packQuantized, type RawTensor, unpackQuantized } from '../../src/checkpoint/formats';
import { quantizedModule } from '../../src/checkpoint/quantized';
import type { QuantizationConfig } from '../../src/checkpoint/quantized_config';
import { type QuantizedMatrix, quantizeMatrix } from '../../src/ops/quantize';
import { randomMatrix } from '../quantize/matrices';

const partsOf = (tensors: readonly RawTensor[]) => new Map(tensors.map((tensor) => [tensor.name, tensor]));
const quantized = (rows: number, cols: number, group: number, symmetric = false): QuantizedMatrix =>
  quantizeMatrix(randomMatrix(rows, cols, rows * 1000 + cols), { group, symmetric });
const words = (tensors: readonly RawTensor[], name: string): Int32Array => {
  const { bytes } = partsOf(tensors).get(name) as RawTensor;
  return new Int32Array(bytes.slice().buffer);
};

/** Reads tensors back as a module of these sizes, whose config tells the group. */
function read(tensors: readonly RawTensor[], { rows, cols, group }: Omit<QuantizedMatrix, 'q' | 'scale' | 'zero'>) {
  const parts = partsOf(tensors);
  const find = (name: string) => {
    const part = parts.get(name.replace(/^x\./, ''));
    return part && { ...part, name, file: 'x', offset: 0, bytes: part.bytes.length };
  };
  const config = { file: 'config.json', groupSizes: [group] } as unknown as QuantizationConfig;
  const module = quantizedModule(find, 'x', rows, cols, { ...config, symmetric: undefined, activationOrder: false });
  return unpackQuantized(module, ({ name }) => (parts.get(name.replace(/^x\./, '')) as RawTensor).bytes);
}

describe.each([
  ['autoawq', 8, 8, 8, false],
  ['autoawq', 24, 96, 32, false],
  ['autoawq', 136, 40, 40, false],
  ['autoawq', 16, 64, 32, true],
  ['compressed-tensors', 24, 96, 32, false],
  ['compressed-tensors', 7, 21, 8, false],
  ['compressed-tensors', 1, 1, 8, false],
  ['compressed-tensors', 13, 131, 64, true],
  ['compressed-tensors', 9, 64, 64, false],
] as const)('%s [%i, %i], groups of %i, symmetric %s', (format, rows, cols, group, symmetric) => {
  const matrix = quantized(rows, cols, group, symmetric);

  it('reading, writing and reading again gives the same numbers', () => {
    const written = packQuantized(matrix, format, symmetric);
    const again = read(written, matrix);
    expect(again).toEqual(matrix);
    expect(packQuantized(again, format, symmetric)).toEqual(written);
  });
});

it('AutoAWQ: column 8 c + [0, 2, 4, 6, 1, 3, 5, 7][i] is nibble i of word c', () => {
  const matrix = quantized(24, 16, 8);
  const tensors = packQuantized(matrix, 'autoawq');
  const [qweight, qzeros] = [words(tensors, 'qweight'), words(tensors, 'qzeros')];
  for (let k = 0; k < 16; k++)
    for (let c = 0; c < 3; c++)
      for (const [i, column] of [0, 2, 4, 6, 1, 3, 5, 7].entries()) {
        const n = 8 * c + column;
        expect(((qweight[k * 3 + c] as number) >>> (4 * i)) & 15).toBe(matrix.q[n * 16 + k]);
        expect(((qzeros[(k >> 3) * 3 + c] as number) >>> (4 * i)) & 15).toBe(matrix.zero[n * 2 + (k >> 3)]);
      }
});

it('compressed-tensors: sequential nibbles along the inputs, zero points along the outputs, shape as int64', () => {
  const matrix = quantized(10, 24, 8);
  const tensors = packQuantized(matrix, 'compressed-tensors');
  const [packed, zeros] = [words(tensors, 'weight_packed'), words(tensors, 'weight_zero_point')];
  expect([...new BigInt64Array((partsOf(tensors).get('weight_shape') as RawTensor).bytes.slice().buffer)]).toEqual([
    10n,
    24n,
  ]);
  for (let n = 0; n < 10; n++) {
    for (let k = 0; k < 24; k++)
      expect(((packed[n * 3 + (k >> 3)] as number) >>> (4 * (k & 7))) & 15).toBe(matrix.q[n * 24 + k]);
    for (let g = 0; g < 3; g++)
      expect(((zeros[(n >> 3) * 3 + g] as number) >>> (4 * (n & 7))) & 15).toBe(matrix.zero[n * 3 + g]);
  }
});

it('refuses shapes that a layout cannot hold, and inconsistent parts', () => {
  const code = (body: () => unknown): unknown => {
    try {
      return body();
    } catch (error) {
      return (error as { code: string }).code;
    }
  };
  expect(code(() => packQuantized(quantized(12, 16, 8), 'autoawq'))).toBe('ERR_QUANTIZE_SHAPE');
  expect(code(() => packQuantized(quantized(8, 20, 8), 'autoawq'))).toBe('ERR_QUANTIZE_SHAPE');
  const [weight, zeros, scales] = packQuantized(quantized(8, 16, 8), 'autoawq') as [RawTensor, RawTensor, RawTensor];
  const sizes = { rows: 8, cols: 16, group: 8 };
  expect(code(() => read([weight, scales], sizes))).toBe('ERR_WEIGHT_MISSING');
  const [, other] = packQuantized(quantized(8, 32, 8), 'autoawq') as [RawTensor, RawTensor];
  expect(code(() => read([weight, other, scales], sizes))).toBe('ERR_WEIGHT_SHAPE');
  expect(code(() => read([weight, zeros, scales], sizes))).toEqual(expect.objectContaining(sizes));
});
