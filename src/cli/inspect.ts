// `sparsevila inspect`: describes a checkpoint folder and what it needs, from its headers. Exit code 1 if it would not load.

import type { CommandModule } from 'yargs';
import { SparseVilaError } from '../errors';
import type { Size } from '../image/cells';
import { inspectByName } from '../models/by_name';
import type { Inspection } from '../models/inspect';
import { PARTS } from '../models/plan';
import { packagedPath } from './options';
import { print, printJson } from './style';

interface InspectArguments {
  readonly model: string;
  readonly image: readonly string[] | undefined;
  readonly json: boolean;
}

export const inspectCommand: CommandModule<object, InspectArguments> = {
  command: 'inspect',
  describe: 'Describe a checkpoint folder, what it needs, and why it would not load; reads only configs and headers',
  builder: (yargs) =>
    yargs
      .option('model', {
        type: 'string',
        alias: 'm',
        demandOption: true,
        describe: 'Checkpoint folder, or owner/name on the Hub',
      })
      .option('image', {
        type: 'string',
        array: true,
        describe: 'Size of an image whose visual tokens are counted, as 640x480',
        defaultDescription: '448x448 1920x1080',
      })
      .option('json', { type: 'boolean', default: false, describe: 'Print everything as JSON' })
      .example('$0 inspect assets/tiny-nvila', 'The packaged model')
      .example('$0 inspect assets/tiny-nvila --image 1280x720 --json', 'Everything, with another image')
      .example('$0 inspect Efficient-Large-Model/NVILA-Lite-2B', 'A model on the Hub; its weights are not downloaded'),
  handler: async ({ model, image, json }) => {
    const result = await inspectByName(packagedPath(model), image === undefined ? {} : { images: image.map(sizeOf) });
    if (json) printJson(result, 2);
    else print(text(result));
    if (result.problems.length > 0) process.exitCode = 1;
  },
};

/** Parses --image. @throws SparseVilaError `ERR_OPTION_INVALID` */
function sizeOf(given: string): Size {
  const [, width, height] = /^([1-9]\d{0,6})x([1-9]\d{0,6})$/.exec(given) ?? [];
  if (width !== undefined && height !== undefined) return { width: Number(width), height: Number(height) };
  throw new SparseVilaError(
    'ERR_OPTION_INVALID',
    `Expected WIDTHxHEIGHT in pixels for --image, received ${JSON.stringify(given.slice(0, 40))}.`,
  );
}

function text(found: Inspection): string {
  const { decoder, tower, projector } = found.config;
  const sizes = {
    decoder: `${decoder.layers} layers of ${decoder.hiddenSize}, ${decoder.heads} heads (${decoder.kvHeads} of keys and values)`,
    tower: `${tower.layers} layers of ${tower.hiddenSize}, ${tower.heads} heads, ${tower.imageSize ?? 'any number of'} pixels in patches of ${tower.patchSize}`,
    projector: `${projector.map((step) => (step.kind === 'norm' ? 'norm' : `${step.cols} to ${step.rows}`)).join(', ')}`,
  };
  const parts = PARTS.flatMap((part) => {
    const { parameters, bytes, formats } = found.parts[part];
    const forms = Object.entries(formats).sort(([, a], [, b]) => b - a);
    const shares = forms.map(
      ([format, count]) => `${format}${forms.length > 1 ? ` ${percent(count, parameters)}` : ''}`,
    );
    return [
      row(part, sizes[part]),
      row('', `${amount(parameters)} parameters in ${size(bytes)}: ${shares.join('; ')}`),
    ];
  });
  const { stored, ...others } = found.memory;
  const memory = Object.entries(others).map(([type, bytes]) => `${size(bytes)} as ${type}`);
  const cache = Object.entries(found.kvBytesPerToken).map(([type, bytes]) => `${size(bytes)} (${type})`);
  const images = found.images.map(({ width, height, tokens, tiles }) => {
    return row(`${width}x${height}`, `${tokens} visual tokens${tiles === 1 ? '' : ` from ${tiles} tiles`}`);
  });
  return [
    `${found.folder}: ${found.family}`,
    ...parts,
    row('context', `${found.contextLength} tokens, ${cache.join(' or ')} of KV cache each`),
    ...(found.stateBytes > 0 ? [row('states', `${size(found.stateBytes)} for each conversation and each mark`)] : []),
    row('memory', `${size(stored)} as stored; ${memory.join(', ')} with --weights`),
    ...images,
    ...found.unsupported.map(({ what, why }) => row('unsupported', `${what}: ${why}`)),
    ...(found.zeroBiases.length > 0
      ? [row('biases', `${found.zeroBiases.length} that the model does not have: loading sees whether they are zeros`)]
      : []),
    ...(found.problems.length === 0 ? [row('loads', 'yes, as far as headers tell')] : [row('loads', 'no:')]),
    ...found.problems.map(({ code, message }) => `${code} ${message}`),
    '',
  ].join('\n');
}

const row = (name: string, value: string): string => `  ${name.padEnd(11)} ${value}`;
const percent = (part: number, whole: number): string => `${((100 * part) / whole).toFixed(1)} %`;

/** Formats a count in thousands, millions or billions. */
function amount(count: number): string {
  const [scale, unit] = count >= 1e9 ? [1e9, ' B'] : count >= 1e6 ? [1e6, ' M'] : count >= 1e3 ? [1e3, ' k'] : [1, ''];
  return `${(count / scale).toFixed(scale === 1 ? 0 : 2)}${unit}`;
}

function size(bytes: number): string {
  const [scale, unit] = bytes >= 1e9 ? [1e9, 'GB'] : bytes >= 1e6 ? [1e6, 'MB'] : [1e3, 'kB'];
  return `${(bytes / scale).toFixed(1)} ${unit}`;
}
