// Loads the model of a command, with a progress bar if that takes long, and checks images before it.

import { checkImage } from '../image/source';
import type { Model } from '../index';
import type { LoadOptions } from '../models/model';
import { type Progress, progressReporter } from '../runtime/progress';
import { loadOptions, type ModelArguments, modelFolder } from './options';

/** Milliseconds of loading before a progress bar is shown. Without a terminal none is shown, because stderr is for errors. */
const QUIET_MS = 2000;

/** Loads the model that `args` select. The engine is imported here, because `--help` does not need it. */
export async function openModel(
  args: ModelArguments & { readonly quiet?: boolean | undefined },
  signal: AbortSignal,
  more: Pick<LoadOptions, 'imageCache'> = {},
): Promise<Model> {
  const folder = modelFolder(args);
  const { load } = await import('../index.js');
  const reporter = progressReporter();
  const begin = performance.now();
  try {
    return await load(folder, {
      ...loadOptions(args),
      ...more,
      signal,
      onProgress: (progress) => {
        const isLong = process.stderr.isTTY && performance.now() - begin > QUIET_MS;
        if (!args.quiet && (isLong || isDownload(progress))) reporter({ ...progress, unit: 'B' });
      },
    });
  } finally {
    reporter.stop();
  }
}

/** A download takes minutes: it is reported where loading is not, in a few lines if there is no terminal. */
const isDownload = ({ step }: Progress): boolean => step.startsWith('download ');

/**
 * The folder of the model that `path` names: itself, or that of a model on the Hub, which is downloaded first.
 * @throws SparseVilaError as `load`
 */
export async function folderOf(path: string, signal: AbortSignal): Promise<string> {
  const { checkpointFolder } = await import('../models/by_name.js');
  const reporter = progressReporter();
  try {
    return await checkpointFolder(path, { signal, onProgress: reporter });
  } finally {
    reporter.stop();
  }
}

/** Checks that images exist and start like images, before the model is loaded. */
export async function checkImages(images: readonly (string | Buffer)[]): Promise<void> {
  for (const image of images) await checkImage(image);
}
