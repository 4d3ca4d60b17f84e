// `sparsevila run MODEL "question" a.png…`: one question by positional arguments, as other engines' command lines have it.

import type { ArgumentsCamelCase, CommandModule, InferredOptionTypes } from 'yargs';
import { SparseVilaError } from '../errors';
import { ask, type OutputFlags } from './ask';
import { chat } from './chat';
import { interruptible } from './interrupt';
import { CONVERSATION_OPTIONS, type ConversationFlags, FILES_EPILOGUE, OUTPUT_OPTIONS } from './options';

const QUESTION = {
  question: { type: 'string', alias: 'q', group: 'Conversation:', describe: 'The question; - is stdin' },
} as const;

type RunFlags = ConversationFlags & OutputFlags & InferredOptionTypes<typeof QUESTION>;

export const runCommand: CommandModule<object, RunFlags> = {
  command: 'run',
  describe:
    'Ask one question about images; without a question, chat about them. Model, question and images may be given without option names',
  builder: (yargs) =>
    yargs
      .options(QUESTION)
      .options(CONVERSATION_OPTIONS)
      .options(OUTPUT_OPTIONS)
      .epilogue(FILES_EPILOGUE)
      .example('$0 run assets/tiny-nvila "Where is the yellow 2?" assets/demo/scene.png', 'One question')
      .example('$0 run assets/tiny-nvila "Read row 7." assets/demo/scene.png --quiet', 'The answer alone'),
  handler: async ({ question, ...rest }) => {
    const args: ArgumentsCamelCase<ConversationFlags & OutputFlags> = rest;
    if (question === undefined) {
      if (args.format !== undefined)
        throw new SparseVilaError('ERR_OPTION_INVALID', 'Expected a question with --format, received none.');
      return await chat(args);
    }
    await interruptible((signal) => ask({ ...args, question: [question] }, signal));
  },
};
