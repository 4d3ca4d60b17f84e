// Packs matrices that share one product (q, k and v; gate and up; or one alone) in the form that the checkpoint has them in: plain,
// 4-bit or 8-bit. Parts of different forms, as ignore lists and `modules_to_not_convert` leave them, are dequantized. Knows the
// tensors of quantized modules, and no architecture.

import { isQuantized, isUniform, nameParts, type QuantizedModule, quantizedModule } from '../checkpoint/quantized';
import type { QuantizationConfig } from '../checkpoint/quantized_config';
import { type Int8Module, int8Stack, isInt8, nameInt8Parts } from '../checkpoint/quantized_int8';
import type { TensorEntry } from '../checkpoint/safetensors';
import { SparseVilaError } from '../errors';
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

/** What packing needs of a checkpoint. */
export interface StackSource {
  readonly quantization: QuantizationConfig | undefined;
  readonly type: WeightType | undefined;
  readonly precision: Precision;
  find(name: string): TensorEntry | undefined;
  /** Where a tensor lies, which counts as read from then on. */
  rangeOf(entry: TensorEntry): ByteRange;
  /** A plain tensor of this shape. */
  part(name: string, shape: readonly number[]): WeightPart;
}

/** Modules, without ".weight", with their rows and the inputs that they have in common. */
export interface Stack {
  readonly modules: readonly string[];
  readonly rows: readonly number[];
  readonly k: number;
  readonly gated: boolean;
}

type Modules = readonly [QuantizedModule, ...QuantizedModule[]];

/** A function that packs the stacks of one checkpoint, whose 4-bit modules have to be of one format. */
export function stackPacker(source: StackSource): (stack: Stack) => PackedMatrix {
  const { quantization, type, rangeOf } = source;
  const find = (name: string): TensorEntry | undefined => source.find(name);
  let known: QuantizedModule | undefined;
  const packInt4Modules = (modules: Modules, gated: boolean): PackedMatrix => {
    known ??= modules[0];
    if (known.format !== modules[0].format) throw mixedFormats(known, modules[0]);
    return packModules(modules, rangeOf, { gated, precision: source.precision });
  };
  const int8 = ({ modules, rows, k, gated }: Stack): readonly Int8Module[] =>
    int8Stack(find, modules, rows, k, { gated, config: quantization });

  /** One part of a stack whose parts differ. */
  const partOf = (module: string, rows: number, k: number): MixedPart => {
    if (isQuantized(find, module)) {
      const one = quantizedModule(find, module, rows, k, quantization);
      return packInt4Modules([one], false);
    }
    if (!isInt8(find, module)) return source.part(`${module}.weight`, [rows, k]);
    return packInt8Modules(int8({ modules: [module], rows: [rows], k, gated: false }), k, rangeOf);
  };

  return (stack) => {
    const { modules, rows, k, gated } = stack;
    const rowsOf = (i: number): number => rows[i] as number;
    if (!modules.some((module) => isQuantized(find, module) || isInt8(find, module))) {
      const parts = modules.map((module, i) => source.part(`${module}.weight`, [rowsOf(i), k]));
      return packMatrix(parts, k, { gated, ...(type === undefined ? {} : { type }) });
    }
    if (modules.every((module) => isInt8(find, module))) return packInt8Modules(int8(stack), k, rangeOf);
    if (modules.every((module) => isQuantized(find, module))) {
      const [first, ...rest] = modules.map((module, i) => quantizedModule(find, module, rowsOf(i), k, quantization));
      if (first !== undefined && isUniform([first, ...rest])) return packInt4Modules([first, ...rest], gated);
    }
    return packMixed((i) => partOf(modules[i] as string, rowsOf(i), k), modules.length, k, { gated, type });
  };
}

/** A part as it lies in the file, or packed in its quantized form. */
type MixedPart = WeightPart | PackedMatrix;

/**
 * One packed matrix of `count` parts. Quantized parts become (q - z) s, evaluated in f32 and stored as such, which loses nothing, unless
 * the caller chose a type. Activations that meet 8-bit parts are not rounded then.
 */
function packMixed(
  partOf: (i: number) => MixedPart,
  count: number,
  k: number,
  options: { readonly gated: boolean; readonly type: WeightType | undefined },
): PackedMatrix {
  const { native } = start();
  const sources: number[] = [];
  const plain = (part: MixedPart): WeightPart => {
    if (!('tensor' in part)) return part;
    const { tensor, outputs: rows } = part;
    const values = dequantize(part);
    const source = native.openMemory(floats(values).slice());
    sources.push(source);
    for (const one of [values, tensor]) one.dispose();
    return { source, offset: 0, type: 'f32', rows };
  };
  try {
    const parts = Array.from({ length: count }, (_, i) => plain(partOf(i)));
    return packMatrix(parts, k, { gated: options.gated, type: options.type ?? 'f32' });
  } finally {
    for (const source of sources) native.release(source);
  }
}

/** 4-bit modules of one format, packed into one matrix; what is wrong with a tensor is said with its name. */
function packModules(
  modules: Modules,
  rangeOf: (entry: TensorEntry) => ByteRange,
  options: { readonly gated: boolean; readonly precision: Precision },
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
    return packInt4(parts, modules[0], options);
  } catch (error) {
    throw nameParts(error, modules);
  }
}

function packInt8Modules(
  modules: readonly Int8Module[],
  k: number,
  rangeOf: (entry: TensorEntry) => ByteRange,
): PackedMatrix {
  const parts = modules.map(({ rows, weight, scales, scaleType }) => ({
    ...{ ...rangeOf(weight), type: 'int8' as const, rows },
    scales: { ...rangeOf(scales), type: scaleType },
  }));
  try {
    return packInt8(parts, k);
  } catch (error) {
    throw nameInt8Parts(error, modules);
  }
}

function mixedFormats(one: QuantizedModule, other: QuantizedModule): SparseVilaError {
  return new SparseVilaError(
    'ERR_WEIGHT_FORMAT',
    `${other.tensors.weight.file}: expected one 4-bit format in a checkpoint, received ${one.format} for "${one.name}" and ` +
      `${other.format} for "${other.name}".`,
  );
}
