// Where a queue is, and its name there.

import { type Checks, NAME, oneOf } from '../options';

/** Where the jobs for one model are queued. */
export interface QueuePlace {
  /** `redis://[user:password@]host:port[/number]`, or `rediss:` with TLS. Needs the packages bullmq and ioredis. */
  readonly redis?: string;
  /** `postgres://user:password@host:port/database`. Needs the packages bullmq and pg; tables are made in the schema `bullmq`. */
  readonly postgres?: string;
  /** Name of the service, if several share a server; default `sparsevila`. */
  readonly queue?: string;
  /** The model, by the name under which its workers serve it. */
  readonly model: string;
  /** A device that the jobs need; workers on it take these jobs besides those that need none. */
  readonly device?: 'cpu' | 'gpu';
}

export const PLACE: Checks<QueuePlace> = {
  redis: NAME,
  postgres: NAME,
  queue: NAME,
  model: { ...NAME, required: true },
  device: oneOf('cpu', 'gpu'),
};

/** The name of the queue of a place; BullMQ allows no colon in it. */
export function queueName({ queue = 'sparsevila', model, device }: QueuePlace): string {
  return [queue, model, ...(device === undefined ? [] : [device])].join('/').replaceAll(':', '_');
}
