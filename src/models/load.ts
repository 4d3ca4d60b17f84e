// Finds the family of a checkpoint by its `model_type` and loads it.

import { join, resolve } from 'node:path';
import { refuseAdapter } from '../checkpoint/safetensors';
import { received, SparseVilaError } from '../errors';
import { isFolder, isPresent } from '../files';
import { REVISION } from '../hub/names';
import { IMAGE_CHECKS } from '../image/decode';
import { BOOLEAN, checkOptions, checkValue, FUNCTION, finite, guardedCallback, NAME, oneOf, SIGNAL } from '../options';
import { ADAPTERS } from './adapters';
import { assemble, assembleRows } from './assemble';
import { checkpointFiles } from './checkpoint_files';
import { withImageCache } from './image_cache';
import { withLifetime } from './lifetime';
import type { LoadOptions, RowModel, VisionLanguageModel } from './model';
import type { Plan } from './plan';

/**
 * Loads the checkpoint folder `path`.
 * @throws SparseVilaError `ERR_OPTION_INVALID`; `ERR_MODEL_MISSING` (no folder or no config.json); `ERR_MODEL_TYPE` (no family reads it); errors
 *   of its files; `signal.reason` if aborted
 */
export async function loadModel(path: string, options?: Omit<LoadOptions, 'revision'>): Promise<VisionLanguageModel> {
  const { imageCache = 0, ...given } = checkLoad(path, options);
  given.signal?.throwIfAborted();
  const model = await assemble(planOf(path), given);
  return withLifetime(imageCache === 0 ? model : withImageCache(model, imageCache));
}

/** Loads the parts that turn pictures and text into the decoder's rows: of the decoder only the embedding. Throws as `loadModel`. */
export async function loadRowModel(path: string, options?: Omit<LoadOptions, 'imageCache'>): Promise<RowModel> {
  const given = checkLoad(path, options);
  given.signal?.throwIfAborted();
  return assembleRows(planOf(path), given);
}

/** Checks the options of `load`. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function checkLoad(path: string, options: LoadOptions | undefined): LoadOptions {
  checkValue('load', 'path', path, NAME);
  const { onProgress, ...given } = checkOptions<LoadOptions>('load', options, {
    weights: oneOf('f32', 'f16', 'bf16'),
    precision: oneOf('exact', 'fast'),
    weightCache: BOOLEAN,
    imageCache: { ...finite(0), expected: 'a number of bytes, 0 or more,' },
    ...IMAGE_CHECKS,
    template: NAME,
    revision: REVISION,
    signal: SIGNAL,
    onProgress: FUNCTION,
  });
  return onProgress === undefined ? given : { ...given, onProgress: guardedCallback('onProgress', onProgress) };
}

/**
 * The plan of the checkpoint folder `path`, made from its config files alone.
 * @throws SparseVilaError `ERR_MODEL_MISSING`, `ERR_MODEL_TYPE`, `ERR_CONFIG_…`
 */
export function planOf(path: string): Plan {
  const folder = resolve(path);
  const file = join(folder, 'config.json');
  if (!isFolder(folder) || !isPresent(file)) {
    throw new SparseVilaError(
      'ERR_MODEL_MISSING',
      `Expected a checkpoint folder with a config.json at ${folder}, found ${isFolder(folder) ? 'none in it' : isPresent(folder) ? 'no folder' : 'nothing there'}.`,
    );
  }
  refuseAdapter(folder);
  const files = checkpointFiles(folder);
  const type = files.root.json.model_type;
  const adapter = ADAPTERS.find(({ types }) => typeof type === 'string' && types.includes(type));
  if (adapter === undefined) {
    throw new SparseVilaError(
      'ERR_MODEL_TYPE',
      `${file}: expected "model_type" to be one of ${ADAPTERS.flatMap(({ types }) => types).join(', ')}, ` +
        `received ${received(type)}. CONTRIBUTING.md says how to add a family.`,
    );
  }
  return adapter.plan(files);
}
