// Packs matrices that share one product (q, k and v; gate and up; or a single one) in the form that the checkpoint stores: plain,
// 4-bit or 8-bit. 8-bit floats are widened, and parts of different forms are dequantized. Knows the tensors of quantized modules, and no architecture.

import { type Int8Module, nameParts, type QuantizedModule, storedGroup } from '../checkpoint/quantized';
import type { TensorEntry } from '../checkpoint/safetensors';
import type { WidenedMatrix } from '../checkpoint/widen';
import { floats } from '../ops/run';
import {
  type ByteRange,
  dequantize,
  type Int4Part,
  type PackedMatrix,
  type Precision,
  packInt4,
  packInt8,
  packMatrix,
  type WeightPart,
  type WeightType,
} from '../ops/weights';
import { start } from '../runtime/start';
import type { PlainTensor, Stack, StackForm } from './weight_index';

export interface PackOptions {
  /** Data type of plain matrices; undefined: as in the file. */
  readonly type: WeightType | undefined;
  readonly precision: Precision;
  /** The location of a tensor's bytes, which then counts as read. */
  rangeOf(entry: TensorEntry): ByteRange;
  /** Where to pack to; absent: into memory of TensorFlow. */
  readonly place?: ByteRange | undefined;
}

/** Packs a stack in the form that its index has found. */
export function packStack(
  form: StackForm,
  { k, rows, gated }: Omit<Stack, 'modules'>,
  options: PackOptions,
): PackedMatrix {
  const { type, precision, rangeOf, place } = options;
  if (form.kind === 'int4') return packModules(form.parts, rangeOf, { gated, precision, place });
  if (form.kind === 'int8') return packInt8Modules(form.parts, k, rangeOf, { gated, place });
  if (form.kind === 'mixed') return packMixed(form.parts, { k, rows, gated }, options);
  return withFloats(form.parts, rows, options, (parts) =>
    packMatrix(parts, k, { gated, place, ...(type && { type }) }),
  );
}

/** Runs `work` with the locations of floats; matrices that are converted are in memory until then. */
function withFloats<T>(
  matrices: readonly (PlainTensor | WidenedMatrix)[],
  rows: readonly number[],
  { type: wanted, rangeOf }: PackOptions,
  work: (parts: WeightPart[]) => T,
): T {
  const { native } = start();
  const sources: number[] = [];
  try {
    return work(
      matrices.map((matrix, i) => {
        const count = rows[i] as number;
        if ('entry' in matrix) return plainPart(matrix, count, rangeOf);
        const type = wanted ?? matrix.type;
        for (const entry of matrix.entries) rangeOf(entry);
        const source = native.openMemory(matrix.read(type));
        sources.push(source);
        return { source, offset: 0, type, rows: count };
      }),
    );
  } finally {
    for (const source of sources) native.release(source);
  }
}

export const plainPart = ({ entry, type }: PlainTensor, rows: number, rangeOf: PackOptions['rangeOf']): WeightPart => ({
  ...rangeOf(entry),
  type,
  rows,
});

/**
 * Packs parts of several forms into one matrix. Quantized parts are evaluated as (q - z) s in f32 and stored as f32, which is exact,
 * unless the caller chose a type. Activations are then not rounded for 8-bit parts.
 */
function packMixed(
  forms: readonly StackForm[],
  { k, rows, gated }: Omit<Stack, 'modules'>,
  options: PackOptions,
): PackedMatrix {
  const { native } = start();
  const sources: number[] = [];
  const plain = (form: StackForm, count: number): WeightPart => {
    const [only] = form.kind === 'plain' ? form.parts : [];
    if (only !== undefined && 'entry' in only) return plainPart(only, count, options.rangeOf);
    const packed = packStack(form, { k, rows: [count], gated: false }, { ...options, place: undefined });
    const values = dequantize(packed);
    const source = native.openMemory(floats(values).slice());
    sources.push(source);
    for (const one of [values, packed.tensor]) one.dispose();
    return { source, offset: 0, type: 'f32', rows: count };
  };
  try {
    const parts = forms.map((form, i) => plain(form, rows[i] as number));
    return packMatrix(parts, k, { gated, place: options.place, type: options.type ?? 'f32' });
  } finally {
    for (const source of sources) native.release(source);
  }
}

/** Packs 4-bit modules of one format into one matrix; errors name the tensor. */
function packModules(
  modules: readonly [QuantizedModule, ...QuantizedModule[]],
  rangeOf: (entry: TensorEntry) => ByteRange,
  options: { readonly gated: boolean; readonly precision: Precision; readonly place: ByteRange | undefined },
): PackedMatrix {
  const parts = modules.map(({ rows, tensors }): Int4Part => {
    const { weight, scales, zeros, groupIndex, shape } = tensors;
    return {
      rows,
      weight: rangeOf(weight),
      scales: rangeOf(scales),
      zeros: zeros && rangeOf(zeros),
      groupIndex: groupIndex && rangeOf(groupIndex),
      shape: shape && rangeOf(shape),
    };
  });
  try {
    return packInt4(parts, { ...modules[0], storedGroup: storedGroup(modules[0]) }, options);
  } catch (error) {
    throw nameParts(error, modules);
  }
}

function packInt8Modules(
  modules: readonly Int8Module[],
  k: number,
  rangeOf: (entry: TensorEntry) => ByteRange,
  options: { readonly gated: boolean; readonly place: ByteRange | undefined },
): PackedMatrix {
  const parts = modules.map(({ rows, tensors: { weight, scales }, scaleType }) => ({
    ...{ ...rangeOf(weight), type: 'int8' as const, rows },
    scales: { ...rangeOf(scales), type: scaleType },
  }));
  try {
    return packInt8(parts, k, options);
  } catch (error) {
    throw nameParts(error, modules);
  }
}

/** The tensors of a stack. */
export function entriesOf(form: StackForm): TensorEntry[] {
  if (form.kind === 'mixed') return form.parts.flatMap(entriesOf);
  if (form.kind === 'plain') return form.parts.flatMap((part) => ('entry' in part ? [part.entry] : part.entries));
  return form.parts.flatMap(({ tensors }) =>
    Object.values(tensors).filter((entry): entry is TensorEntry => entry !== undefined),
  );
}
