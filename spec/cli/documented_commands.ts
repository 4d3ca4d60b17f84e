// Reads the command lines that README.md, CONTRIBUTING.md, docs/ and the examples of every `--help` show, and determines how
// the spec beside this file runs each: unchanged, unless a row below shortens it or gives a reason not to run it.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cli, ROOT } from './run';

export interface Documented {
  readonly source: string;
  readonly command: string;
}

/** First words of command lines; other lines of a block are not commands. */
const LAUNCHER = /^(?:[A-Z_]+=\S+ )*(?:npx|npm|pnpm|yarn|bun|node|echo|curl|sparsevila|scripts\/\S+\.sh)(?: |$)/;
/** A command of the CLI that running text names without its launcher: `evaluate --equal time`. */
const FRAGMENT =
  /^(?:run|ask|chat|explain|serve|evaluate|tune|inspect|download|list|remove|quantize|convert|setup|doctor) -/;

/** The command lines of a Markdown file: in blocks without a language or in a shell's, and as code in its text. */
export function commandsOf(markdown: string): string[] {
  const blocks = [...markdown.matchAll(/^```(?:sh|bash|console)?\n([\s\S]*?)^```/gm)].map(([, block = '']) => block);
  const text = markdown.replace(/^```[\s\S]*?^```/gm, '');
  const lines = blocks.flatMap((block) => block.replace(/\\\n\s*/g, ' ').split('\n'));
  const inline = [...text.matchAll(/(?<!`)`([^`\n]+)`(?!`)/g)].map(([, code = '']) => code);
  return [
    ...lines
      .map((line) =>
        line
          .replace(/\s+#.*$/, '')
          .replace(/^\$ /, '')
          .trim(),
      )
      .filter((line) => LAUNCHER.test(line)),
    ...inline.filter((code) => LAUNCHER.test(code) && code.includes(' ')),
    ...inline.filter((code) => FRAGMENT.test(code)).map((code) => `sparsevila ${code} …`),
  ];
}

/** The examples of a command's help. */
export function examplesOf(help: string): string[] {
  const [, examples = ''] = help.split('\nExamples:\n');
  return examples
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
}

export function fromMarkdown(): Documented[] {
  const docs = readdirSync(join(ROOT, 'docs')).filter((name) => name.endsWith('.md'));
  return ['README.md', 'CONTRIBUTING.md', ...docs.map((name) => `docs/${name}`)].flatMap((source) =>
    commandsOf(readFileSync(join(ROOT, source), 'utf8')).map((command) => ({ source, command })),
  );
}

/** The examples of the top-level help and of every command that it lists. */
export async function fromHelp(): Promise<Documented[]> {
  const top = (await cli(['--help'])).stdout;
  const names = [...top.matchAll(/^ {2}sparsevila (\w+) /gm)].map(([, name = '']) => name);
  const helps = await Promise.all(names.map(async (name) => (await cli([name, '--help'])).stdout));
  return [top, ...helps].flatMap((help, i) =>
    examplesOf(help).map((command) => ({ source: `sparsevila ${names[i - 1] ?? ''} --help`, command })),
  );
}

/** Arguments that are appended to shorten a command, and why. */
const SMALLER: readonly (readonly [pattern: RegExp, added: string, why: string])[] = [
  [/ evaluate\b.*--data\b/, '', 'a data set of one conversation is small as it is'],
  [/ evaluate\b.*--scenes/, '', 'the number of scenes is set to 1 below'],
  [/ evaluate\b/, '--scenes 1', 'a hundred scenes take minutes'],
  [/ tune\b.*--(?:data|scenes)\b/, '', 'the number of scenes is set to 1 below'],
  [/ tune\b/, '--scenes 1', 'a hundred scenes take minutes'],
  [/ quantize\b.*--samples/, '--rows 32', 'a search over 4,096 rows takes a minute'],
  [/ quantize\b/, '--samples 1 --rows 32', 'a search over 128 conversations takes a minute'],
];

/** Only checked: the options are read and validated as for a run, then help is printed. */
const CHECKED: readonly (readonly [pattern: RegExp, why: string])[] = [
  [/…/, 'it stands for arguments of the reader'],
  [/\bDIR\d?\b|\bFOLDER\b/, 'it stands for a folder of the reader'],
  [/\bowner\/name\b|\bEfficient-Large-Model\//, 'a model of the Hub, which needs the network'],
  [/ --(?:redis|postgres) /, 'a queue on a server of the reader'],
  [/ serve\b/, 'it runs until it is stopped; spec/server starts it'],
  [/ bench\b/, 'a benchmark measures for minutes; its part and its options are looked up in its help'],
  [/ cache --clear/, "removes what the reader's models load from"],
  [/ setup --gpu/, 'compiles the GPU library for minutes, and fetches the CUDA compiler'],
  [/^SPARSEVILA_LIBTENSORFLOW=/, "names a libtensorflow of the reader's"],
];

/** Neither run nor checked. */
const ELSEWHERE: readonly (readonly [pattern: RegExp, why: string])[] = [
  [
    /^(?:npm (?:install|ci|i|pack|publish)|pnpm|yarn|bun)\b/,
    'scripts/pack-check installs the packed package in empty folders',
  ],
  [
    /^(?:[A-Z_]+=\S+ )*npm (?:test|run (?:lint|format|build|pack-check|sanitize))\b/,
    'what runs this spec, and steps of CI',
  ],
  [
    /^scripts\/|^SUDO=|^node dist\/scripts\/gpu\//,
    'scripts for a machine with a GPU (docs/gpu.md); spec/runtime looks at them',
  ],
];

export type Plan =
  | { readonly kind: 'run' | 'check'; readonly command: string }
  | { readonly kind: 'elsewhere'; readonly why: string };

/** How a documented command is executed. A command that is in no table runs unchanged. */
export function planOf(command: string): Plan {
  const elsewhere = ELSEWHERE.find(([pattern]) => pattern.test(command));
  if (elsewhere !== undefined) return { kind: 'elsewhere', why: elsewhere[1] };
  if (CHECKED.some(([pattern]) => pattern.test(command)))
    return { kind: 'check', command: `${command.replace(/ ?…/g, '')} --help` };
  const smaller = command
    .replace(/--scenes \d+/, '--scenes 1')
    .replace(/--turns \d+/, '--turns 1')
    .replace(/--samples \d+/, '--samples 1')
    .replace(/(--equal \w+=[^\s,]+),\S+/, '$1'); // each share is an evaluation of its own
  const added = SMALLER.find(([pattern]) => pattern.test(command))?.[1] ?? '';
  const [head = '', ...redirected] = smaller.split(/(?= > )/);
  return { kind: 'run', command: `${head} ${added}${redirected.join('')}`.trim() };
}
