// `bench load`: what it costs to describe, load and ask a checkpoint: times, and resident memory over the bytes of its weights.

import { readFileSync } from 'node:fs';
import type { CommandModule } from 'yargs';
import { inspect, load } from '../../src';

interface Options {
  model: string;
  picture: number;
}

export const LOAD: CommandModule<object, Options> = {
  command: 'load',
  describe: 'Times of inspect, load and one question about a picture, and resident memory',
  builder: (yargs) =>
    yargs
      .option('model', { type: 'string', demandOption: true, describe: 'Checkpoint folder' })
      .option('picture', { type: 'number', default: 448, describe: 'Side of the picture, pixels' })
      .example('$0 load --model assets/tiny-nvila', ''),
  handler: (options) => benchLoad(options),
};

/** Fields of /proc/self/status in bytes. `VmHWM`: the maximum so far; `RssAnon`: without mapped files. */
function resident(field: 'VmRSS' | 'VmHWM' | 'RssAnon'): number {
  const status = readFileSync('/proc/self/status', 'utf8');
  return 1024 * Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1]);
}

const seconds = async <T>(work: () => Promise<T>): Promise<[T, number]> => {
  const begin = performance.now();
  return [await work(), (performance.now() - begin) / 1000];
};

async function benchLoad({ model: path, picture }: Options): Promise<void> {
  const [{ parts, memory }, inspectS] = await seconds(() => inspect(path));
  const fileBytes = Object.values(parts).reduce((sum, { bytes }) => sum + bytes, 0);
  const before = resident('VmRSS');
  const [model, loadS] = await seconds(() => load(path));
  const after = { peak: resident('VmHWM'), anonymous: resident('RssAnon'), all: resident('VmRSS') };
  const data = Uint8Array.from({ length: 3 * picture ** 2 }, (_, i) => (i * 7) % 251);
  using session = model.session();
  const answer = session.ask('What is this?', {
    images: [{ data, width: picture, height: picture, channels: 3 }],
    maxTokens: 8,
    temperature: 0,
  });
  const [text, answerS] = await seconds(() => answer.text());
  const gb = (bytes: number): number => Number((bytes / 1e9).toFixed(2));
  const result = {
    ...{
      model: path,
      inspectS,
      loadS,
      answerS,
      fileGB: gb(fileBytes),
      predictedGB: gb(memory.stored),
      beforeGB: gb(before),
    },
    ...{ peakWhileLoadingGB: gb(after.peak), loadedGB: gb(after.all), anonymousGB: gb(after.anonymous) },
    ...{ peakGB: gb(resident('VmHWM')), overFile: Number((after.peak / fileBytes).toFixed(2)) },
    ...{ tokens: answer.stats?.tokens, text: text.slice(0, 40) },
  };
  process.stdout.write(`${JSON.stringify(result)}\n`);
  model.dispose();
}
