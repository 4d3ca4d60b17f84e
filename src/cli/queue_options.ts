// The options that say where a queue is.

import type { ArgumentsCamelCase, InferredOptionTypes, Options } from 'yargs';
import { MODEL_NAME_OPTION } from './options';

const text = { type: 'string', group: 'Queue:' } as const;

export const QUEUE_OPTIONS = {
  redis: { ...text, describe: 'Queue on Redis: redis://host:port; needs the packages bullmq and ioredis' },
  postgres: {
    ...text,
    describe: 'Queue on Postgres: postgres://user:password@host/database; needs the packages bullmq and pg',
  },
  queue: { ...text, describe: 'Name of the service', defaultDescription: 'sparsevila' },
  'model-name': { ...MODEL_NAME_OPTION['model-name'], group: 'Queue:' },
  device: {
    ...text,
    choices: ['cpu', 'gpu'] as const,
    describe: 'The jobs need this device; workers with it take jobs that need none as well',
  },
} satisfies Record<string, Options>;

export type QueueFlags = InferredOptionTypes<typeof QUEUE_OPTIONS>;
export type QueueArguments = ArgumentsCamelCase<QueueFlags>;

/** The place of the queue that the options name, without the model. */
export function placeOf({ redis, postgres, queue, device }: QueueArguments) {
  return {
    ...(redis !== undefined && { redis }),
    ...(postgres !== undefined && { postgres }),
    ...(queue !== undefined && { queue }),
    ...(device !== undefined && { device: device as 'cpu' | 'gpu' }),
  };
}
