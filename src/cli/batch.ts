// `sparsevila batch IN OUT`: answers the jobs of a file, in this process or by the workers of a queue. Ctrl-C stops, the same command continues.

import type { ArgumentsCamelCase, CommandModule, InferredOptionTypes, Options } from 'yargs';
import { SparseVilaError } from '../errors';
import type { BatchResult } from '../jobs/batch';
import type { Job, JobRunner } from '../jobs/job';
import { progressReporter } from '../runtime/progress';
import { ENGINE_OPTIONS, type EngineFlags, openEngineOf, sparsityOf } from './engine_options';
import { interruptible } from './interrupt';
import { modelFolder, modelName, packagedPath } from './options';
import { placeOf, QUEUE_OPTIONS, type QueueFlags } from './queue_options';
import { print, printJson } from './style';

const OPTIONS = {
  in: { type: 'string', demandOption: true, group: 'Jobs:', describe: 'JSON lines of jobs' },
  out: { type: 'string', demandOption: true, group: 'Jobs:', describe: 'File of results, in the order of the jobs' },
  concurrency: {
    type: 'number',
    group: 'Jobs:',
    describe: 'Number of jobs at once',
    defaultDescription: '16; 256 through a queue',
  },
  json: { type: 'boolean', default: false, group: 'Output:', describe: 'Print the summary as JSON' },
} satisfies Record<string, Options>;

type Flags = EngineFlags & QueueFlags & InferredOptionTypes<typeof OPTIONS>;
type Arguments = ArgumentsCamelCase<Flags>;

const EPILOGUE =
  'A line is {"id", "question", "images": [paths], "videos": [paths], "system"} or {"id", "messages": [{"role", "content"}]}, where content is a ' +
  'text or a list of texts, {"image": path} and {"video": {"file": path}} or {"video": {"frames": [paths], "fps"}}; beside them maxTokens, stop, ' +
  'temperature, topK, topP, repetitionPenalty, seed, logprobs, logitBias, format and sparsity. Paths are relative to the file. A result is {"id", "status", "text", "finish", "usage"}, or ' +
  '"error" in place of an answer. Results are in OUT.partial until all jobs have ended.';

export const batchCommand: CommandModule<object, Flags> = {
  command: 'batch',
  describe: 'Answer the questions of a file: batch IN OUT',
  builder: (yargs) =>
    yargs
      .options(OPTIONS)
      .options(ENGINE_OPTIONS)
      .options(QUEUE_OPTIONS)
      .epilogue(EPILOGUE)
      .example('$0 batch assets/demo/jobs.jsonl answers.jsonl', 'In this process, with the packaged model')
      .example('$0 batch assets/demo/jobs.jsonl answers.jsonl --redis redis://127.0.0.1:6379', 'By workers on Redis'),
  handler: async (args) => {
    await interruptible((signal) => run(args, signal), 'The same command continues from here.\n');
  },
};

const AT_ONCE = { here: 16, queue: 256 };

async function run(args: Arguments, signal: AbortSignal): Promise<void> {
  const { readJobs } = await import('../jobs/job_file.js');
  const given = readJobs(packagedPath(args.in));
  const isQueued = args.redis !== undefined || args.postgres !== undefined;
  const input = isQueued ? { ...given, jobs: forWorkers(args, given.jobs) } : given;
  const { requireNew, runBatch } = await import('../jobs/batch.js');
  // Before a model is loaded.
  requireNew(args.out);
  const { concurrency = isQueued ? AT_ONCE.queue : AT_ONCE.here } = args;
  const { runner, close } = await (isQueued ? throughQueue(args) : inThisProcess(args, concurrency, signal));
  const reporter = progressReporter();
  let result: BatchResult;
  try {
    const { method, prefillSparsity, decodeSparsity, positions, verify, weights, precision, template, kv } = args;
    const settings = { method, prefillSparsity, decodeSparsity, positions, verify, weights, precision, template, kv };
    const configuration = { model: args.modelName ?? modelFolder(args), ...settings };
    result = await runBatch({ input, out: args.out, runner, configuration, concurrency, signal, onProgress: reporter });
  } finally {
    reporter.stop();
    await close();
  }
  if (result.failed > 0) process.exitCode = 1;
  if (args.json) return printJson(result);
  const failures = result.failed === 0 ? '' : `, ${result.failed} failed: their lines have "error"`;
  print(`${result.out}: ${result.jobs === 1 ? '1 job' : `${result.jobs} jobs`}${failures}\n`);
}

const OF_WORKERS = ['template', 'weights', 'precision', 'kv', 'contextLength', 'maxPixels', 'allowUrls'] as const;

/** Jobs with the method that the options choose. @throws SparseVilaError `ERR_OPTION_INVALID` for options that only a worker can follow */
function forWorkers(args: Arguments, jobs: readonly Job[]): Job[] {
  const stray = OF_WORKERS.find((name) => args[name] !== undefined && args[name] !== false);
  if (stray !== undefined)
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected ${stray} at the workers, since jobs that go through a queue cannot bring it; received it at batch.`,
    );
  const sparsity = sparsityOf(args);
  return jobs.map(({ id, request }) => ({ id, request: { sparsity, ...request } }));
}

interface Opened {
  readonly runner: JobRunner;
  close(): Promise<void>;
}

async function inThisProcess(args: Arguments, concurrency: number, signal: AbortSignal): Promise<Opened> {
  const { engineRunner } = await import('../jobs/job.js');
  const engine = await openEngineOf(args, signal, { maxWaiting: concurrency });
  return { runner: engineRunner(engine), close: () => engine.close() };
}

async function throughQueue(args: Arguments): Promise<Opened> {
  const { openQueue } = await import('../jobs/queue.js');
  const { underOwnIds } = await import('../jobs/batch.js');
  const model = modelName(args);
  const queue = await openQueue({ ...placeOf(args), model });
  // Where no worker has this name, nothing else tells why no answer comes.
  process.stderr.write(`sparsevila: the jobs wait for workers of ${model}.\n`);
  return { runner: underOwnIds(queue), close: () => queue.close() };
}
