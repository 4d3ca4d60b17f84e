// `sparsevila convert`: writes a checkpoint in another 4-bit layout or float type, verified tensor by tensor.

import type { CommandModule } from 'yargs';
import { convert, TARGET_DTYPES, TARGET_FORMATS } from '../quantize/convert';
import { progressReporter } from '../runtime/progress';
import { interruptible } from './interrupt';

interface ConvertArguments {
  readonly model: string;
  readonly out: string;
  readonly format: (typeof TARGET_FORMATS)[number] | undefined;
  readonly dtype: (typeof TARGET_DTYPES)[number] | undefined;
  readonly json: boolean;
}

export const convertCommand: CommandModule<object, ConvertArguments> = {
  command: 'convert',
  describe: 'Write a checkpoint in another 4-bit layout or float type',
  builder: (yargs) =>
    yargs
      .option('model', { type: 'string', demandOption: true, describe: 'Folder of the checkpoint' })
      .option('out', { type: 'string', demandOption: true, describe: 'New folder' })
      .option('format', { choices: TARGET_FORMATS, describe: 'Layout of 4-bit matrices; float undoes them' })
      .option('dtype', { choices: TARGET_DTYPES, describe: 'Type of float tensors' })
      .option('json', { type: 'boolean', default: false, describe: 'Print the result as JSON' })
      .example('$0 convert --model m-awq --out m-ct --format compressed-tensors', 'AutoAWQ as compressed-tensors')
      .example('$0 convert --model m-awq --out m-f16 --format float', 'The float checkpoint it stands for')
      .example('$0 convert --model m --out m-f16 --dtype f16', 'Another float type'),
  handler: async (args) => {
    await interruptible((signal) => run(args, signal));
  },
};

async function run({ model, out, format, dtype, json }: ConvertArguments, signal: AbortSignal): Promise<void> {
  const reporter = progressReporter();
  try {
    const result = await convert({ model, out, format, dtype, signal, onProgress: reporter });
    reporter.stop();
    const { converted, verified } = result;
    if (json) process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
    else process.stdout.write(`${result.out}\n${converted} tensors converted, ${verified} verified\n`);
  } finally {
    reporter.stop();
  }
}
