// The client of a queue: gives jobs to workers on other machines, and reads their results.

import { setTimeout as sleep } from 'node:timers/promises';
import { abortable } from '../abort';
import { type ErrorCode, received, SparseVilaError } from '../errors';
import { type Checks, COUNT, checkOptions, integer, NATURAL, SIGNAL } from '../options';
import { backendOf, CANCELLED, keyOf, opened, type QueuedJob } from './backend';
import type { Job, JobProgress, JobResult, JobRunner, RunOptions } from './job';
import { PLACE, type QueuePlace, queueName } from './place';
import { portable } from './portable';

export interface QueueOptions extends QueuePlace {
  /** Number of unfinished jobs above which `enqueue` waits; default 10,000. */
  readonly mostWaiting?: number;
}

export interface EnqueueOptions {
  /** Jobs of lower numbers run first, 1 to 2,097,151; jobs without a number run before all that have one. */
  readonly priority?: number;
  /** Milliseconds before the job may run. */
  readonly delay?: number;
  /** How often a job is tried if a machine fails it, with growing pauses; default 3. */
  readonly attempts?: number;
  readonly signal?: AbortSignal;
}

/** A queue of jobs for one model. `run` enqueues a job and waits for its result; aborting it cancels the job. */
export interface JobQueue extends JobRunner {
  /**
   * Adds jobs. A job whose id is in the queue, or whose result is still stored, is not added again. Waits while the queue is full.
   * @throws SparseVilaError `ERR_QUEUE_UNREACHABLE`, `ERR_OPTION_INVALID` for pictures that are pixels or streams; `signal.reason`
   */
  enqueue(jobs: Job | readonly Job[], options?: EnqueueOptions): Promise<void>;
  /** Waits for the result of a job. @throws SparseVilaError `ERR_JOB_UNKNOWN`; `signal.reason` */
  result(id: string, options?: RunOptions): Promise<JobResult>;
  /** The results of jobs, each as soon as it is there. @throws as `result` */
  results(ids: readonly string[], options?: Pick<RunOptions, 'signal'>): AsyncIterable<JobResult>;
  /** Cancels a job that waits or runs, on whichever machine; one that has ended keeps its result. @throws SparseVilaError `ERR_JOB_UNKNOWN` */
  cancel(id: string): Promise<void>;
  /** Numbers of jobs by state: waiting (also delayed), active, completed, failed. */
  counts(): Promise<{ waiting: number; active: number; completed: number; failed: number }>;
  /** Closes the connection; jobs go on. */
  close(): Promise<void>;
}

const QUEUE: Checks<QueueOptions> = { ...PLACE, mostWaiting: COUNT };
const ENQUEUE: Checks<EnqueueOptions> = {
  priority: integer(1, 2_097_151),
  delay: NATURAL,
  attempts: COUNT,
  signal: SIGNAL,
};

/** Jobs that are given to the server in one message. */
const AT_ONCE = 100;
/** Milliseconds between two looks at a full queue, and at a job of which no event came. */
const FULL_MS = 250;
const LOOK_MS = 10_000;
/** Seconds for which results are stored. */
const KEPT_S = 7 * 24 * 3600;
const DEFAULT_ATTEMPTS = 3;
const DEFAULT_MOST = 10_000;

/**
 * Connects to the queue of a model. Results are stored with their jobs for a week.
 * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_OPTION_MISSING`, `ERR_PACKAGE_INCOMPLETE`, `ERR_QUEUE_UNREACHABLE`
 */
export async function openQueue(options: QueueOptions): Promise<JobQueue> {
  const place = checkOptions('openQueue', options, QUEUE);
  const backend = backendOf(place);
  const name = queueName(place);
  const queue = await opened(backend.queue(name));
  const events = await opened(backend.events(name)).catch(async (error: unknown) => {
    await queue.close();
    throw error;
  });
  const close = async (): Promise<void> => {
    await Promise.allSettled([events.close(), queue.close()]);
  };
  // Each awaited result listens.
  for (const emitter of [events, queue]) emitter.setMaxListeners(0);
  const { mostWaiting = DEFAULT_MOST } = place;

  const get = async (id: string): Promise<QueuedJob> => {
    const job = await queue.getJob(keyOf(id));
    if (job !== undefined) return job as QueuedJob;
    const message = `Expected a job ${received(id)} in the queue but there is none. Results are stored for a week.`;
    throw new SparseVilaError('ERR_JOB_UNKNOWN', message);
  };
  const counts = async () => {
    const by = await queue.getJobCounts('waiting', 'prioritized', 'delayed', 'active', 'completed', 'failed');
    const { waiting = 0, prioritized = 0, delayed = 0, active = 0, completed = 0, failed = 0 } = by;
    return { waiting: waiting + prioritized + delayed, active, completed, failed };
  };
  const room = async (signal: AbortSignal | undefined): Promise<number> => {
    for (;;) {
      const { waiting, active } = await counts();
      if (waiting + active < mostWaiting) return mostWaiting - waiting - active;
      await sleep(FULL_MS, undefined, { signal });
    }
  };
  const result = async (id: string, { signal, onProgress }: RunOptions = {}): Promise<JobResult> => {
    const key = keyOf(id);
    const listener = ({ jobId, data }: { jobId: string; data: unknown }): void => {
      if (jobId === key) onProgress?.(data as JobProgress);
    };
    if (onProgress !== undefined) events.on('progress', listener);
    try {
      for (;;) {
        signal?.throwIfAborted();
        const job = await get(id);
        // Asked first: a try that failed leaves the same fields as the last one.
        const state = await job.getState();
        if (state === 'completed' || state === 'failed') {
          const { returnvalue, failedReason } = await get(id);
          return state === 'completed' ? returnvalue : resultOf(id, failedReason);
        }
        // An event may be lost when the connection breaks, so the job is looked at now and then. How it ended is read above.
        await abortable(
          job.waitUntilFinished(events, LOOK_MS).catch(() => undefined),
          signal,
        );
      }
    } finally {
      events.off('progress', listener);
    }
  };
  const enqueue = async (jobs: Job | readonly Job[], given?: EnqueueOptions): Promise<void> => {
    const { signal, attempts = DEFAULT_ATTEMPTS, ...when } = checkOptions('enqueue', given, ENQUEUE);
    const list = (Array.isArray(jobs) ? (jobs as readonly Job[]) : [jobs as Job]).map(portable);
    const kept = { removeOnComplete: { age: KEPT_S }, removeOnFail: { age: KEPT_S } };
    const again = { attempts, backoff: { type: 'exponential', delay: 1000 } };
    for (let at = 0; at < list.length; ) {
      const some = list.slice(at, at + Math.min(AT_ONCE, await room(signal)));
      signal?.throwIfAborted();
      await queue.addBulk(
        some.map((data) => ({ name: 'answer', data, opts: { jobId: keyOf(data.id), ...when, ...again, ...kept } })),
      );
      at += some.length;
    }
  };
  const cancel = async (id: string): Promise<void> => {
    const job = await get(id);
    if ((await job.isCompleted()) || (await job.isFailed())) return;
    // Whichever worker takes the job, or has it, reads this. A job that is removed instead would have no result.
    await job.log(CANCELLED);
    if (await job.isDelayed()) await job.promote().catch(() => undefined);
  };
  return {
    enqueue,
    result,
    results: (ids, given) => inOrderOfTheirEnd(ids, (id) => result(id, given)),
    cancel,
    counts,
    close,
    run: async (job, { signal, onProgress } = {}) => {
      await enqueue(job, signal === undefined ? {} : { signal });
      try {
        return await result(job.id, { signal, onProgress });
      } catch (error) {
        if (signal?.aborted) await cancel(job.id);
        throw error;
      }
    },
  };
}

const WITH_CODE = /^(ERR_[A-Z_]+): ([\s\S]*)$/;

/** The result of a job that failed for good, from the reason that its worker gave, which begins with a code. */
function resultOf(id: string, reason: string): JobResult {
  const [, code = 'ERR_INTERNAL', message = reason] = WITH_CODE.exec(reason) ?? [];
  if (code === 'ERR_CANCELLED') return { id, status: 'cancelled', error: { code, message } };
  return { id, status: 'failed', error: { code: code as ErrorCode, message } };
}

/** Yields the results of jobs, each as soon as it is there. */
async function* inOrderOfTheirEnd(
  ids: readonly string[],
  result: (id: string) => Promise<JobResult>,
): AsyncGenerator<JobResult> {
  const open = new Map(ids.map((id) => [id, result(id)]));
  // An error is thrown when its turn comes; until then, it is not unhandled.
  for (const one of open.values()) one.catch(() => undefined);
  while (open.size > 0) {
    const id = await Promise.race([...open].map(([id, one]) => one.then(() => id)));
    yield (await open.get(id)) as JobResult;
    open.delete(id);
  }
}
