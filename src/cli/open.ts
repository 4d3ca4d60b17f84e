// Loads the model of a command, with a progress bar when that takes long, and looks at images before it.

import { checkImage } from '../image/source';
import type { Model } from '../index';
import type { LoadOptions } from '../models/model';
import { progressReporter } from '../runtime/progress';
import { loadOptions, type ModelArguments, modelFolder } from './options';

/** Loading shorter than this shows nothing, and none does without a terminal: there stderr is for errors. */
const QUIET_MS = 2000;

/** Loads the model that `args` name. The framework is only imported here: `--help` needs none of it. */
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
        if (!args.quiet && process.stderr.isTTY && performance.now() - begin > QUIET_MS)
          reporter({ ...progress, unit: 'B' });
      },
    });
  } finally {
    reporter.stop();
  }
}

/** Sees that images are there and look like images, so that a wrong path does not wait for the model. */
export async function checkImages(images: readonly (string | Buffer)[]): Promise<void> {
  for (const image of images) await checkImage(image);
}
