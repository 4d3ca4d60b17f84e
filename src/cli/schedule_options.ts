// The options of a schedule: in which decoder layers answers attend all kept visual tokens, or none.

import type { InferredOptionTypes, Options } from 'yargs';
import type { SparsityMethod } from '../sparsity/method';
import { scheduled } from '../sparsity/schedule';

const layers = { type: 'number', array: true, group: 'Sparsity:' } as const;

export const SCHEDULE_OPTIONS = {
  'dense-layers': { ...layers, describe: 'Decoder layers (0, 1, …) in which answers attend all kept visual tokens' },
  'none-layers': { ...layers, describe: 'Decoder layers in which answers attend no visual tokens' },
} satisfies Record<string, Options>;

/** The method, with the schedule of the arguments if they have one. @throws SparseVilaError as `scheduled` */
export function withSchedule(
  method: SparsityMethod,
  args: Pick<InferredOptionTypes<typeof SCHEDULE_OPTIONS>, 'dense-layers' | 'none-layers'>,
): SparsityMethod {
  const { 'dense-layers': dense, 'none-layers': none } = args;
  if (dense === undefined && none === undefined) return method;
  return scheduled(method, { ...(dense && { dense }), ...(none && { none }) });
}
