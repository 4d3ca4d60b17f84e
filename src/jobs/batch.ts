// Runs the jobs of a file and writes their results in the order of the jobs. A run that was stopped or killed is continued by the same call.

import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { SparseVilaError } from '../errors';
import { makeFolder } from '../files';
import {
  type Checks,
  COUNT,
  checkOptions,
  FUNCTION,
  guardedCallback,
  NAME,
  OBJECT,
  SIGNAL,
  withCodes,
} from '../options';
import { removeAtOnce, replaceFile, writeError } from '../runtime/atomic';
import type { Progress } from '../runtime/progress';
import { openResults } from '../runtime/results_file';
import { failed, isGone, type Job, type JobResult, type JobRunner, RUNNER } from './job';
import type { JobFile } from './job_file';

export interface BatchOptions {
  readonly input: JobFile;
  /** The file of results, JSON lines in the order of the jobs. It appears when all jobs have ended; until then they are in `OUT.partial`. */
  readonly out: string;
  readonly runner: JobRunner;
  /** What else the results depend on, such as the model: a stopped run is continued only if it is equal. */
  readonly configuration: Readonly<Record<string, unknown>>;
  /** Maximum number of jobs that are given to the runner at the same time. */
  readonly concurrency: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

export interface BatchResult {
  readonly out: string;
  readonly jobs: number;
  readonly failed: number;
  /** Number of jobs that an earlier run had ended. */
  readonly continued: number;
}

const OPTIONS: Checks<BatchOptions> = {
  input: {
    expected: 'a file of jobs, as readJobs gives it,',
    accepts: (value) => OBJECT.accepts(value) && isJobFile(value as Partial<JobFile>),
    required: true,
  },
  out: { ...NAME, required: true },
  runner: { ...RUNNER, required: true },
  configuration: { ...OBJECT, required: true },
  concurrency: { ...COUNT, required: true },
  signal: SIGNAL,
  onProgress: FUNCTION,
};

const isJobFile = ({ hash, jobs, places }: Partial<JobFile>): boolean =>
  typeof hash === 'string' && Array.isArray(jobs) && places instanceof Map;

/**
 * Runs the jobs of a file. A job that fails has its error as its result, and the others go on.
 * @throws SparseVilaError `ERR_OPTION_…`; `ERR_OUTPUT_EXISTS`; `ERR_RESUME_MISMATCH` if `OUT.partial` belongs to other jobs or another model; `ERR_BUSY` while
 *   another process writes it; `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE`; `signal.reason`, after which the same call continues
 */
export const runBatch: (options: BatchOptions) => Promise<BatchResult> = withCodes(runJobs);

async function runJobs(given: BatchOptions): Promise<BatchResult> {
  const { onProgress, ...checked } = checkOptions('runBatch', given, OPTIONS);
  const options = { ...checked, onProgress: onProgress && guardedCallback('onProgress', onProgress) };
  const { input, out, configuration } = options;
  requireNew(out);
  const folder = `${out}.partial`;
  try {
    makeFolder(folder);
  } catch (error) {
    throw writeError(error, out);
  }
  const results = openResults(join(folder, 'results.jsonl'), { jobs: input.hash, ...configuration });
  try {
    const continued = input.jobs.filter(({ id }) => results.pieces.has(id)).length;
    await runAll(options, results);
    const ended = input.jobs.map(({ id }) => results.pieces.get(id) as JobResult);
    replaceFile(out, ended.map((result) => `${JSON.stringify(result)}\n`).join(''));
    results.close();
    await removeAtOnce(folder);
    return { out, jobs: ended.length, failed: ended.filter(({ status }) => status !== 'done').length, continued };
  } finally {
    results.close();
  }
}

/** Refuses a file of results that is there already. @throws SparseVilaError `ERR_OUTPUT_EXISTS` */
export function requireNew(out: string): void {
  if (!existsSync(out)) return;
  const message = `${out} exists. Give another name, or remove it to run the jobs again.`;
  throw new SparseVilaError('ERR_OUTPUT_EXISTS', message);
}

/** A result whose error says which line of the file it is about. */
function placed(result: JobResult, place: string | undefined): JobResult {
  if (result.status === 'done' || place === undefined) return result;
  return { ...result, error: { ...result.error, message: `${place}: ${result.error.message}` } };
}

type Results = ReturnType<typeof openResults>;

/** Runs the jobs that have no result yet. The first error that is not a job's own stops the others. */
async function runAll(
  { input, runner, concurrency, signal, onProgress }: BatchOptions,
  results: Results,
): Promise<void> {
  const stop = new AbortController();
  const abort = (): void => stop.abort(signal?.reason);
  const waiting = input.jobs.filter(({ id }) => !results.pieces.has(id)).values();
  const total = input.jobs.length;
  const report = (): void => onProgress?.({ step: 'answer', done: results.pieces.size, total, unit: 'jobs' });
  const lane = async (): Promise<void> => {
    for (const job of waiting) {
      results.append(job.id, placed(await runOne(runner, job, stop.signal), input.places.get(job.id)));
      report();
    }
  };
  signal?.throwIfAborted();
  signal?.addEventListener('abort', abort, { once: true });
  report();
  try {
    const lanes = Array.from({ length: concurrency }, () =>
      lane().catch((error: unknown) => {
        stop.abort(error);
        throw error;
      }),
    );
    // All lanes have ended before the results are closed.
    const ends = await Promise.allSettled(lanes);
    signal?.throwIfAborted();
    for (const end of ends) if (end.status === 'rejected') throw stop.signal.reason;
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

/**
 * A runner that gives jobs to another one under ids of its own. A queue keeps the results of an id for a week; the jobs of a file are run again
 * with each run of the file, and jobs of other files have the same ids.
 */
export function underOwnIds(runner: JobRunner): JobRunner {
  const own = randomUUID();
  return {
    run: async (job, options) => ({ ...(await runner.run({ ...job, id: `${own} ${job.id}` }, options)), id: job.id }),
  };
}

const TRIES = 3;

/** Runs a job, and again after an error that another try may mend. */
async function runOne(runner: JobRunner, job: Job, signal: AbortSignal): Promise<JobResult> {
  for (let tries = 1; ; tries++) {
    signal.throwIfAborted();
    try {
      return await runner.run(job, { signal });
    } catch (error) {
      signal.throwIfAborted();
      if (isGone(error)) throw error;
      if (tries === TRIES) return failed(job.id, error);
    }
  }
}
