// `sparsevila quantize`: makes a 4-bit checkpoint. Progress goes to stderr, Ctrl-C stops, the same command continues.

import type { CommandModule } from 'yargs';
import { QUANTIZED_FORMATS, type QuantizedFormat } from '../checkpoint/formats';
import {
  METHODS,
  MODULES,
  type Module,
  ROUNDINGS,
  type Rounding,
  TOWER_FORMATS,
  type TowerFormat,
} from '../quantize/options';
import { quantize, searchedGroups } from '../quantize/quantize';
import { formatReport, report } from '../quantize/report';
import { CHECKPOINT_OPTIONS, type CheckpointArguments, printResult } from './checkpoint_options';
import { interruptible } from './interrupt';
import { folderOf } from './open';
import { packagedPath } from './options';

interface QuantizeArguments extends CheckpointArguments {
  readonly format: QuantizedFormat;
  readonly 'group-size': number;
  readonly symmetric: boolean;
  readonly method: (typeof METHODS)[number];
  readonly rounding: Rounding;
  readonly modules: readonly Module[];
  readonly tower: TowerFormat | undefined;
  readonly calibration: string | undefined;
  readonly samples: number | undefined;
  readonly rows: number | undefined;
  readonly report: boolean;
  readonly evaluation: string | undefined;
}

export const quantizeCommand: CommandModule<object, QuantizeArguments> = {
  command: 'quantize',
  describe: 'Make a 4-bit checkpoint with AWQ; vision tower and projector on request',
  builder: (yargs) =>
    yargs
      .options(CHECKPOINT_OPTIONS)
      .option('format', { choices: QUANTIZED_FORMATS, default: 'autoawq' as const, describe: 'Layout of the weights' })
      .option('group-size', {
        type: 'number',
        default: 128,
        describe: 'Number of inputs that share a scale: a multiple of 32',
      })
      .option('symmetric', { type: 'boolean', default: false, describe: 'Quantize without zero points' })
      .option('method', {
        choices: METHODS,
        default: 'awq' as const,
        describe: 'How scales are found; rtn only rounds to nearest',
      })
      .option('rounding', {
        choices: ROUNDINGS,
        default: 'feedback' as const,
        describe: 'How weights are rounded; nearest is plain AWQ',
      })
      .option('modules', {
        choices: MODULES,
        array: true,
        default: ['decoder'] as Module[],
        describe: 'Modules to quantize to 4 bits',
      })
      .option('tower', { choices: TOWER_FORMATS, describe: 'Quantize the vision tower to 8 bits instead' })
      .option('calibration', {
        type: 'string',
        describe:
          'JSON lines of {image, turns: [{question, answer}]}; default the packaged scenes. Missing answers are generated, which loads the whole float model',
      })
      .option('samples', { type: 'number', describe: 'Maximum number of calibration conversations (128)' })
      .option('rows', {
        type: 'number',
        describe: 'Maximum number of calibration tokens that the search compares (4096)',
      })
      .option('report', {
        type: 'boolean',
        default: false,
        describe: 'Then compare the float, the round-to-nearest and the AWQ model',
      })
      .option('evaluation', { type: 'string', describe: 'Conversations for the report; default the packaged scenes' })
      .example(
        '$0 quantize -m assets/tiny-nvila --out tiny-awq',
        'AutoAWQ, groups of 128, calibrated on the packaged scenes',
      )
      .example(
        '$0 quantize -m assets/tiny-nvila --out tiny-all --modules decoder tower projector --samples 8 --report',
        'Vision tower and projector as well, with a report on quality',
      )
      .example(
        '$0 quantize -m assets/tiny-nvila --out tiny-ct --format compressed-tensors --group-size 32 --symmetric',
        'As llm-compressor writes it',
      ),
  handler: async (args) => {
    await interruptible((signal) => run(args, signal), 'The same command continues from here.\n');
  },
};

async function run(args: QuantizeArguments, signal: AbortSignal): Promise<void> {
  const model = await folderOf(packagedPath(args.model), signal);
  const { out, format, 'group-size': groupSize, symmetric, method, rounding, modules } = args;
  const { calibration, samples, rows, evaluation, tower } = args;
  return printResult(
    args.json,
    async (onProgress) => {
      const what = { model, groupSize, symmetric, modules, calibration, samples, rows, tower, signal, onProgress };
      const result = await quantize({ ...what, out, format, method, rounding });
      const quality = args.report ? await report({ ...what, quantized: result.out, evaluation }) : undefined;
      return { ...result, report: quality };
    },
    (result) =>
      `${result.out}\n${result.report === undefined ? '' : formatReport(result.report, searchedGroups(result))}`,
  );
}
