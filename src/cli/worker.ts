// `sparsevila worker`: takes jobs from a queue until it is stopped. The first signal finishes the running jobs, the second gives them back.

import { setTimeout as sleep } from 'node:timers/promises';
import type { ArgumentsCamelCase, CommandModule, InferredOptionTypes, Options } from 'yargs';
import type { JobWorker } from '../jobs/worker';
import { ENGINE_OPTIONS, type EngineFlags, openEngineOf } from './engine_options';
import { aborted } from './interrupt';
import { modelName } from './options';
import { placeOf, QUEUE_OPTIONS, type QueueFlags } from './queue_options';

const OPTIONS = {
  concurrency: { type: 'number', default: 8, group: 'Queue:', describe: 'Number of jobs that are taken at once' },
} satisfies Record<string, Options>;

type Flags = EngineFlags & QueueFlags & InferredOptionTypes<typeof OPTIONS>;
type Arguments = ArgumentsCamelCase<Flags>;

export const workerCommand: CommandModule<object, Flags> = {
  command: 'worker',
  describe: 'Answer the jobs of a queue; start it on as many machines as you like',
  builder: (yargs) =>
    yargs
      .options(QUEUE_OPTIONS)
      .options(OPTIONS)
      .options(ENGINE_OPTIONS)
      .epilogue(
        'The first Ctrl-C or SIGTERM finishes the running jobs, the second one gives them back to the queue. Jobs of a ' +
          'worker that dies are taken by another one after half a minute. Paths of pictures are read on the machine of ' +
          'the worker: whoever can write to the queue can have its files read.',
      )
      .example('$0 worker --redis redis://127.0.0.1:6379', 'With the packaged model')
      .example(
        '$0 worker -m owner/name --postgres postgres://user:password@127.0.0.1/jobs --concurrency 16',
        'A model of the Hub, jobs on Postgres',
      ),
  handler: run,
};

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

async function run(args: Arguments): Promise<void> {
  const stop = stopper();
  try {
    const { engineRunner } = await import('../jobs/job.js');
    const { openWorker } = await import('../jobs/worker.js');
    const { openQueue } = await import('../jobs/queue.js');
    const { concurrency } = args;
    const model = modelName(args);
    // The queue is reached before the model is loaded.
    await (await openQueue({ ...placeOf(args), model })).close();
    const engine = await openEngineOf(args, stop.loading, { maxWaiting: concurrency });
    try {
      const worker = await openWorker(engineRunner(engine), { ...placeOf(args), model, concurrency });
      process.stderr.write(`sparsevila: worker of ${model} takes ${concurrency} jobs at once.\n`);
      const closed = await finish(worker, stop, engine.ended);
      if (!closed) {
        process.stderr.write(
          'sparsevila: the server of the queue cannot be reached; other workers take the jobs of this one.\n',
        );
        // Its client would try to connect for ever.
        process.exit(1);
      }
      engine.ended.throwIfAborted();
      const { done, failed } = worker.counts();
      process.stderr.write(
        `sparsevila: worker ended after ${done} jobs${failed === 0 ? '' : ` and ${failed} failures`}.\n`,
      );
    } finally {
      await engine.close();
    }
  } finally {
    stop.off();
  }
}

interface Stopper {
  /** Aborts at the first signal. */
  readonly loading: AbortSignal;
  /** Fulfilled at the first and at the second signal. */
  readonly first: Promise<void>;
  readonly second: Promise<void>;
  off(): void;
}

function stopper(): Stopper {
  const loading = new AbortController();
  const calls: (() => void)[] = [];
  const [first, second] = [0, 1].map((i) => new Promise<void>((done) => (calls[i] = done))) as [
    Promise<void>,
    Promise<void>,
  ];
  let signals = 0;
  const heard = (): void => {
    loading.abort();
    calls[signals++]?.();
    if (signals > calls.length) process.exit(1);
  };
  for (const signal of SIGNALS) process.on(signal, heard);
  return {
    loading: loading.signal,
    first,
    second,
    off: () => {
      for (const signal of SIGNALS) process.off(signal, heard);
    },
  };
}

/** Milliseconds between two looks at whether jobs still run. */
const LOOK_MS = 100;
/** Milliseconds in which a queue lets a worker go that runs no job. */
const LEAVE_MS = 10_000;

/** Waits for a signal, then for the jobs that run. False if the server of the queue is gone, so that the worker cannot sign off. */
async function finish(worker: JobWorker, { first, second }: Stopper, ended: AbortSignal): Promise<boolean> {
  await Promise.race([first, aborted(ended)]);
  const { active } = worker.counts();
  process.stderr.write(`sparsevila: finishing ${active} jobs; stop again to give them back.\n`);
  const drained = worker.close();
  const idle = async (): Promise<void> => {
    while (worker.counts().active > 0) await sleep(LOOK_MS, undefined, { ref: false });
  };
  await Promise.race([drained, second, idle()]);
  const closed = worker.close({ now: true }).then(() => drained);
  const patience = new AbortController();
  try {
    return await Promise.race([closed.then(() => true), sleep(LEAVE_MS, false, { signal: patience.signal })]);
  } finally {
    patience.abort();
  }
}
