// A job: one request to a model, with a name under which its result is stored once. Plain data, so that it can be kept in a file or a queue.

import { ENGINE } from '../engine/engine';
import type { Engine, EngineRequest, Usage } from '../engine/types';
import { coded, codeOf, type ErrorCode, messageOf, SparseVilaError } from '../errors';
import {
  type Checks,
  checkOptions,
  checkValue,
  FUNCTION,
  guardedCallback,
  NAME,
  OBJECT,
  SIGNAL,
  withMethods,
} from '../options';

export interface Job {
  /** The name of the job and of its result. A job whose id is known already is not run again. */
  readonly id: string;
  readonly request: EngineRequest;
}

/** What a job came to. */
export type JobResult =
  | {
      readonly id: string;
      readonly status: 'done';
      readonly text: string;
      readonly finish: string;
      readonly usage: Usage;
    }
  | {
      readonly id: string;
      readonly status: 'failed' | 'cancelled';
      readonly error: { readonly code: ErrorCode; readonly message: string };
    };

/** How far a job is. */
export interface JobProgress {
  /** Number of tokens answered so far. */
  readonly tokens: number;
}

export interface RunOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: JobProgress) => void) | undefined;
}

/** Runs jobs somewhere: in this process or, through a queue, on other machines. */
export interface JobRunner {
  /**
   * Runs a job to its result. Wrong requests give a result of status `failed`.
   * @throws SparseVilaError for what another try may mend, such as `ERR_OUT_OF_MEMORY`, `ERR_QUEUE_UNREACHABLE`; `signal.reason`
   */
  run(job: Job, options?: RunOptions): Promise<JobResult>;
}

/** Errors that come from the state of a machine and not from the request, so that another try may succeed. */
const TRANSIENT: ReadonlySet<string> = new Set<ErrorCode>([
  'ERR_BUSY',
  'ERR_DISPOSED',
  'ERR_ENGINE_ENDED',
  'ERR_ENGINE_FULL',
  'ERR_INTERNAL',
  'ERR_OUT_OF_MEMORY',
  'ERR_IMAGE_FETCH',
]);

/** Whether another try of a job may succeed after this error. */
export const isTransient = (error: unknown): boolean => TRANSIENT.has(codeOf(error) ?? '');

/** Whether the runner itself is gone, so that it can run no other job either. */
export const isGone = (error: unknown): boolean => ['ERR_ENGINE_ENDED', 'ERR_DISPOSED'].includes(codeOf(error) ?? '');

const JOB: Checks<Job> = { id: { ...NAME, required: true }, request: { ...OBJECT, required: true } };
const RUN: Checks<RunOptions> = { signal: SIGNAL, onProgress: FUNCTION };
export const RUNNER = withMethods('a runner of jobs, such as that of engineRunner(),', 'run');

/**
 * Runs jobs on an engine of this process.
 * @throws SparseVilaError `ERR_OPTION_INVALID`; `run` of the runner `ERR_OPTION_INVALID`, `ERR_OPTION_MISSING` for what is no job
 */
export function engineRunner(engine: Engine): JobRunner {
  checkValue('engineRunner', 'engine', engine, ENGINE);
  return {
    run: async (given, options) => {
      const job = checkOptions('job', given, JOB);
      const { signal, onProgress } = checkOptions('run', options, RUN);
      try {
        return await answer(engine, job, {
          signal,
          onProgress: onProgress && guardedCallback('onProgress', onProgress),
        });
      } catch (error) {
        signal?.throwIfAborted();
        if (isTransient(error)) throw error;
        return failed(job.id, coded(error, signal));
      }
    },
  };
}

async function answer(engine: Engine, { id, request }: Job, { signal, onProgress }: RunOptions): Promise<JobResult> {
  let text = '';
  let tokens = 0;
  for await (const event of engine.run(request, signal === undefined ? {} : { signal })) {
    if (event.type === 'text') {
      text += event.text;
      onProgress?.({ tokens: ++tokens });
    } else if (event.type === 'end') {
      return { id, status: 'done', text, finish: event.finish, usage: event.usage };
    }
  }
  throw new SparseVilaError('ERR_INTERNAL', `The answer to job ${id} has no end.`);
}

/** The result of a job that failed. */
export function failed(id: string, error: unknown): JobResult {
  const code = (codeOf(error) ?? 'ERR_INTERNAL') as ErrorCode;
  return { id, status: 'failed', error: { code, message: messageOf(error) } };
}
