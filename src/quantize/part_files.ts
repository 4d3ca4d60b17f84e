// The tensors of one part of a checkpoint by the canonical names that loading reads them under, and the way back to the files' names.

import { relative } from 'node:path';
import { openTensors, type Tensors } from '../checkpoint/tensors';
import { partName } from '../models/assemble';
import type { PartName, Plan } from '../models/plan';

export interface PartFiles {
  /** The folder of the part's files, relative to the checkpoint's; several parts may share it. */
  readonly folder: string;
  readonly tensors: Tensors;
  /** The name in the files of a canonical name without the part's own; the name itself where the files do not have it. */
  fileName(name: string): string;
  has(name: string): boolean;
  /** f32 values of a canonical name. @throws SparseVilaError `ERR_WEIGHT_…`, `ERR_NOT_FINITE` */
  floats(name: string, shape: readonly number[]): Float32Array;
  /** Linear layers that no part of the model uses, by their file names: a tower's pooling head. */
  readonly unread: readonly string[];
}

/** Opens the files of a part. Reads headers only. @throws SparseVilaError `ERR_CHECKPOINT_…` */
export function openPartFiles(plan: Plan, part: PartName): PartFiles {
  const { folder } = plan.sources[part];
  const tensors = openTensors(folder);
  const canonical = partName(plan, part);
  const names = new Map([...tensors.entries.keys()].map((name) => [canonical(name), name]));
  const fileName = (name: string): string => names.get(name) ?? name;
  const isUnread = (name: string): boolean =>
    /: unread\..*\.weight$/.test(canonical(name)) && tensors.entries.get(name)?.shape.length === 2;
  return {
    folder: relative(plan.folder, folder),
    tensors,
    fileName,
    has: (name) => names.has(name),
    floats: (name, shape) => tensors.floats(fileName(name), shape),
    unread: [...tensors.entries.keys()].filter(isUnread).map(moduleOf),
  };
}

/** A weight's name without `.weight`. */
export const moduleOf = (name: string): string => name.replace(/\.weight$/, '');
