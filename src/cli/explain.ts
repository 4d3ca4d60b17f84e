// `sparsevila explain`: holds a conversation about images as `ask` does, and draws the visual tokens that it attended.

import { access, constants, writeFile } from 'node:fs/promises';
import { basename, dirname, extname, resolve } from 'node:path';
import type { ArgumentsCamelCase, CommandModule, InferredOptionTypes } from 'yargs';
import { SparseVilaError } from '../errors';
import { attendedOf, planesOf } from '../explain/attended';
import { type ExplainedTurn, type ExplainedVideo, explain } from '../explain/explain';
import { isPresent, makeFolder } from '../files';
import type { Model } from '../index';
import type { FilmFile, FrameList } from '../models/media';
import { installOnce, writeError } from '../runtime/atomic';
import type { TurnStats } from '../session/session';
import { observed } from '../sparsity/observed';
import { conversation, inputs } from './ask';
import { interruptible } from './interrupt';
import { methodOf } from './method_options';
import { openModel } from './open';
import {
  askOptions,
  CONVERSATION_OPTIONS,
  type ConversationFlags,
  FILES_EPILOGUE,
  loadOptions,
  modelFolder,
  QUESTION_OPTION,
  sessionOptions,
} from './options';
import { print, printJson } from './style';
import { turnRecord } from './turn';

const OUT_OPTION = {
  out: {
    type: 'string',
    demandOption: true,
    group: 'Conversation:',
    describe: 'PNG file to create',
  },
} as const;

type ExplainFlags = ConversationFlags &
  InferredOptionTypes<typeof QUESTION_OPTION> &
  InferredOptionTypes<typeof OUT_OPTION> & { json: boolean };
type ExplainArguments = ArgumentsCamelCase<ExplainFlags>;

export const explainCommand: CommandModule<object, ExplainFlags> = {
  command: 'explain',
  describe: 'Draw the visual tokens that a conversation attended',
  builder: (yargs) =>
    yargs
      .options(QUESTION_OPTION)
      .options(OUT_OPTION)
      .options(CONVERSATION_OPTIONS)
      .option('json', {
        type: 'boolean',
        default: false,
        group: 'Conversation:',
        describe: 'Print one JSON object with every cell at the end',
      })
      .epilogue(`${FILES_EPILOGUE} Without --model and --image, the packaged picture is explained.`)
      .example('$0 explain -q "Where is the yellow 2?" --out explain.png', 'One question about the packaged picture')
      .example(
        '$0 explain -i assets/demo/scene.png -q "Read row 7." -q "Where is the yellow 2?" --decode-sparsity 0.9 --out two.png',
        'Two questions, a tenth of the kept cells each',
      )
      .example(
        '$0 explain --video assets/demo/film.webp -q "On which square is the yellow 2?" --out film.png',
        'Eight frames of a film',
      )
      .example('$0 explain -q "Read row 7." --method dense --out dense.png', 'Relevance without sparsity'),
  handler: async (args) => {
    await interruptible((signal) => run(args, signal));
  },
};

async function run(args: ExplainArguments, signal: AbortSignal): Promise<void> {
  const { method, options } = methodOf(args);
  const asking = askOptions(args);
  const { questions, ...media } = await inputs(args, signal);
  if (media.images.length + media.videos.length === 0)
    throw new SparseVilaError('ERR_OPTION_MISSING', 'Expected --image or --video to explain, received neither.');
  const out = resolve(args.out);
  await checkOutput(out);
  const watched = observed(method);
  const opening = sessionOptions(args, watched.method);
  using model = await openModel(args, signal);
  using session = model.session(opening);
  const turns: (ExplainedTurn & { readonly stats: TurnStats })[] = [];
  for await (const { question, answer } of conversation(session, questions, asking, media, signal)) {
    const words = await answer.text();
    const { stats } = answer;
    if (stats === undefined) continue;
    const asked = turns.length === 0 ? { images: media.images, videos: await framesOf(model, media.videos, args) } : {};
    turns.push({ question, answer: words, ...asked, stats, relevance: watched.takeRelevance() });
  }
  const title = titleOf(basename(modelFolder(args)), method.name, options);
  const { allowUrls, maxPixels } = loadOptions(args);
  const png = await explain(turns, {
    ...{ title, signal },
    ...(allowUrls === undefined ? {} : { allowUrls }),
    ...(maxPixels === undefined ? {} : { maxPixels }),
  });
  await write(out, png);
  if (!args.json) return print(`${out}\n`);
  const result = { out, model: modelFolder(args), method: method.name, ...options, ...cellsOf(turns) };
  printJson(result, 2);
}

/** The videos as frames: those of film files are found again. */
function framesOf(
  model: Model,
  videos: readonly (FrameList | FilmFile)[],
  args: ExplainArguments,
): Promise<ExplainedVideo[]> {
  const { allowUrls, maxPixels } = loadOptions(args);
  const reading = { ...(allowUrls !== undefined && { allowUrls }), ...(maxPixels !== undefined && { maxPixels }) };
  return Promise.all(
    videos.map(async (video) => {
      if ('frames' in video) return video;
      const { onProgress: _, ...film } = video;
      return await model.frames(film, reading);
    }),
  );
}

function titleOf(model: string, method: string, ratios: { prefillSparsity?: number; decodeSparsity?: number }): string {
  const { prefillSparsity, decodeSparsity } = ratios;
  const words = [
    method,
    model,
    prefillSparsity === undefined ? '' : `prefill sparsity ${prefillSparsity}`,
    decodeSparsity === undefined ? '' : `decode sparsity ${decodeSparsity}`,
  ];
  return words.filter((word) => word !== '').join(' · ');
}

/** The cells for programs: those of each picture, and for each turn those per picture and layer; null: every kept cell. */
function cellsOf(turns: readonly (ExplainedTurn & { readonly stats: TurnStats })[]) {
  const attended = attendedOf(turns);
  return {
    pictures: turns
      .flatMap(({ stats }) => stats.media)
      .flatMap((medium, media) => planesOf(medium, { media, planes: 0, rows: 0 }))
      .map(({ medium, gridIndex, plane, grid, kept, salience }) => {
        return { medium, grid: gridIndex, plane, ...grid, kept: [...kept], salience: [...(salience ?? [])] };
      }),
    turns: turns.map(({ question, answer, stats }, i) => ({
      ...turnRecord(question, answer, stats),
      retrieved: attended[i]?.map(({ retrieved }) => retrieved ?? null) ?? [],
    })),
  };
}

/** Checks, before the model is loaded, that the name is new and the folder writable. */
async function checkOutput(out: string): Promise<void> {
  if (extname(out).toLowerCase() !== '.png')
    throw new SparseVilaError('ERR_OPTION_INVALID', `Expected a name that ends in .png for --out, received ${out}.`);
  if (isPresent(out)) throw exists(out);
  try {
    makeFolder(dirname(out));
    await access(dirname(out), constants.W_OK);
  } catch (error) {
    throw writeError(error, out);
  }
}

async function write(out: string, png: Buffer): Promise<void> {
  if (!(await installOnce(out, (temporary) => writeFile(temporary, png)))) throw exists(out);
}

function exists(out: string): SparseVilaError {
  const message = `Expected a new file as output, but ${out} exists. Give another name or remove it.`;
  return new SparseVilaError('ERR_OUTPUT_EXISTS', message);
}
