// `sparsevila chat`: a conversation at the terminal, or over a pipe, where each line is a question or a command.

import { on } from 'node:events';
import { createInterface } from 'node:readline/promises';
import type { CommandModule } from 'yargs';
import { codeOf } from '../errors';
import { type ChatState, runCommand } from './chat_commands';
import { errorLine } from './error_line';
import { interruptible, STOPPED } from './interrupt';
import { checkImages, openModel } from './open';
import {
  askOptions,
  CONVERSATION_OPTIONS,
  type ConversationFlags,
  checkArguments,
  methodOf,
  sessionOptions,
} from './options';
import { styleFor } from './style';
import { streamAnswer } from './turn';

export const chatCommand: CommandModule<object, ConversationFlags> = {
  command: 'chat',
  describe: 'Talk about images; /help there lists what it can do',
  builder: (yargs) =>
    yargs
      .options(CONVERSATION_OPTIONS)
      .check(checkArguments)
      .example('$0 chat --image a.png', 'Start with an image')
      .example('$0 chat < questions.txt', 'A question on each line; exit code 1 if any of them failed'),
  handler: async (args) => {
    const { method } = methodOf(args);
    await checkImages(args.image ?? []);
    const model = await interruptible((signal) => openModel(args, signal));
    if (model === undefined) return;
    using _model = model;
    using session = model.session(sessionOptions(args, method));
    const state: ChatState = {
      session,
      marks: [],
      images: [...(args.image ?? [])],
      history: args.evict ? 'evict' : 'keep',
      options: askOptions(args),
      isTerminal: process.stdin.isTTY === true && process.stdout.isTTY === true,
      stats: undefined,
      stop: undefined,
      over: false,
    };
    await talk(state);
  },
};

/** Reads lines until the end of input, /quit, or Ctrl-C twice. */
async function talk(state: ChatState): Promise<void> {
  const { isTerminal } = state;
  const style = styleFor(process.stdout);
  const lines = createInterface({
    input: process.stdin,
    ...(isTerminal && { output: process.stdout }),
    terminal: isTerminal,
    prompt: style('bold', '> '),
  });
  let warned = false;
  const interrupt = (): void => {
    if (state.stop !== undefined) state.stop();
    else if (warned || !isTerminal) {
      if (!isTerminal) process.exitCode = STOPPED;
      lines.close();
    } else {
      warned = true;
      process.stderr.write('\nCtrl-C again or Ctrl-D leaves.\n');
      lines.prompt();
    }
  };
  // A terminal's Ctrl-C is a key to readline; a signal comes from elsewhere, or once readline is closed.
  lines.on('SIGINT', interrupt);
  process.on('SIGINT', interrupt);
  const queue = on(lines, 'line', { close: ['close'] });
  try {
    if (isTerminal) process.stdout.write(`${style('dim', '/help lists what can be done here.')}\n`);
    if (isTerminal) lines.prompt();
    for await (const [line] of queue) {
      warned = false;
      await takeLine(state, String(line).trim());
      if (state.over) break;
      if (isTerminal) lines.prompt();
    }
  } finally {
    process.off('SIGINT', interrupt);
    lines.close();
  }
}

/** A command or a question. What goes wrong is said and the conversation goes on; over a pipe the exit code tells as well. */
async function takeLine(state: ChatState, line: string): Promise<void> {
  if (line === '') return;
  try {
    if (!line.startsWith('/')) return await takeQuestion(state, line);
    const said = await runCommand(state, line);
    if (said !== '') process.stdout.write(`${said}\n`);
  } catch (error) {
    process.stderr.write(`${errorLine(error)}\n`);
    if (!state.isTerminal) process.exitCode = 1;
  }
}

/** Asks and streams. Ctrl-C keeps what has been said; before anything has been, or a second time, it takes the turn back. */
async function takeQuestion(state: ChatState, question: string): Promise<void> {
  const { session, images, history, options } = state;
  const undo = new AbortController();
  const leave = new AbortController();
  let said = false;
  state.stop = () => {
    if (!said || leave.signal.aborted) undo.abort();
    leave.abort();
  };
  const write = (text: string): void => {
    said = true;
    process.stdout.write(text);
  };
  const before = session.mark();
  try {
    if (!state.isTerminal) process.stdout.write(`> ${question}\n`);
    const answer = session.ask(question, { ...options, images, history, signal: undo.signal });
    await streamAnswer(answer, write, leave.signal);
    state.marks.push(before);
    state.images = [];
    state.stats = answer.stats;
    if (leave.signal.aborted) process.stderr.write('Stopped; what was said is kept.\n');
  } catch (error) {
    if (error !== undo.signal.reason) {
      // An image that cannot be used must not fail the next question too.
      if (codeOf(error)?.startsWith('ERR_IMAGE_')) state.images = [];
      throw error;
    }
    process.stderr.write('Stopped; the question is taken back.\n');
  } finally {
    state.stop = undefined;
  }
}
