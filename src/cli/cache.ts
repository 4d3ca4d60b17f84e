// `sparsevila cache`: the packed weights that `load` keeps on disk.

import type { CommandModule } from 'yargs';
import { print, printJson } from './style';

interface Arguments {
  readonly clear: boolean;
  readonly json: boolean;
}

export const cacheCommand: CommandModule<object, Arguments> = {
  command: 'cache',
  describe: 'Show or clear the cache of packed weights, from which models load the second time',
  builder: (yargs) =>
    yargs
      .option('clear', { type: 'boolean', default: false, describe: 'Remove all of them' })
      .option('json', { type: 'boolean', default: false, describe: 'Print the result as JSON' })
      .epilogue(
        'Models of 256 MB or more are kept in $SPARSEVILA_CACHE/packed, the least recently used are removed first. SPARSEVILA_WEIGHT_CACHE is ' +
          "the most space that they may take, such as 30GB (default 20GB), or 'off'.",
      )
      .example('$0 cache', 'A line for each model')
      .example('$0 cache --clear', 'Remove them'),
  handler: async ({ clear, json }) => {
    const { clearWeightCache, weightCache } = await import('../index.js');
    if (clear) {
      const removed = clearWeightCache();
      return json ? printJson({ bytes: removed }, 2) : print(`Removed ${gigabytes(removed)}\n`);
    }
    const entries = weightCache();
    if (json) return printJson(entries, 2);
    if (entries.length === 0) return print('No packed weights in the cache.\n');
    for (const { model, bytes, used } of entries)
      print(`${gigabytes(bytes).padStart(9)}  ${new Date(used).toISOString().slice(0, 10)}  ${model}\n`);
  },
};

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;
