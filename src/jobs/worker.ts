// Takes the jobs of a queue and runs them on an engine. Several workers on several machines share a queue.

import { onAbort } from '../abort';
import { type ErrorCode, SparseVilaError } from '../errors';
import { type Checks, COUNT, checkOptions, checkValue } from '../options';
import { requirePackage } from '../packages';
import { type Backend, type BullWorker, backendOf, CANCELLED, opened, type QueuedJob } from './backend';
import { isGone, type JobProgress, type JobResult, type JobRunner, RUNNER } from './job';
import { PLACE, type QueuePlace, queueName } from './place';

export interface WorkerOptions extends QueuePlace {
  /** Maximum number of jobs that are given to the runner at once; default 8. An engine lets those wait for which it has no memory. */
  readonly concurrency?: number;
}

export interface JobWorker {
  /** Numbers of jobs that this worker runs now, and has run. */
  counts(): { readonly active: number; readonly done: number; readonly failed: number };
  /** Takes no further jobs, and waits for those that run. With `now`, these go back to the queue instead. */
  close(options?: { readonly now?: boolean }): Promise<void>;
}

const WORKER: Checks<WorkerOptions> = { ...PLACE, concurrency: COUNT };
const DEFAULT_CONCURRENCY = 8;
/** Milliseconds between two looks at whether a running job has been cancelled, and between two reports of progress. */
const LOOK_MS = 1000;
const REPORT_MS = 250;

/**
 * Takes jobs until it is closed, or until the runner's engine has ended, which gives its jobs back. A job whose worker dies is taken by another one after half a minute; its result is stored once.
 * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_OPTION_MISSING`, `ERR_PACKAGE_INCOMPLETE`, `ERR_QUEUE_UNREACHABLE`
 */
export async function openWorker(runner: JobRunner, options: WorkerOptions): Promise<JobWorker> {
  checkValue('openWorker', 'runner', runner, RUNNER);
  const { concurrency = DEFAULT_CONCURRENCY, ...place } = checkOptions('openWorker', options, WORKER);
  const backend = backendOf(place);
  const { device: _, ...anyDevice } = place;
  const names = [queueName(anyDevice), ...(place.device === undefined ? [] : [queueName(place)])];
  const state = { active: 0, done: 0, failed: 0, stop: new AbortController() };
  const workers = await Promise.all(names.map((name) => open(backend, name, { runner, concurrency, state })));
  const close: JobWorker['close'] = async ({ now = false } = {}) => {
    if (now) state.stop.abort(new SparseVilaError('ERR_BUSY', 'The worker was closed while the job ran.'));
    await Promise.all(workers.map((worker) => worker.close()));
  };
  state.stop.signal.addEventListener('abort', () => void close().catch(() => undefined), { once: true });
  return { counts: () => ({ active: state.active, done: state.done, failed: state.failed }), close };
}

interface Running {
  readonly runner: JobRunner;
  readonly concurrency: number;
  readonly state: { active: number; done: number; failed: number; readonly stop: AbortController };
}

async function open(backend: Backend, name: string, { runner, concurrency, state }: Running): Promise<BullWorker> {
  const queue = await opened(backend.queue(name));
  const run = async (job: QueuedJob, token: string): Promise<JobResult> => {
    state.active++;
    const isCancelled = async (): Promise<boolean> => (await queue.getJobLogs(job.id ?? '')).logs.includes(CANCELLED);
    try {
      const result = await runJob(runner, job, isCancelled, state.stop.signal);
      state.done++;
      return result;
    } catch (error) {
      // No other job can run here, and this one can run elsewhere.
      if (isGone(error)) state.stop.abort(error);
      if (state.stop.signal.aborted) throw await backToQueue(job, token);
      state.failed++;
      throw error;
    } finally {
      state.active--;
    }
  };
  const worker = await opened(backend.worker(name, run, concurrency));
  worker.on('closed', () => void queue.close());
  // It ends when the worker is closed. Errors of the connection are handled by BullMQ, which connects again.
  worker.run().catch(() => undefined);
  return worker;
}

/** Gives a job that is running back to its queue; this does not count as a try. Returns what BullMQ wants to be thrown then. */
async function backToQueue(job: QueuedJob, token: string): Promise<Error> {
  const { WaitingError } = requirePackage<typeof import('bullmq')>('bullmq');
  await job.moveToWait(token);
  return new WaitingError();
}

/** Runs a job until it ends, is cancelled or the worker stops. Errors carry their code at the beginning of their message. */
async function runJob(
  runner: JobRunner,
  job: QueuedJob,
  isCancelled: () => Promise<boolean>,
  stop: AbortSignal,
): Promise<JobResult> {
  const cancel = new AbortController();
  const look = async (): Promise<void> => {
    if (await isCancelled().catch(() => false))
      cancel.abort(new SparseVilaError('ERR_CANCELLED', 'The job was cancelled.'));
  };
  // A worker that is closing may still take a job.
  stop.throwIfAborted();
  const unlisten = onAbort(stop, () => cancel.abort(stop.reason));
  const timer = setInterval(() => void look(), LOOK_MS);
  try {
    await look();
    cancel.signal.throwIfAborted();
    const result = await runner.run(job.data, { signal: cancel.signal, onProgress: reporter(job) });
    if (result.status === 'done') return result;
    throw forGood(result.error);
  } catch (error) {
    if (!(error instanceof SparseVilaError) || isGone(error)) throw error;
    throw error.code === 'ERR_CANCELLED'
      ? forGood(error)
      : new Error(`${error.code}: ${error.message}`, { cause: error });
  } finally {
    clearInterval(timer);
    unlisten();
  }
}

/** An error after which BullMQ does not try the job again. */
function forGood({ code, message }: { readonly code: ErrorCode; readonly message: string }): Error {
  const { UnrecoverableError } = requirePackage<typeof import('bullmq')>('bullmq');
  return new UnrecoverableError(`${code}: ${message}`);
}

/** Reports progress a few times a second; a report that is lost does not matter. */
function reporter(job: QueuedJob): (progress: JobProgress) => void {
  let last = 0;
  return (progress) => {
    const now = Date.now();
    if (now - last < REPORT_MS) return;
    last = now;
    job.updateProgress({ ...progress }).catch(() => undefined);
  };
}
