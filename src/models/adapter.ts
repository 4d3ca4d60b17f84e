// The interface of a family's file. To add a family: one file here, and one row in `adapters.ts`.

import type { CheckpointFiles } from './checkpoint_files';
import type { Plan } from './plan';

export interface Adapter {
  /** The `model_type`s of config.json that the family reads. */
  readonly types: readonly string[];
  /** @throws SparseVilaError `ERR_CONFIG_…`, naming file and key, for what the family does not have */
  plan(files: CheckpointFiles): Plan;
}
