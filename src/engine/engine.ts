// Opens an engine: a model that answers many requests.

import { IMAGE_CHECKS } from '../image/decode';
import {
  ANYTHING,
  BOOLEAN,
  type Check,
  type Checks,
  COUNT,
  checkOptions,
  checkValue,
  FUNCTION,
  finite,
  integer,
  NAME,
  NATURAL,
  oneOf,
  SIGNAL,
  withCodes,
  withMethods,
} from '../options';
import { openThread } from './remote';
import { requestedMethod } from './request';
import type { Engine, EngineOptions } from './types';

const OPTIONS: Checks<EngineOptions> = {
  ...{ revision: NAME, maxPixels: IMAGE_CHECKS.maxPixels, template: NAME },
  weights: oneOf('f32', 'f16', 'bf16'),
  precision: oneOf('exact', 'fast'),
  ...{ signal: SIGNAL, onProgress: FUNCTION, allowUrls: BOOLEAN, sparsity: ANYTHING },
  kv: oneOf('bf16', 'f32'),
  contextLength: integer(2),
  memoryBytes: finite(0),
  maxRunning: COUNT,
  maxWaiting: NATURAL,
};

/** Checks the options of an engine. @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_OPTION_MISSING` */
export function checkEngineOptions(options: EngineOptions | undefined): EngineOptions {
  const given = checkOptions<EngineOptions>('openEngine', options, OPTIONS);
  requestedMethod(given.sparsity);
  return given;
}

/** An argument that is an engine. */
export const ENGINE: Check = withMethods('an engine, such as that of openEngine(),', 'run', 'count', 'stats');

/**
 * Opens an engine for a checkpoint folder or a model of the Hub by name, as `load` does.
 * @example
 * const engine = await openEngine(PACKAGED_MODEL);
 * const messages = [{ role: 'user', content: [{ kind: 'image', image: PACKAGED_PICTURE }, 'Where is the yellow 2?'] }];
 * for await (const event of engine.run({ messages })) if (event.type === 'text') process.stdout.write(event.text);
 * await engine.close();
 * @throws SparseVilaError as `load`
 */
export const openEngine: (model: string, options?: EngineOptions) => Promise<Engine> = withCodes(
  async (name: string, options?: EngineOptions) => {
    checkValue('openEngine', 'model', name, NAME);
    return openThread(name, checkEngineOptions(options));
  },
);
