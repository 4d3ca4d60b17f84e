// The slash commands of `sparsevila chat`. Knows the conversation's state, not the terminal.

import { checkImage } from '../image/source';
import type { VideoInput } from '../models/media';
import type { Mark } from '../session/conversation';
import type { AskOptions, Session, TurnStats } from '../session/session';
import { splitWords } from './chat_line';
import { packagedPath } from './options';
import { columns, notes } from './style';
import { summaryLines } from './turn';
import { didYouMean } from './usage';
import { videoOf } from './videos';

/** The state of a chat. */
export interface ChatState {
  readonly session: Session;
  /** A mark of the start of each turn. */
  readonly marks: Mark[];
  /** Images that the next question adds. */
  images: string[];
  /** Videos that the next question adds. */
  videos: VideoInput[];
  history: 'keep' | 'forget';
  /** The statistics of the last complete answer. */
  stats: TurnStats | undefined;
  /** Options of each question: sampling, limits. */
  readonly options: AskOptions;
  readonly isTerminal: boolean;
  /** Whether only answers and errors are printed. */
  readonly quiet: boolean;
  /** Stops the running answer. */
  stop: (() => void) | undefined;
  over: boolean;
}

interface ChatCommand {
  readonly usage: string;
  readonly describe: string;
  /** Returns the text to print. */
  run(state: ChatState, words: readonly string[]): string | Promise<string>;
}

const COMMANDS: Readonly<Record<string, ChatCommand>> = {
  image: {
    usage: '/image PATH…',
    describe: 'Add images to the next question; a picture dropped on the terminal does too',
    run: (state, paths) => addImages(state, paths.map(packagedPath)),
  },
  video: {
    usage: '/video FILE',
    describe: 'Add a video file (or the frames of a video) to the next question',
    run: addVideo,
  },
  history: {
    usage: '/history keep|forget',
    describe: "Keep each turn's text, or forget it and keep its images",
    run: setHistory,
  },
  rewind: { usage: '/rewind', describe: 'Forget the last turn', run: forgetTurn },
  stats: { usage: '/stats', describe: 'Tokens and times of the last answer', run: showStats },
  help: { usage: '/help', describe: 'This list', run: help },
  quit: {
    usage: '/quit',
    describe: 'Leave (also Ctrl-D)',
    run: (state) => {
      state.over = true;
      return '';
    },
  },
};

/** `/image`, `/history`, … */
export const COMMAND_WORDS: readonly string[] = Object.keys(COMMANDS).map((name) => `/${name}`);

/**
 * Runs a line such as `/image a.png "my photo.jpg"` and returns the text to print.
 * @throws Error for an unknown command or invalid arguments; SparseVilaError for images that cannot be read
 */
export async function runCommand(state: ChatState, line: string): Promise<string> {
  const [name = '', ...words] = splitWords(line.slice(1));
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command !== undefined) return command.run(state, words);
  const hint = didYouMean(name, Object.keys(COMMANDS), '/');
  throw new Error(`Expected a command, received ${JSON.stringify(`/${name}`)}.${hint} /help lists them.`);
}

/**
 * Adds images to the next question and returns a message that lists them.
 * @throws SparseVilaError for images that cannot be read
 */
export async function addImages(state: ChatState, paths: readonly string[]): Promise<string> {
  if (paths.length === 0) throw new Error('Expected a path: /image PATH…');
  for (const path of paths) await checkImage(path);
  state.images.push(...paths);
  return `The next question is about ${state.images.join(', ')}.`;
}

async function addVideo(state: ChatState, paths: readonly string[]): Promise<string> {
  if (paths.length === 0) throw new Error('Expected a path: /video FILE');
  state.videos.push(await videoOf(paths.map(packagedPath), { quiet: state.quiet }));
  return `The next question is about the video ${paths.join(', ')}.`;
}

function setHistory(state: ChatState, [choice]: readonly string[]): string {
  if (choice !== 'keep' && choice !== 'forget') throw new Error('Expected keep or forget: /history keep|forget');
  state.history = choice;
  return choice === 'forget'
    ? "From now on each turn's text is forgotten; images stay."
    : 'From now on turns are kept.';
}

function forgetTurn(state: ChatState): string {
  const mark = state.marks.pop();
  if (mark === undefined) return 'There is no turn to forget.';
  state.session.rewind(mark);
  return `The last turn is forgotten; ${state.marks.length} left.`;
}

function showStats({ session, stats, marks }: ChatState): string {
  const rows = `Turns: ${marks.length}, rows in the KV cache: ${session.length}`;
  return stats === undefined ? rows : `${summaryLines(stats, columns(notes()))}\n${rows}`;
}

function help(): string {
  const rows = Object.values(COMMANDS).map(({ usage, describe }) => `  ${usage.padEnd(20)} ${describe}`);
  return [
    ...rows,
    '  Anything else is a question; pictures dropped on the terminal go with it.',
    '  Ctrl-C stops an answer; a second one leaves. Tab completes commands and files.',
  ].join('\n');
}
