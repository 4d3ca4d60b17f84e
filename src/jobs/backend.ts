// BullMQ over Redis or Postgres: loads the packages that it needs, and connects with an error instead of endless silence.

import { createHash } from 'node:crypto';
import type { BackendFactory, Job as BullJob, Processor, Queue, QueueEvents, Worker } from 'bullmq';
import { messageOf, SparseVilaError } from '../errors';
import { requirePackage } from '../packages';
import type { Job, JobProgress, JobResult } from './job';
import type { QueuePlace } from './place';

export type QueuedJob = BullJob<Job, JobResult, string, JobProgress>;
export type BullWorker = Worker<Job, JobResult, string>;

/** The row in a job's log by which a client cancels it. A log can be read without the job's data, which may hold pictures. */
export const CANCELLED = 'cancelled by a client';

/** BullMQ's classes with a connection to one server. */
export interface Backend {
  queue(name: string): Queue<Job, JobResult, string>;
  events(name: string): QueueEvents;
  worker(name: string, run: (job: QueuedJob, token: string) => Promise<JobResult>, concurrency: number): BullWorker;
}

/**
 * Milliseconds for which a worker owns a job without a sign of life, and between two searches for jobs whose worker is gone. The engine runs
 * off the event loop, so that a living worker always renews its lock.
 */
const LOCK_MS = 30_000;
const SEARCH_MS = 5_000;
/** How many workers may die with the same job before it counts as failed. */
const MOST_DEATHS = 10;

/** The backend of a place. @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_PACKAGE_INCOMPLETE` */
export function backendOf({ redis, postgres }: Pick<QueuePlace, 'redis' | 'postgres'>): Backend {
  if ((redis === undefined) === (postgres === undefined)) {
    const found = redis === undefined ? 'neither' : 'both';
    const message = `Expected either redis or postgres as the place of the queue, received ${found}.`;
    throw new SparseVilaError('ERR_OPTION_INVALID', message);
  }
  const bull = requirePackage<typeof import('bullmq')>('bullmq');
  if (redis !== undefined) {
    requirePackage('ioredis');
    checkUrl('redis', redis, ['redis:', 'rediss:']);
    return classesOf(bull, { url: redis, maxRetriesPerRequest: null }, undefined);
  }
  requirePackage('pg');
  checkUrl('postgres', postgres as string, ['postgres:', 'postgresql:']);
  // BullMQ makes its tables under a lock, so that many may start at once.
  return classesOf(bull, { connectionString: postgres, migrate: true }, bull.createPostgresBackend);
}

function classesOf(bull: typeof import('bullmq'), connection: object, factory: unknown): Backend {
  // Without a factory BullMQ uses Redis.
  const backend = (factory === undefined ? [] : [factory]) as unknown as [BackendFactory];
  return {
    queue: (name) => new bull.Queue(name, { connection }, ...backend),
    events: (name) => new bull.QueueEvents(name, { connection }, ...backend),
    worker: (name, run, concurrency) => {
      const locks = { lockDuration: LOCK_MS, stalledInterval: SEARCH_MS, maxStalledCount: MOST_DEATHS };
      return new bull.Worker(
        name,
        run as Processor<Job, JobResult, string>,
        { connection, concurrency, autorun: false, ...locks },
        ...backend,
      );
    },
  } as Backend;
}

function checkUrl(name: string, url: string, protocols: readonly string[]): void {
  if (URL.canParse(url) && protocols.includes(new URL(url).protocol)) return;
  // The URL may hold a password, so it is not shown.
  const message = `Expected a URL that starts with ${protocols[0]}// for ${name}, received something else.`;
  throw new SparseVilaError('ERR_OPTION_INVALID', message);
}

/** The id under which BullMQ keeps a job: it allows neither colons nor numbers. */
export const keyOf = (id: string): string => `job-${createHash('sha256').update(id).digest('hex')}`;

/** Milliseconds after which a server that does not answer counts as unreachable. */
const PATIENCE_MS = 10_000;

interface Opening {
  waitUntilReady(): Promise<unknown>;
  on(event: 'error', then: (error: Error) => void): unknown;
  close(): Promise<void>;
}

/**
 * An object of BullMQ once it is connected. It handles later breaks of its connection by itself, so that errors are no events for us.
 * @throws SparseVilaError `ERR_QUEUE_UNREACHABLE`; the object is closed then
 */
export async function opened<T extends Opening>(one: T): Promise<T> {
  let last: unknown;
  let timer: NodeJS.Timeout | undefined;
  one.on('error', (error) => {
    last = error;
  });
  const late = new Promise<never>((_, fail) => {
    timer = setTimeout(() => fail(last ?? new Error(`no answer for ${PATIENCE_MS / 1000} s`)), PATIENCE_MS);
  });
  try {
    await Promise.race([one.waitUntilReady(), late]);
    return one;
  } catch (cause) {
    one.close().catch(() => undefined);
    const message = `Expected a server at the place of the queue but it cannot be used: ${messageOf(cause)}`;
    throw new SparseVilaError('ERR_QUEUE_UNREACHABLE', message, { cause });
  } finally {
    clearTimeout(timer);
  }
}
