// Matrices that are stored in a form that products do not read, and are converted to floats when they are loaded: 8-bit floats, and 4 bits whose
// inputs were reordered before they were grouped (GPTQ `desc_act`, compressed-tensors `actorder: group`). Knows no architecture.

import { SparseVilaError } from '../errors';
import type { WeightType } from '../ops/weights';
import { unpackQuantized } from './formats';
import { type Fp8Module, widenFp8 } from './fp8';
import { encodeFloats } from './half';
import type { QuantizedModule } from './quantized';
import { readBytes, type TensorEntry } from './safetensors';

/** A matrix [rows, k] that is converted when it is loaded. */
export interface WidenedMatrix {
  readonly entries: readonly TensorEntry[];
  /** Its form in the file, for people. */
  readonly format: string;
  /** The type to which it is converted if the caller does not choose one. */
  readonly type: WeightType;
  /** Its values, rounded once to `type`, row-major. @throws SparseVilaError `ERR_WEIGHT_…` */
  read(type: WeightType): Uint8Array;
}

const DTYPES = { f32: 'F32', f16: 'F16', bf16: 'BF16' } as const;

/** 8-bit floats become bf16, as in transformers. */
export function widenedFp8(module: Fp8Module): WidenedMatrix {
  const { rows, k, float, block, tensors, unread } = module;
  const isWhole = block[0] === rows && block[1] === k;
  const called = isWhole ? 'one scale' : block[1] === k ? 'a scale per output' : `blocks of ${block.join(' x ')}`;
  return {
    entries: [tensors.weight, tensors.scales, ...unread],
    format: `8-bit floats (${float}), ${block[0] === 1 && block[1] < k ? `groups of ${block[1]}` : called}`,
    type: 'bf16',
    read: (type) => widenFp8(module, type, readBytes),
  };
}

/** Whether the inputs of a 4-bit matrix are not grouped in their order. Reads its g_idx, which AutoAWQ does not have. */
export function isReordered(module: QuantizedModule): boolean {
  return (
    !module.format.startsWith('awq') &&
    groupsOf(module)?.some((own, i) => own !== Math.floor(i / module.group)) === true
  );
}

/** 4-bit matrices become floats of the type of their scales: (q - z) s with the scale and the zero point of each input's group. */
export function widenedInt4(module: QuantizedModule): WidenedMatrix {
  const { rows, k, group, format, scaleType, tensors } = module;
  const entries = Object.values(tensors).filter((entry): entry is TensorEntry => entry !== undefined);
  return {
    entries,
    format: `4 bits (${format}), groups of ${group}, inputs reordered`,
    type: scaleType,
    read: (type) => {
      const { q, scale, zero } = unpackQuantized(module, readBytes);
      const bad = scale.findIndex((value) => !Number.isFinite(value));
      if (bad >= 0) throw wrongValue(tensors.scales, `expected finite scales, received ${scale[bad]}`);
      const count = Math.ceil(k / group);
      const groups = groupsOf(module) ?? Int32Array.from({ length: k }, (_, i) => Math.floor(i / group));
      const values = new Float32Array(rows * k);
      for (let n = 0; n < rows; n++)
        for (let i = 0; i < k; i++) {
          const at = n * count + (groups[i] as number);
          values[n * k + i] = ((q[n * k + i] as number) - (zero[at] as number)) * (scale[at] as number);
        }
      return encodeFloats(values, DTYPES[type]);
    },
  };
}

/** The group of each input; undefined if the inputs are in order. @throws SparseVilaError `ERR_WEIGHT_VALUE` */
function groupsOf({ k, group, tensors: { groupIndex } }: QuantizedModule): Int32Array | undefined {
  if (groupIndex === undefined) return undefined;
  const groups = new Int32Array(readBytes(groupIndex).buffer);
  const count = Math.ceil(k / group);
  const bad = groups.findIndex((own) => !(own >= 0 && own < count));
  if (bad >= 0)
    throw wrongValue(groupIndex, `expected groups from 0 to ${count - 1}, received ${groups[bad]} at element ${bad}`);
  return groups;
}

const wrongValue = ({ file, name }: TensorEntry, why: string): SparseVilaError =>
  new SparseVilaError('ERR_WEIGHT_VALUE', `${file}: "${name}": ${why}.`);
