// The options of commands that run an engine, and their translation to options of `openEngine`.

import type { ArgumentsCamelCase, InferredOptionTypes, Options } from 'yargs';
import type { Engine, EngineOptions, SparsityRequest } from '../engine/types';
import { type OnProgress, progressReporter } from '../runtime/progress';
import { methodOf } from './method_options';
import { CONVERSATION_OPTIONS, type ConversationArguments, loadOptions, modelFolder } from './options';

const { model, template, weights, precision, kv } = CONVERSATION_OPTIONS;

export const ENGINE_OPTIONS = {
  model: { ...model, defaultDescription: 'the packaged assets/tiny-nvila' },
  template,
  'allow-urls': CONVERSATION_OPTIONS['allow-urls'],
  'max-pixels': CONVERSATION_OPTIONS['max-pixels'],
  method: CONVERSATION_OPTIONS.method,
  'prefill-sparsity': CONVERSATION_OPTIONS['prefill-sparsity'],
  'decode-sparsity': CONVERSATION_OPTIONS['decode-sparsity'],
  positions: CONVERSATION_OPTIONS.positions,
  verify: CONVERSATION_OPTIONS.verify,
  weights,
  precision,
  kv,
  'context-length': CONVERSATION_OPTIONS['context-length'],
} satisfies Record<string, Options>;

export type EngineFlags = InferredOptionTypes<typeof ENGINE_OPTIONS>;
export type EngineArguments = ArgumentsCamelCase<EngineFlags>;

/** Options for `openEngine`. @throws SparseVilaError `ERR_OPTION_INVALID` for errors that can be found without a model */
export function engineOptions(args: EngineArguments): EngineOptions {
  const { kv, contextLength } = args;
  return {
    ...(loadOptions(args) as EngineOptions),
    ...(kv !== undefined && { kv: kv as 'bf16' | 'f32' }),
    ...(contextLength !== undefined && { contextLength }),
    sparsity: sparsityOf(args),
  };
}

/** The method that the options choose, by its name. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function sparsityOf(args: EngineArguments): SparsityRequest {
  const { options } = methodOf({ ...args, salienceLayer: undefined, budget: undefined } as ConversationArguments);
  return { method: args.method, ...options, ...(args.verify === 'dense' && { verify: args.verify }) };
}

/** Opens the engine of a command, with a progress bar if that takes long. */
export async function openEngineOf(
  args: EngineArguments,
  signal: AbortSignal,
  more: Pick<EngineOptions, 'maxRunning' | 'maxWaiting'> = {},
): Promise<Engine> {
  const options = engineOptions(args);
  const { openEngine } = await import('../engine/engine.js');
  const reporter = progressReporter();
  try {
    return await openEngine(modelFolder(args), { ...options, ...more, signal, onProgress: slow(reporter) });
  } finally {
    reporter.stop();
  }
}

/** Milliseconds of loading before a progress bar is shown. */
const QUIET_MS = 2000;

function slow(report: OnProgress): OnProgress {
  const begin = performance.now();
  return (progress) => {
    if (performance.now() - begin > QUIET_MS) report(progress);
  };
}
