// `sparsevila convert`: writes a checkpoint in another 4-bit format, float type or layout, verified tensor by tensor.

import type { CommandModule } from 'yargs';
import { convert } from '../convert/convert';
import { LAYOUTS, type Layout } from '../convert/layout';
import { TARGET_DTYPES, TARGET_FORMATS } from '../convert/part_plan';
import { CHECKPOINT_OPTIONS, type CheckpointArguments, printResult } from './checkpoint_options';
import { interruptible } from './interrupt';
import { folderOf } from './open';
import { packagedPath } from './options';

interface ConvertArguments extends CheckpointArguments {
  readonly format: (typeof TARGET_FORMATS)[number] | undefined;
  readonly dtype: (typeof TARGET_DTYPES)[number] | undefined;
  readonly layout: Layout | undefined;
}

export const convertCommand: CommandModule<object, ConvertArguments> = {
  command: 'convert',
  describe: 'Write a checkpoint in another 4-bit format, float type or layout',
  builder: (yargs) =>
    yargs
      .options(CHECKPOINT_OPTIONS)
      .option('format', { choices: TARGET_FORMATS, describe: 'Format of 4-bit matrices; float dequantizes them' })
      .option('dtype', { choices: TARGET_DTYPES, describe: 'Data type of float tensors' })
      .option('layout', { choices: LAYOUTS, describe: "VILA's folders of parts, or one folder as the NVILA -hf ports" })
      .example('$0 convert -m assets/tiny-nvila --out tiny-f16 --dtype f16', 'Another float type')
      .example('$0 convert -m assets/tiny-nvila --out tiny-hf --layout hf', 'Names and configs of the NVILA -hf ports')
      .example(
        '$0 quantize -m assets/tiny-nvila --out tiny-awq --samples 8',
        'A 4-bit checkpoint for the next examples',
      )
      .example('$0 convert -m tiny-awq --out tiny-ct --format compressed-tensors', 'AutoAWQ as compressed-tensors')
      .example('$0 convert -m tiny-awq --out tiny-float --format float', 'The dequantized float checkpoint'),
  handler: async (args) => {
    await interruptible((signal) => run(args, signal));
  },
};

async function run({ json, ...options }: ConvertArguments, signal: AbortSignal): Promise<void> {
  const { out, format, dtype, layout } = options;
  const model = await folderOf(packagedPath(options.model), signal);
  return printResult(
    json,
    (reporter) => convert({ model, out, format, dtype, layout, signal, onProgress: reporter }),
    ({ out: made, converted, verified }) => `${made}\n${converted} tensors converted, ${verified} verified\n`,
  );
}
