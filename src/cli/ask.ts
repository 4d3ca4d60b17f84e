// `sparsevila ask`: questions about images in one conversation, answered as text or as JSON.

import { addAbortSignal } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import type { ArgumentsCamelCase, CommandModule, InferredOptionTypes } from 'yargs';
import { SparseVilaError } from '../errors';
import type { FilmFile, FrameList } from '../models/media';
import { methodFor } from '../session/quota_scores';
import type { AskOptions, Session } from '../session/session';
import { interruptible } from './interrupt';
import { methodOf } from './method_options';
import { checkImages, openModel } from './open';
import {
  askOptions,
  CONVERSATION_OPTIONS,
  type ConversationArguments,
  type ConversationFlags,
  FILES_EPILOGUE,
  formatOf,
  imagePaths,
  modelFolder,
  OUTPUT_OPTIONS,
  QUESTION_OPTION,
  sessionOptions,
} from './options';
import { columns, notes, printJson, printNote } from './style';
import { streamAnswer, summaryLines, type TurnRecord, turnRecord } from './turn';
import { videoOf, videoPaths } from './videos';

export type OutputFlags = InferredOptionTypes<typeof OUTPUT_OPTIONS>;
type AskFlags = ConversationFlags & InferredOptionTypes<typeof QUESTION_OPTION> & OutputFlags;
export type AskArguments = ArgumentsCamelCase<AskFlags>;

export const askCommand: CommandModule<object, AskFlags> = {
  command: 'ask',
  describe: 'Ask questions about images. The answers alone go to stdout',
  builder: (yargs) =>
    yargs
      .options(QUESTION_OPTION)
      .options(CONVERSATION_OPTIONS)
      .options(OUTPUT_OPTIONS)
      .epilogue(`${FILES_EPILOGUE} Without --model and --image, the packaged picture is asked about.`)
      .example('$0 ask -q "Where is the yellow 2?"', 'The packaged model about its picture')
      .example('$0 ask -i assets/demo/scene.png -q "Read row 7." -q "Where is the yellow 2?"', 'Two questions in order')
      .example(
        '$0 ask -m assets/tiny-nvila -i assets/demo/scene.png -q "Read row 7." --method dense',
        'Without sparsity',
      )
      .example(
        '$0 ask --video assets/demo/film.webp --max-frames 3 -q "On which square is the yellow 2?"',
        'The packaged film model about a film',
      )
      .example(
        '$0 ask --video assets/demo/film.webp -q "On which square is the yellow 2?" --method rekv --local-frames 8 --kv-budget 100000',
        'A long film in bounded memory',
      )
      .example('$0 ask -q "Read row 7." --verify dense', 'Drafts are sparse, the answer is dense')
      .example('$0 ask -q "Read row 7." --refresh 4', 'Visual tokens are selected again every four tokens')
      .example('$0 ask -q "Read row 7." --quiet > answer.txt', 'The answer alone')
      .example('$0 ask -q "Read row 7." --format json', 'An answer that is JSON; a file name is a JSON schema')
      .example('$0 ask -q "Read row 7." --json', 'A record with tokens, times and how the answer ended'),
  handler: async (args) => {
    await interruptible((signal) => ask(args, signal));
  },
};

/** Asks all questions and prints the answers. */
export async function ask(args: AskArguments, signal: AbortSignal): Promise<void> {
  const { method, entry, ratios, options } = methodOf(args, { hasQuestion: true });
  const [session, asking] = [sessionOptions(args, method), { ...askOptions(args), ...formatOf(args.format) }];
  const { questions, ...media } = await inputs(args, signal);
  using model = await openModel(args, signal);
  const turn = { question: questions[0] ?? '', ...media, signal };
  // Where a method is shared out by scores of frames, the model gives them before the first turn.
  const scored = entry.frameScores ? { method: await methodFor(model, entry, ratios, turn) } : {};
  using chat = model.session({ ...session, ...scored });
  const turns = conversation(chat, questions, asking, media, signal);
  if (!args.json) return await printTurns(turns, args.quiet);
  const records: TurnRecord[] = [];
  for await (const { question, answer } of turns) {
    const words = await answer.text();
    if (answer.stats !== undefined) records.push(turnRecord(question, words, answer.stats));
  }
  printJson({ model: modelFolder(args), method: method.name, ...options, turns: records }, 2);
}

/** Images and videos of the first question. */
interface FirstMedia {
  readonly images: readonly (string | Buffer)[];
  readonly videos: readonly (FrameList | FilmFile)[];
}

/** The turns of a command. Each begins after the one before has ended; all media belong to the first. */
export async function* conversation(
  session: Session,
  questions: readonly string[],
  options: AskOptions,
  media: FirstMedia,
  signal: AbortSignal,
): AsyncGenerator<{ question: string; answer: ReturnType<Session['ask']> }> {
  for (const [i, question] of questions.entries()) {
    yield { question, answer: session.ask(question, { ...options, ...(i === 0 ? media : {}), signal }) };
  }
}

/** Prints answers to stdout; questions and statistics are notes. */
async function printTurns(turns: ReturnType<typeof conversation>, quiet: boolean): Promise<void> {
  for await (const { question, answer } of turns) {
    if (!quiet) printNote(`> ${question}\n`, 'bold');
    await streamAnswer(answer, (words) => process.stdout.write(words));
    if (!quiet && answer.stats !== undefined) printNote(`${summaryLines(answer.stats, columns(notes()))}\n\n`, 'dim');
  }
}

/** The media of the first question, and all questions; `-` is read from stdin. Images are checked before the model is loaded. */
export async function inputs(
  args: ConversationArguments & { readonly question: readonly string[]; readonly quiet?: boolean },
  signal: AbortSignal,
): Promise<FirstMedia & { questions: string[] }> {
  const paths = imagePaths(args);
  const frameLists = videoPaths(args);
  const dashes = [...paths, ...frameLists.flat(), ...args.question].filter((value) => value === '-').length;
  if (dashes > 1) {
    throw new SparseVilaError('ERR_OPTION_INVALID', `Expected stdin (-) to be read once, received it ${dashes} times.`);
  }
  const read = (all: readonly string[]): Promise<(string | Buffer)[]> =>
    Promise.all(all.map((path) => (path === '-' ? buffer(addAbortSignal(signal, process.stdin)) : path)));
  const images = await read(paths);
  const videos = await Promise.all(frameLists.map(async (frames) => videoOf(await read(frames), args)));
  const questions: string[] = [];
  for (const question of args.question) {
    if (question !== '-') questions.push(question);
    else
      questions.push(
        ...(await text(addAbortSignal(signal, process.stdin))).split(/\r?\n/).filter((line) => line.trim() !== ''),
      );
  }
  if (questions.length === 0 || questions.some((question) => question.trim() === '')) {
    throw new SparseVilaError('ERR_QUESTION', 'Expected a question of at least one character, received an empty one.');
  }
  await checkImages(images);
  return { images, videos, questions };
}
