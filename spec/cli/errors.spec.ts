// Every wrong command line ends with one line on stderr that points to the command's help, nothing on stdout, and exit code 2;
// other failures end with exit code 1.
import { brokenImage, cli, picture } from './run';

const QUESTION = ['--question', 'Read row 7.'];
const SCENE = ['--image', picture(20)];

const CASES: readonly (readonly [name: string, args: readonly string[], message: RegExp])[] = [
  ['no command', [], /Expected a command, received none\. See `sparsevila --help`/],
  ['unknown command', ['aks'], /Unknown command "aks"\. Did you mean ask\? See `sparsevila --help`/],
  [
    'unknown option',
    ['ask', ...QUESTION, '--decode-sparcity', '0.5'],
    /--decode-sparcity\. Did you mean --decode-sparsity\? See `sparsevila ask --help`/,
  ],
  [
    'the beginning of an option',
    ['explain', ...QUESTION, '--tempera', '1'],
    /--tempera\. Did you mean --temperature\? See `sparsevila explain --help`/,
  ],
  ['an unknown short option', ['ask', ...QUESTION, '-z'], /Unknown option -z\. See/],
  ['a flag with a value', ['ask', ...QUESTION, '--json=maybe'], /Expected --json or --no-json without a value/],
  ['no question', ['ask', ...SCENE], /Missing required argument: question\. See/],
  ['empty question', ['ask', ...QUESTION, '--question', ''], /Expected at least one character for --question/],
  ['empty positional question', ['run', 'assets/tiny-nvila', ' '], /ERR_QUESTION: Expected a question of at least one/],
  ['no question on stdin', ['ask', '--question', '-'], /ERR_QUESTION: Expected a question of at least one/],
  [
    'question without quotation marks',
    ['ask', '--question', 'Read', 'row'],
    /Unexpected argument "row": .*quotation marks/,
  ],
  ['missing image', ['ask', ...QUESTION, '--image', 'nope.png'], /ERR_IMAGE_NOT_FOUND: .*"nope\.png".*check the path/],
  ['an option of a video without one', ['ask', ...QUESTION, '--max-frames', '3'], /Expected --max-frames with --video/],
  [
    'a wrong option of a video',
    ['ask', ...QUESTION, '--video', 'assets/demo/film.webp', '--max-frames', '1.5'],
    /Expected an integer of at least 1 for --max-frames, received 1\.5/,
  ],
  ['a schema that is no file', ['ask', ...QUESTION, '--format', 'nope.json'], /ERR_CONFIG_MISSING: nope\.json/],
  ['a format without a question', ['run', 'assets/tiny-nvila', '--format', 'json'], /ERR_OPTION_INVALID: .*--format/],
  ['no image', ['ask', ...QUESTION, '--image', brokenImage('garbage.bin')], /ERR_IMAGE_UNSUPPORTED: .*garbage\.bin/],
  ['empty stdin', ['ask', ...QUESTION, '--image', '-'], /ERR_IMAGE_EMPTY: /],
  ['stdin twice', ['ask', '--question', '-', '--image', '-'], /ERR_OPTION_INVALID: Expected stdin \(-\) .* once/],
  ['missing model', ['ask', ...QUESTION, '--model', 'nope'], /ERR_MODEL_MISSING: Expected a checkpoint folder .*nope/],
  [
    'a ratio of one',
    ['ask', ...QUESTION, '--prefill-sparsity', '1'],
    /ERR_OPTION_INVALID: Expected a share .* for --prefill-sparsity, received 1/,
  ],
  [
    'a negative ratio',
    ['ask', ...QUESTION, '--decode-sparsity', '-0.1'],
    /ERR_OPTION_INVALID: .* for --decode-sparsity, received -0\.1/,
  ],
  [
    'a ratio that is no number',
    ['ask', ...QUESTION, '--prefill-sparsity', 'x'],
    /ERR_OPTION_INVALID: Expected a share .* for --prefill-sp/,
  ],
  [
    'a ratio with dense',
    ['ask', ...QUESTION, '--method', 'dense', '--decode-sparsity', '0.5'],
    /ERR_OPTION_INVALID: Expected no --decode-sparsity with --method dense/,
  ],
  [
    'a decode ratio with a method that only prunes',
    ['ask', ...QUESTION, '--method', 'divprune', '--decode-sparsity', '0.5'],
    /ERR_OPTION_INVALID: Expected no --decode-sparsity with --method divprune/,
  ],
  [
    'positions with a method that drops between layers',
    ['chat', '--method', 'fastv', '--positions', 'compact'],
    /ERR_OPTION_INVALID: Expected no --positions with --method fastv/,
  ],
  ['unknown method', ['chat', '--method', 'magic'], /Expected one of dense, .* for --method, received "magic"\. See/],
  ['an option twice', ['ask', ...QUESTION, '--seed', '1', '--seed', '2'], /Expected --seed once/],
  ['an option without value', ['ask', ...QUESTION, '--seed'], /Expected a value after --seed, received none/],
  ['chat with a missing image', ['chat', '--image', 'nope.png'], /ERR_IMAGE_NOT_FOUND/],
];

describe('a wrong command line', () => {
  test.each(CASES)('%s', async (_name, args, message) => {
    const { code, stdout, stderr } = await cli(args);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^sparsevila: [^\n]+\n$/);
    // A missing file is a failure; all other cases here are wrong command lines.
    const isFailure = /ERR_(IMAGE|MODEL|CONFIG)_/.test(stderr);
    expect([code, stdout]).toEqual([isFailure ? 1 : 2, '']);
    expect(/See `sparsevila [^`]*--help`\.\n$/.test(stderr)).toBe(!isFailure);
  });
});

describe('an error after the model is loaded', () => {
  test.each([
    ['corrupt image', [...SCENE, brokenImage('truncated.png')], /ERR_IMAGE_CORRUPT: .*truncated\.png/],
    ['top-k without temperature', ['--top-k', '3'], /ERR_OPTION_INVALID: .*temperature/],
    ['too small a context', [...SCENE, '--context-length', '20'], /ERR_CONTEXT_OVERFLOW: .*has 20/],
  ] as const)('%s', async (_name, args, message) => {
    const { code, stdout, stderr } = await cli(['ask', ...args, ...QUESTION, '--json']);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^sparsevila: [^\n]+\n$/);
    expect([code, stdout]).toEqual([/OPTION/.test(stderr) ? 2 : 1, '']);
  });

  test('--debug shows the stack', async () => {
    const { code, stderr } = await cli(['ask', ...QUESTION, '--model', 'nope', '--debug']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^sparsevila: .*\n {4}at /);
  });
});

test.each(['ask', 'chat'])('%s --help has examples and the shared options', async (command) => {
  const { code, stdout, stderr } = await cli([command, '--help']);
  expect([code, stderr]).toEqual([0, '']);
  expect(stdout).toMatch(new RegExp(`Examples:\\n  # .*\\n  sparsevila ${command} `));
  for (const option of ['--prefill-sparsity', '--seed', '--history', '--context-length'])
    expect(stdout).toContain(option);
});

test.each(['serve', 'batch', 'worker', 'evaluate', 'tune'])(
  'the help of %s names no option of other commands',
  async (command) => {
    const { stdout } = await cli([command, '--help']);
    expect([/--model/.test(stdout), /--video/.test(stdout)]).toEqual([true, false]);
  },
);

test.each<[string[], RegExp]>([
  [['serve', '-m', 'nope', '--host', '203.0.113.1', '--port', '0'], /ERR_LISTEN/],
  [['worker'], /neither/],
  [['worker', '--redis', 'http://x'], /redis:/],
  [['batch', 'assets/demo/jobs.jsonl', __filename], /ERR_OUTPUT_EXISTS/],
])('%j is refused before a model is loaded', async (args, message) => {
  const { code, stderr } = await cli(args);
  expect(code).not.toBe(0);
  expect(stderr).toMatch(message);
  // No progress of loading comes before it.
  expect(stderr).toMatch(/^sparsevila: [^\n]+\n$/);
});
