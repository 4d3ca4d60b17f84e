// `sparsevila ask`: questions about images in one conversation, answered as text or as JSON.

import { addAbortSignal } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import type { ArgumentsCamelCase, CommandModule, InferredOptionTypes } from 'yargs';
import { SparseVilaError } from '../errors';
import type { ImageInput } from '../image/decode';
import type { Session } from '../session/session';
import { interruptible } from './interrupt';
import { checkImages, openModel } from './open';
import {
  askOptions,
  CONVERSATION_OPTIONS,
  type ConversationArguments,
  type ConversationFlags,
  checkArguments,
  methodOf,
  modelFolder,
  QUESTION_OPTION,
  sessionOptions,
} from './options';
import { styleFor } from './style';
import { streamAnswer, summaryLine, type TurnRecord, turnRecord } from './turn';

type AskFlags = ConversationFlags & InferredOptionTypes<typeof QUESTION_OPTION> & { json: boolean };
type AskArguments = ArgumentsCamelCase<AskFlags>;

export const askCommand: CommandModule<object, AskFlags> = {
  command: 'ask',
  describe: 'Ask questions about images',
  builder: (yargs) =>
    yargs
      .options(QUESTION_OPTION)
      .options(CONVERSATION_OPTIONS)
      .option('json', {
        type: 'boolean',
        default: false,
        group: 'Conversation:',
        describe: 'Print one JSON object at the end',
      })
      .epilogue('A file name - is stdin; --question - asks each of its lines.')
      .check(checkArguments)
      .example('$0 ask --image a.png --question "Where is the A?"', 'One question')
      .example('$0 ask --image a.png b.png --question "Which?" --question "Why?"', 'Two images, two questions in order')
      .example('$0 ask --image a.png --question "What is it?" --method dense', 'Without sparsity')
      .example('curl -s URL | $0 ask --image - --question "What is it?" --json', 'An image from stdin, JSON to stdout'),
  handler: async (args) => {
    await interruptible((signal) => ask(args, signal));
  },
};

/** Asks all questions; output and errors as the command line wants them. */
async function ask(args: AskArguments, signal: AbortSignal): Promise<void> {
  const { method, options } = methodOf(args);
  const { images, questions } = await inputs(args, signal);
  using model = await openModel(args, signal);
  using session = model.session(sessionOptions(args, method));
  const turns = conversation(session, { ...args, question: questions }, images, signal);
  if (!args.json) return await printTurns(turns);
  const records: TurnRecord[] = [];
  for await (const { question, answer } of turns) {
    const words = await answer.text();
    if (answer.stats !== undefined) records.push(turnRecord(question, words, answer.stats));
  }
  const result = { model: modelFolder(args), method: method.name, ...options, turns: records };
  process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
}

/** The turns of a command, each opened when the one before is over: all images belong to the first. */
export async function* conversation(
  session: Session,
  args: ConversationArguments & { readonly question: readonly string[] },
  images: readonly ImageInput[],
  signal: AbortSignal,
): AsyncGenerator<{ question: string; answer: ReturnType<Session['ask']> }> {
  for (const [i, question] of args.question.entries()) {
    yield { question, answer: session.ask(question, { ...askOptions(args), images: i === 0 ? images : [], signal }) };
  }
}

async function printTurns(turns: ReturnType<typeof conversation>): Promise<void> {
  const style = styleFor(process.stdout);
  const write = (words: string): void => {
    process.stdout.write(words);
  };
  for await (const { question, answer } of turns) {
    write(`${style('bold', `> ${question}`)}\n`);
    await streamAnswer(answer, write);
    if (answer.stats !== undefined) write(`${style('dim', summaryLine(answer.stats))}\n\n`);
  }
}

/** Images and questions, `-` read from stdin, and looked at before the model is loaded. */
export async function inputs(
  args: ConversationArguments & { readonly question: readonly string[] },
  signal: AbortSignal,
): Promise<{ images: (string | Buffer)[]; questions: string[] }> {
  const paths = args.image ?? [];
  const dashes = [...paths, ...args.question].filter((value) => value === '-').length;
  if (dashes > 1) {
    throw new SparseVilaError('ERR_OPTION_INVALID', `Expected stdin (-) to be read once, received it ${dashes} times.`);
  }
  const images = await Promise.all(
    paths.map((path) => (path === '-' ? buffer(addAbortSignal(signal, process.stdin)) : path)),
  );
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
  return { images, questions };
}
