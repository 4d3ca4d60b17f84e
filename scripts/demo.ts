// `npm run demo`: the packaged model answers three questions about the packaged picture, dense and with SparseVILA, and
// shows the visual tokens that each question used and the time of each stage; then the packaged film model does so with a film of 48 frames.
// Exit code 0 if it ran, for any answers.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { errorLine } from '../src/cli/error_line';
import { type Style, styleFor } from '../src/cli/style';
import { streamAnswer } from '../src/cli/turn';
import {
  dense,
  load,
  type Model,
  SPARSE_VILA_PRESETS,
  type SparsityMethod,
  sparseVila,
  type TurnStats,
} from '../src/index';
import { packageFolder } from '../src/runtime/paths';
import { demoFilm } from './demo/film';
import { type ConversationTimes, conversationTimes, medianTimes, sideBySide, timeTable } from './demo/table';
import { LEGEND, tokenMap } from './demo/token_map';

const ROOT = packageFolder();
const PICTURE = 'assets/demo/scene.png';
const MODEL = 'assets/tiny-nvila';
/** Timed conversations for each method. */
const RUNS = 5;

interface DemoTurn {
  readonly question: string;
  readonly truth: string;
}

const say = (text: string): void => {
  process.stdout.write(text);
};

async function demo(): Promise<void> {
  const style = styleFor(process.stdout);
  const turns = JSON.parse(readFileSync(join(ROOT, 'assets/demo/turns.json'), 'utf8')) as DemoTurn[];
  using model = await load(join(ROOT, MODEL));
  const { prefillSparsity, decodeSparsity } = SPARSE_VILA_PRESETS.image;
  const methods = { dense: dense(), SparseVILA: sparseVila(SPARSE_VILA_PRESETS.image) };
  // The first conversation of a process includes one-time costs.
  for (const method of Object.values(methods)) await converse(model, method, turns);

  say(
    `${style('bold', MODEL)} looks at ${style('bold', PICTURE)}: a 10 × 10 grid with colored letters, digits and shapes.\n`,
  );
  say(`It was trained on such pictures alone, so that right and wrong can be told.\n\n`);
  say(`${style('bold', 'Dense')}: every visual token is attended.\n`);
  await show(model, methods.dense, turns, style);
  say(
    `${style('bold', 'SparseVILA')}: ${percent(prefillSparsity)} of the visual tokens are dropped before the decoder, once, `,
  );
  say(
    `whatever will be asked;\nof the kept ones each layer of an answer attends the ${percent(1 - decodeSparsity)} that matter most to its question.\n`,
  );
  const sparse = await show(model, methods.SparseVILA, turns, style);
  showTokens(sparse, turns, style);
  await showTimes(model, methods, turns, style);
  await demoFilm(say, style);
}

/** Asks all questions in one conversation, silently. */
async function converse(model: Model, method: SparsityMethod, turns: readonly DemoTurn[]): Promise<TurnStats[]> {
  return await conversation(model, method, turns, async (_, answer) => {
    await answer.text();
  });
}

/** Asks all questions in one conversation, and prints for each answer whether it is right. */
async function show(
  model: Model,
  method: SparsityMethod,
  turns: readonly DemoTurn[],
  style: Style,
): Promise<TurnStats[]> {
  const stats = await conversation(model, method, turns, async ({ question, truth }, answer) => {
    let words = '';
    say(`  ${question} `);
    await streamAnswer(answer, (piece) => {
      words += piece;
      if (piece !== '\n') say(style('bold', piece));
    });
    const isRight = words.trim() === truth;
    say(isRight ? ` ${style('green', '✓')}` : ` ${style('red', `✗ wrong: it is ${truth}`)}`);
    const { visualSeen, visualKept, visualRetrieved } = answer.stats?.tokens ?? {};
    say(style('dim', `   visual tokens: ${visualSeen} seen, ${visualKept} kept, ${visualRetrieved} retrieved\n`));
  });
  say('\n');
  return stats;
}

async function conversation(
  model: Model,
  method: SparsityMethod,
  turns: readonly DemoTurn[],
  ask: (turn: DemoTurn, answer: ReturnType<ReturnType<Model['session']>['ask']>) => Promise<void>,
): Promise<TurnStats[]> {
  using session = model.session({ method });
  const stats: TurnStats[] = [];
  for (const [i, turn] of turns.entries()) {
    const answer = session.ask(turn.question, { images: i === 0 ? [join(ROOT, PICTURE)] : [] });
    await ask(turn, answer);
    if (answer.stats !== undefined) stats.push(answer.stats);
  }
  return stats;
}

/** For each question, a map of the tokens that it used. */
function showTokens(stats: readonly TurnStats[], turns: readonly DemoTurn[], style: Style): void {
  const image = stats[0]?.media[0];
  const grid = image?.layout.grids[0];
  if (image === undefined || grid === undefined) return;
  say(`${style('bold', 'The visual tokens')}, as they lie in the picture:\n\n`);
  const maps = stats.map(({ retrieved = [] }, i) => [
    turns[i]?.question ?? '',
    ...tokenMap({ grid: { rows: grid.h, cols: grid.w }, kept: image.kept, retrieved }, style),
  ]);
  say(`${sideBySide(maps, 26)}\n\n${style('dim', LEGEND)}\n\n`);
}

/** Times of both methods, interleaved so that a slower moment of the machine affects both. */
async function showTimes(
  model: Model,
  methods: Readonly<Record<string, SparsityMethod>>,
  turns: readonly DemoTurn[],
  style: Style,
): Promise<void> {
  const runs: Record<string, ConversationTimes[]> = {};
  for (let run = 0; run < RUNS; run++) {
    for (const [name, method] of Object.entries(methods)) {
      runs[name] ??= [];
      runs[name].push(conversationTimes(await converse(model, method, turns)));
    }
  }
  const medians = Object.entries(runs).map(([name, times]) => [name, medianTimes(times)]);
  say(`${style('bold', 'Times')} of the whole conversation, median of ${RUNS}:\n\n`);
  say(`${timeTable(Object.fromEntries(medians)).join('\n')}\n\n`);
  say(
    'With 100 visual tokens and a model this small there is next to nothing to save: the table shows what the stages\n',
  );
  say('cost, not what sparsity gains. A film has more to save:\n');
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

demo().catch((error: unknown) => {
  process.stderr.write(`${errorLine(error)}\n`);
  process.exitCode = 1;
});
