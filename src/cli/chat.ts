// `sparsevila chat`: a conversation at the terminal, or over a pipe, where each line is a question or a command.

import { on } from 'node:events';
import { createInterface, type Interface } from 'node:readline';
import type { ArgumentsCamelCase, CommandModule, InferredOptionTypes } from 'yargs';
import { codeOf } from '../errors';
import { addImages, type ChatState, COMMAND_WORDS, runCommand } from './chat_commands';
import { addToHistory, historyFile, readHistory } from './chat_history';
import { complete, droppedPictures } from './chat_line';
import { errorLine } from './error_line';
import { interruptible, PATIENCE_MS } from './interrupt';
import { methodOf } from './method_options';
import { checkImages, openModel } from './open';
import {
  askOptions,
  CONVERSATION_OPTIONS,
  type ConversationFlags,
  OUTPUT_OPTIONS,
  packagedPath,
  sessionOptions,
} from './options';
import { printNote, styleFor } from './style';
import { streamAnswer } from './turn';
import { signalExit } from './usage';
import { videoOf, videoPaths } from './videos';

const { quiet } = OUTPUT_OPTIONS;
type ChatFlags = ConversationFlags & InferredOptionTypes<{ quiet: typeof quiet }>;

export const chatCommand: CommandModule<object, ChatFlags> = {
  command: 'chat',
  describe: 'Hold a conversation about images; /help lists its commands',
  builder: (yargs) =>
    yargs
      .options(CONVERSATION_OPTIONS)
      .options({ quiet })
      .epilogue('Over a pipe each line is a question or a command, and the exit code is 1 if any of them failed.')
      .example('$0 chat -i assets/demo/scene.png', 'Start with an image')
      .example('echo "Read row 7." | $0 chat -i assets/demo/scene.png', 'A question on each line'),
  handler: chat,
};

/** Runs the conversation. */
export async function chat(args: ArgumentsCamelCase<ChatFlags>): Promise<void> {
  const { method } = methodOf(args);
  const [session, options] = [sessionOptions(args, method), askOptions(args)];
  const images = (args.image ?? []).map(packagedPath);
  await checkImages(images);
  const videos = await Promise.all(videoPaths(args).map((values) => videoOf(values, args)));
  const model = await interruptible((signal) => openModel(args, signal));
  if (model === undefined) return;
  using _model = model;
  using opened = model.session(session);
  await readLines({
    session: opened,
    marks: [],
    images,
    videos,
    history: args.history ?? 'keep',
    options,
    isTerminal: process.stdin.isTTY === true && process.stdout.isTTY === true,
    quiet: args.quiet,
    stats: undefined,
    stop: undefined,
    over: false,
  });
}

/** Reads lines until the end of input, /quit, SIGTERM, or Ctrl-C twice. */
async function readLines(state: ChatState): Promise<void> {
  const { isTerminal } = state;
  const history = isTerminal ? historyFile() : undefined;
  const earlier = history === undefined ? [] : readHistory(history);
  const lines = openLines(state, earlier);
  let warned = false;
  const leave = (signal: NodeJS.Signals): void => {
    process.exitCode = signalExit(signal);
    state.over = true;
    state.stop?.();
    lines.close();
    setTimeout(() => process.exit(), PATIENCE_MS).unref();
  };
  const interrupt = (): void => {
    if (warned || (!isTerminal && state.stop === undefined)) leave('SIGINT');
    else if (state.stop !== undefined) state.stop();
    else {
      printNote('\nCtrl-C again or Ctrl-D leaves.\n');
      lines.prompt();
    }
    warned = isTerminal;
  };
  // On a terminal, Ctrl-C is a key for readline; a signal comes from elsewhere, or after readline was closed.
  lines.on('SIGINT', interrupt);
  process.on('SIGINT', interrupt).on('SIGTERM', leave).on('SIGHUP', leave);
  const queue = on(lines, 'line', { close: ['close'] });
  const typed: string[] = [];
  try {
    if (isTerminal && !state.quiet) printNote('/help lists what can be done here.\n', 'dim');
    if (isTerminal) lines.prompt();
    for await (const [line] of queue) {
      warned = false;
      typed.push(String(line).trim());
      await takeLine(state, String(line).trim());
      if (state.over) break;
      if (isTerminal) lines.prompt();
    }
  } finally {
    process.off('SIGINT', interrupt).off('SIGTERM', leave).off('SIGHUP', leave);
    lines.close();
    if (history !== undefined) addToHistory(history, typed);
  }
}

function openLines({ isTerminal }: ChatState, earlier: readonly string[]): Interface {
  return createInterface({
    input: process.stdin,
    ...(isTerminal && { output: process.stdout, history: [...earlier].reverse(), historySize: 1000 }),
    terminal: isTerminal,
    completer: (line: string) => complete(line, COMMAND_WORDS),
    prompt: styleFor(process.stdout)('bold', '> '),
  });
}

/** Handles a command or a question. Errors are printed and the conversation continues; over a pipe the exit code reports them. */
async function takeLine(state: ChatState, line: string): Promise<void> {
  if (line === '') return;
  try {
    const { question, pictures } = isCommand(line) ? { question: '', pictures: [] } : droppedPictures(line);
    if (pictures.length === 0 && line.startsWith('/')) return say(await runCommand(state, line));
    if (pictures.length > 0) {
      const message = await addImages(state, pictures);
      if (question === '') say(message);
    }
    if (question !== '') await takeQuestion(state, question);
  } catch (error) {
    process.stderr.write(`${errorLine(error)}\n`);
    if (!state.isTerminal) process.exitCode = 1;
  }
}

function isCommand(line: string): boolean {
  return COMMAND_WORDS.includes(line.split(/\s/)[0] ?? '');
}

function say(text: string): void {
  if (text !== '') printNote(`${text}\n`);
}

/** Asks and streams. Ctrl-C keeps the text so far; before the first piece of text it withdraws the question. */
async function takeQuestion(state: ChatState, question: string): Promise<void> {
  const { session, images, videos, history, options } = state;
  const undo = new AbortController();
  const leave = new AbortController();
  let hasText = false;
  state.stop = () => {
    if (!hasText || leave.signal.aborted) undo.abort();
    leave.abort();
  };
  const write = (text: string): void => {
    hasText = true;
    process.stdout.write(text);
  };
  const before = session.mark();
  try {
    if (!state.isTerminal && !state.quiet) printNote(`> ${question}\n`);
    const answer = session.ask(question, { ...options, images, videos, history, signal: undo.signal });
    await streamAnswer(answer, write, leave.signal);
    state.marks.push(before);
    state.images = [];
    state.videos = [];
    state.stats = answer.stats;
    if (leave.signal.aborted) process.stderr.write('Stopped; the text so far is kept.\n');
  } catch (error) {
    if (error !== undo.signal.reason) {
      // Media that cannot be used must not fail the next question too.
      if (/^ERR_(IMAGE|VIDEO)/.test(codeOf(error) ?? '')) [state.images, state.videos] = [[], []];
      throw error;
    }
    process.stderr.write('Stopped; the question is taken back.\n');
  } finally {
    state.stop = undefined;
  }
}
