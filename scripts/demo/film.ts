// The film of the demo: 48 generated frames, asked about dense and with SparseVILA: answers, what was looked at, and times.

import type { Style } from '../../src/cli/style';
import {
  dense,
  load,
  type Model,
  PACKAGED_FILM_MODEL,
  SPARSE_VILA_PRESETS,
  type SparsityMethod,
  sparseVila,
  type TurnStats,
} from '../../src/index';
import type { SceneConversation } from '../../src/scenes/conversation';
import { sceneFilm } from '../../src/scenes/film';
import { type ConversationTimes, conversationTimes, medianTimes, sideBySide, timeTable } from './table';
import { filmStrip, STRIP_LEGEND, tokenMap } from './token_map';

const FRAMES = 48;
const SIDE = 10;
const SEED = 7;
/** Timed conversations for each method. */
const RUNS = 3;

type Say = (text: string) => void;

export async function demoFilm(say: Say, style: Style): Promise<void> {
  using model = await load(PACKAGED_FILM_MODEL);
  const film = sceneFilm({ seed: SEED, index: 0, frames: FRAMES, turns: 3, things: [1, 3] });
  const frames = film.render();
  const { prefillSparsity, decodeSparsity } = SPARSE_VILA_PRESETS.longVideo;
  const methods = { dense: dense(), SparseVILA: sparseVila(SPARSE_VILA_PRESETS.longVideo) };
  const ratios = `${prefillSparsity * 100} % pruned, ${decodeSparsity * 100} % of the rest skipped by an answer`;
  say(
    `\n${style('bold', 'assets/tiny-nvila-film')} watches a generated film of ${FRAMES} frames (SparseVILA: ${ratios}).\n\n`,
  );
  const runs: Record<string, ConversationTimes[]> = {};
  const looked: Record<string, TurnStats[]> = {};
  for (let run = 0; run < RUNS; run++)
    for (const [name, method] of Object.entries(methods)) {
      const { stats, answers } = await watch(model, method, film, frames);
      runs[name] = [...(runs[name] ?? []), conversationTimes(stats)];
      looked[name] = stats;
      if (run === 0) showAnswers(name, answers, stats, film, say, style);
    }
  showLooked(looked.SparseVILA ?? [], film, say, style);
  const medians = Object.entries(runs).map(([name, times]) => [name, medianTimes(times)]);
  say(`${style('bold', 'Times')} of the three questions about the film, median of ${RUNS}:\n\n`);
  say(`${timeTable(Object.fromEntries(medians)).join('\n')}\n\n`);
  say('The frames and the tower cost the same; the decoder reads a quarter of the visual tokens.\n');
}

/** Asks all questions, each of which sees the film and no earlier question. */
async function watch(
  model: Model,
  method: SparsityMethod,
  { turns }: SceneConversation,
  frames: ReturnType<SceneConversation['render']>,
): Promise<{ stats: TurnStats[]; answers: string[] }> {
  using session = model.session({ method, history: 'forget' });
  const stats: TurnStats[] = [];
  const answers: string[] = [];
  for (const [i, { question }] of turns.entries()) {
    const answer = session.ask(question, i === 0 ? { videos: [{ frames }] } : {});
    answers.push((await answer.text()).trim());
    if (answer.stats !== undefined) stats.push(answer.stats);
  }
  return { stats, answers };
}

function showAnswers(
  name: string,
  answers: readonly string[],
  stats: readonly TurnStats[],
  { turns }: SceneConversation,
  say: Say,
  style: Style,
): void {
  say(`${style('bold', name)}\n`);
  for (const [i, { question, answer }] of turns.entries()) {
    const isRight = answers[i] === answer;
    const mark = isRight ? style('green', '✓') : style('red', `✗ wrong: it is ${answer}`);
    const { visualSeen, visualKept, visualRetrieved } = stats[i]?.tokens ?? {};
    const counts = style(
      'dim',
      `visual tokens: ${visualSeen ?? 0} seen, ${visualKept} kept, ${visualRetrieved} retrieved`,
    );
    say(`  ${question} ${style('bold', answers[i] ?? '')} ${mark}   ${i === 0 ? counts : ''}\n`);
  }
  say('\n');
}

/** For each question, how much each frame was attended, and the tokens of the frame that shows the answer, or was attended most. */
function showLooked(stats: readonly TurnStats[], { turns }: SceneConversation, say: Say, style: Style): void {
  const kept = stats[0]?.media[0]?.kept;
  if (kept === undefined) return;
  const tokens = SIDE * SIDE;
  say(`${style('bold', 'What each answer looked at')}, frame by frame, and in the frame that shows the answer:\n\n`);
  const blocks = stats.map(({ retrieved = [] }, turn) => {
    const counts = new Array<number>(FRAMES).fill(0);
    for (const i of retrieved.flatMap((rows) => Array.from(rows)))
      counts[Math.floor((kept[i] ?? 0) / tokens)] = (counts[Math.floor((kept[i] ?? 0) / tokens)] ?? 0) + 1;
    const answer = turns[turn]?.frame;
    const most = answer ?? counts.indexOf(Math.max(...counts));
    const first = kept.findIndex((token) => token >= most * tokens);
    const own = kept.filter((token) => Math.floor(token / tokens) === most).map((token) => token - most * tokens);
    const within = retrieved.map((rows) => rows.map((i) => i - first).filter((i) => i >= 0 && i < own.length));
    const map = tokenMap({ grid: { rows: SIDE, cols: SIDE }, kept: own, retrieved: within }, style);
    say(`  ${filmStrip(counts)}  ${turns[turn]?.question ?? ''}\n`);
    return [`frame ${most + 1}${answer === undefined ? ', attended most' : ''}`, ...map];
  });
  say(`\n${sideBySide(blocks, 26)}\n\n${style('dim', STRIP_LEGEND)}\n\n`);
}
