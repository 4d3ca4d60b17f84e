// `sparsevila setup`: fetches libtensorflow and compiles the native modules. Shows progress on stderr.

import type { CommandModule } from 'yargs';
import { progressReporter } from '../runtime/progress';
import { setup } from '../runtime/setup';

interface SetupArguments {
  readonly json: boolean;
}

export const setupCommand: CommandModule<object, SetupArguments> = {
  command: 'setup',
  describe: 'Fetch libtensorflow and compile the native modules',
  builder: (yargs) =>
    yargs
      .option('json', { type: 'boolean', default: false, describe: 'Print what is installed, as JSON' })
      .example('$0 setup', 'Set up; does nothing when all is there')
      .example(
        'SPARSEVILA_LIBTENSORFLOW=/opt/libtensorflow $0 setup',
        'Use the libtensorflow in a folder; fetch nothing',
      ),
  handler: async ({ json }) => {
    const controller = new AbortController();
    const abort = () => controller.abort();
    process.once('SIGINT', abort).once('SIGTERM', abort);
    const reporter = progressReporter();
    try {
      const installation = await setup({ signal: controller.signal, onProgress: reporter });
      reporter.stop();
      if (json) process.stdout.write(`${JSON.stringify(installation, null, 2)}\n`);
      else process.stderr.write(`Ready: ${installation.cache}\n`);
    } finally {
      reporter.stop();
      process.off('SIGINT', abort).off('SIGTERM', abort);
    }
  },
};
