// `sparsevila download`, `list` and `remove`: models of the Hub by name, in the cache of Hugging Face's tools.

import type { CommandModule, Options } from 'yargs';
import type { StoredModel } from '../index';
import { progressReporter } from '../runtime/progress';
import { interruptible } from './interrupt';
import { print, printJson } from './style';

const NAME = {
  name: { type: 'string', demandOption: true, describe: 'owner/name, or owner/name@revision, of a model on the Hub' },
  revision: { type: 'string', describe: 'Branch, tag or commit', defaultDescription: 'main' },
} as const satisfies Record<string, Options>;

const JSON_OPTION = { type: 'boolean', default: false, describe: 'Print the result as JSON' } as const;

interface Arguments {
  readonly name: string;
  readonly revision: string | undefined;
  readonly json: boolean;
}

const EPILOGUE =
  'HF_HOME or HF_HUB_CACHE say where the cache is, HF_TOKEN which models may be read, HF_ENDPOINT and HF_HUB_OFFLINE whether and where the ' +
  'Hub is asked. The cache is shared with the Python tools of Hugging Face.';

export const downloadCommand: CommandModule<object, Arguments & { readonly quiet: boolean }> = {
  command: 'download',
  describe: 'Download a model of the Hub, or what has changed of it, and print its folder',
  builder: (yargs) =>
    yargs
      .options(NAME)
      .option('json', JSON_OPTION)
      .option('quiet', { type: 'boolean', default: false, describe: 'Show no progress' })
      .epilogue(`Only the files that are needed are fetched. Stopped, the same command continues. ${EPILOGUE}`)
      .example('$0 download Efficient-Large-Model/NVILA-Lite-2B', 'The newest version')
      .example('$0 download Efficient-Large-Model/NVILA-Lite-2B --revision main --json', 'The result as JSON')
      .example(
        'HF_ENDPOINT=http://127.0.0.1:8080 $0 download Efficient-Large-Model/NVILA-Lite-2B',
        'From a mirror of the Hub',
      ),
  handler: async ({ name, revision, json, quiet }) => {
    await interruptible(async (signal) => {
      const { download } = await import('../index.js');
      const reporter = progressReporter();
      try {
        const given = { ...(revision !== undefined && { revision }), ...(!quiet && { onProgress: reporter }) };
        const result = await download(name, { ...given, signal });
        reporter.stop();
        if (json) printJson(result, 2);
        else print(`${result.folder}\n`);
      } finally {
        reporter.stop();
      }
    }, 'The same command continues where it was.\n');
  },
};

export const listCommand: CommandModule<object, { readonly json: boolean }> = {
  command: 'list',
  describe: 'List the models of the Hub that are in the cache',
  builder: (yargs) =>
    yargs
      .option('json', JSON_OPTION)
      .epilogue(
        'whole: loads without the network; partial: `download` fetches the rest; refused: a model that is not loaded here. ' +
          EPILOGUE,
      )
      .example('$0 list', 'A line for each revision')
      .example('$0 list --json', 'With folders and bytes'),
  handler: async ({ json }) => {
    const { list } = await import('../index.js');
    const models = await list();
    if (json) return printJson(models, 2);
    print(models.length === 0 ? 'No models in the cache.\n' : table(models));
  },
};

export const removeCommand: CommandModule<object, Arguments> = {
  command: 'remove',
  describe: 'Remove a model from the cache',
  builder: (yargs) =>
    yargs
      .options({ ...NAME, revision: { ...NAME.revision, defaultDescription: 'all of them' } })
      .option('json', JSON_OPTION)
      .epilogue(`With a revision, files that another revision has stay. ${EPILOGUE}`)
      .example('$0 remove Efficient-Large-Model/NVILA-Lite-2B', 'All revisions')
      .example('$0 remove Efficient-Large-Model/NVILA-Lite-2B --revision main', 'One revision'),
  handler: async ({ name, revision, json }) => {
    const { remove } = await import('../index.js');
    const removed = await remove(name, revision === undefined ? {} : { revision });
    if (json) printJson(removed, 2);
    else print(`Removed ${removed.name}: ${size(removed.bytes)}\n`);
  },
};

/** A line for each revision, in columns. */
function table(models: readonly StoredModel[]): string {
  const rows = models.flatMap(({ name, bytes, revisions }) => {
    if (revisions.length === 0) return [[name, '', '', size(bytes), 'partial']];
    return revisions.map((one) => [
      name,
      one.revisions.join(', '),
      one.commit.slice(0, 8),
      size(one.bytes),
      one.state as string,
    ]);
  });
  const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]): string =>
    row.map((cell, i) => (i === 3 ? cell.padStart(widths[3] ?? 0) : cell.padEnd(widths[i] ?? 0))).join('  ');
  return `${rows.map((row) => line(row).trimEnd()).join('\n')}\n`;
}

const size = (bytes: number): string =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(1)} MB`;
