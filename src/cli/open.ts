// Loads the model of a command, with a progress bar if that takes long, and checks images before it.

import { checkImage } from '../image/source';
import type { Model } from '../index';
import type { LoadOptions } from '../models/model';
import { progressReporter } from '../runtime/progress';
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
        if (!args.quiet && process.stderr.isTTY && performance.now() - begin > QUIET_MS)
          reporter({ ...progress, unit: 'B' });
      },
    });
  } finally {
    reporter.stop();
  }
}

/** Checks that images exist and start like images, before the model is loaded. */
export async function checkImages(images: readonly (string | Buffer)[]): Promise<void> {
  for (const image of images) await checkImage(image);
}
