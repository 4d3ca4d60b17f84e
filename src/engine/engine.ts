// Opens an engine: a model that answers many requests.

import {
  ANYTHING,
  BOOLEAN,
  type Checks,
  COUNT,
  checkOptions,
  FUNCTION,
  finite,
  integer,
  NATURAL,
  oneOf,
  SIGNAL,
  withCodes,
} from '../options';
import { openThread } from './remote';
import { requestedMethod } from './request';
import type { Engine, EngineOptions } from './types';

const OPTIONS: Checks<EngineOptions> = {
  ...{ revision: ANYTHING, weights: ANYTHING, precision: ANYTHING, maxPixels: ANYTHING, template: ANYTHING },
  ...{ signal: SIGNAL, onProgress: FUNCTION, allowUrls: BOOLEAN, sparsity: ANYTHING },
  kv: oneOf('bf16', 'f32'),
  contextLength: integer(2),
  memoryBytes: finite(0),
  maxRunning: COUNT,
  maxWaiting: NATURAL,
};

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
    const given = checkOptions<EngineOptions>('openEngine', options, OPTIONS);
    requestedMethod(given.sparsity);
    return openThread(name, given);
  },
);
