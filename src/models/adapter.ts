// The interface of a family's file. To add a family: one file here, and one row in `adapters.ts`.

import type { CheckpointFiles } from './checkpoint_files';
import type { Plan } from './plan';

export interface Adapter {
  /** The values of `model_type` in config.json that the family reads. */
  readonly types: readonly string[];
  /** @throws SparseVilaError `ERR_CONFIG_…`, naming file and key, for settings that the family does not support */
  plan(files: CheckpointFiles): Plan;
}
