// `sparsevila setup`: fetches the engine and libtensorflow and compiles the native modules and the GPU library. Shows progress on stderr.

import type { CommandModule } from 'yargs';
import { progressReporter } from '../runtime/progress';
import { setup } from '../runtime/setup';
import { signalExit } from './usage';

interface SetupArguments {
  readonly json: boolean;
  readonly gpu: boolean | undefined;
}

export const setupCommand: CommandModule<object, SetupArguments> = {
  command: 'setup',
  describe: 'Fetch the engine and compile the native modules',
  builder: (yargs) =>
    yargs
      .option('gpu', {
        type: 'boolean',
        describe:
          'Build the GPU library, even without a GPU; by default it is built if there is an NVIDIA GPU; --no-gpu skips it',
      })
      .option('json', { type: 'boolean', default: false, describe: 'Print what was installed as JSON' })
      .example('$0 setup', 'Set up; does nothing when all is there')
      .example('$0 setup --gpu', 'Build the GPU library on a machine without a GPU too')
      .example(
        'SPARSEVILA_LIBTENSORFLOW=/opt/libtensorflow $0 setup',
        'Use the libtensorflow in a folder; fetch nothing',
      ),
  handler: runSetup,
};

export async function runSetup({ json, gpu }: SetupArguments): Promise<void> {
  const controller = new AbortController();
  const abort = (signal: NodeJS.Signals): void => {
    process.exitCode = signalExit(signal);
    controller.abort();
  };
  process.once('SIGINT', abort).once('SIGTERM', abort);
  const reporter = progressReporter();
  try {
    const installation = await setup({ gpu, signal: controller.signal, onProgress: reporter });
    reporter.stop();
    if (json) process.stdout.write(`${JSON.stringify(installation, null, 2)}\n`);
    else process.stderr.write(`Ready: ${installation.cache}\n`);
    if (installation.gpuFailure !== undefined) {
      process.stderr.write(`warning: no GPU library, everything runs on the CPU. ${installation.gpuFailure}\n`);
    }
  } finally {
    reporter.stop();
    process.off('SIGINT', abort).off('SIGTERM', abort);
  }
}
