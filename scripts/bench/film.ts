// `bench film`: a film through tower, prefill and decoding, dense and with SparseVILA, at real shapes with random weights. The decoder answers
// through the session itself; its tower is replaced by random features, and the real one is timed with one frame. What would take longer
// than --seconds is measured in fewer layers and multiplied, or counted only; each row says so.

import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { parseRatios, type Ratios } from '../../src/evaluate/settings';
import { loadModel } from '../../src/models/load';
import type { VisionLanguageModel } from '../../src/models/model';
import { packageFolder } from '../../src/runtime/paths';
import { createSession } from '../../src/session/session';
import { dense } from '../../src/sparsity/dense';
import type { SparsityMethod } from '../../src/sparsity/method';
import { sparseVila } from '../../src/sparsity/sparse_vila';
import { budget } from '../../src/sparsity/top_k';
import { FILM_SHAPES, type FilmShapeName, type FilmTimes, type FilmWork, leastTimes } from './film_counts';
import { type FilmModel, filmModel, frameSeconds } from './film_model';
import { describeMachine, type Machine, measureMachine } from './machine';
import { median } from './timing';

const TOKENS = 256;
const QUESTION = 'Where is the yellow 2 in row 7 and how many orange objects are there in the picture of this frame?';
/** Of the machine's peak that a prefill reaches, to estimate how long a measurement takes. */
const EFFICIENCY = 0.35;
const FEWEST_LAYERS = 2;

interface Options {
  shape: FilmShapeName;
  frames: number;
  context: number[];
  ratios: string;
  answer: number;
  weights: 'bf16' | 'awq';
  precision: 'exact' | 'fast';
  layers?: number | undefined;
  seconds: number;
  rounds: number;
  tower: boolean;
  json: boolean;
}

export const FILM: CommandModule<object, Options> = {
  command: 'film',
  describe: 'Tower, prefill and decoding of a film, dense and with SparseVILA, at real shapes; counted where too long',
  builder: (yargs) =>
    yargs
      .option('shape', {
        choices: Object.keys(FILM_SHAPES) as FilmShapeName[],
        default: 'tiny-0.39b' as FilmShapeName,
        describe: 'Tower and decoder',
      })
      .option('frames', { type: 'number', default: 64, describe: `Frames of ${TOKENS} visual tokens` })
      .option('context', {
        type: 'number',
        array: true,
        default: [2048, 4096, 8192, 32768],
        describe: 'Other numbers of visual tokens, each a row of the table',
      })
      .option('ratios', { type: 'string', default: '0.75/0.9', describe: 'PREFILL/DECODE sparsities' })
      .option('answer', { type: 'number', default: 64, describe: 'Tokens of the answer' })
      .option('weights', {
        choices: ['bf16', 'awq'] as const,
        default: 'awq' as Options['weights'],
        describe: 'Storage',
      })
      .option('precision', {
        choices: ['exact', 'fast'] as const,
        default: 'fast' as Options['precision'],
        describe: 'Of 4-bit products',
      })
      .option('layers', {
        type: 'number',
        describe: 'Decoder layers that are measured; default: as many as fit --seconds',
      })
      .option('seconds', { type: 'number', default: 60, describe: 'A row that takes longer is counted, not measured' })
      .option('rounds', { type: 'number', default: 3, describe: 'Interleaved rounds, of which the median counts' })
      .option('tower', { type: 'boolean', default: true, describe: 'Time the tower too; otherwise it is counted' })
      .option('json', { type: 'boolean', default: false, describe: 'Print the JSON line alone' })
      .example('$0 film --frames 64 --shape tiny-0.39b', 'The headline, and 2k to 32k visual tokens')
      .example('$0 film --shape longvila-7b --context 2048 --seconds 30 --json', 'As JSON'),
  handler: (options) => benchFilm(options),
};

/** A method's seconds by stage, measured in `layers` of the decoder or counted (0 layers). */
interface Row {
  readonly visual: number;
  readonly method: 'dense' | 'sparsevila';
  readonly layers: number;
  readonly measured: FilmTimes | undefined;
  readonly counted: FilmTimes;
}

/** How many times faster than dense: measured, and by count. */
interface Ratio {
  readonly visual: number;
  readonly measured: Record<Stage, number> | undefined;
  readonly counted: Record<Stage, number>;
}

const STAGES = ['prefill', 'decode', 'decoder', 'end to end'] as const;
type Stage = (typeof STAGES)[number];

async function benchFilm(o: Options): Promise<void> {
  const [{ prefillSparsity, decodeSparsity }] = parseRatios(o.ratios) as [Ratios];
  const methods = { dense: dense(), sparsevila: sparseVila({ prefillSparsity, decodeSparsity }) };
  const machine = measureMachine();
  const say = (text: string): void => void (o.json || process.stdout.write(`${text}\n`));
  say(`${describeMachine(machine)}\n`);
  say(`${o.shape}, ${o.weights} (${o.precision}), SparseVILA ${o.ratios}, an answer of ${o.answer} tokens`);
  const towerFrame = o.tower ? await frameSeconds(FILM_SHAPES[o.shape], o.rounds) : undefined;
  const base = await loadModel(join(packageFolder(), 'assets', 'tiny-nvila'));
  const text = base.tokenizer.encode(QUESTION).length + 12;
  const contexts = [...new Set([o.frames * TOKENS, ...o.context])].sort((a, b) => a - b);
  const rows: Row[] = [];
  for (const visual of contexts) {
    const works = worksOf(o, visual, text, prefillSparsity, decodeSparsity);
    const layers = o.layers ?? layersFor(o, works, machine);
    const frame = towerFrame ?? leastTimes(FILM_SHAPES[o.shape], { ...works.dense, frames: 1 }, machine).tower;
    const measured = layers === 0 ? undefined : await measure(o, base, methods, visual, layers, frame);
    for (const method of ['dense', 'sparsevila'] as const) {
      const counted = leastTimes(FILM_SHAPES[o.shape], works[method], machine);
      rows.push({ visual, method, layers, measured: measured?.[method], counted });
    }
    for (const line of describeRows(rows.slice(-2), o)) say(line);
  }
  base.dispose();
  const ratios = contexts.map((visual) => ratioOf(rows.filter((row) => row.visual === visual)));
  const { shape, frames, weights, precision, answer } = o;
  process.stdout.write(
    `${JSON.stringify({ shape, frames, weights, precision, answer, ratios: { prefillSparsity, decodeSparsity }, machine, rows, speedups: ratios })}\n`,
  );
}

function worksOf(
  { frames: _, ...o }: Options,
  visual: number,
  text: number,
  prefill: number,
  decode: number,
): Record<Row['method'], FilmWork> {
  const frames = visual / TOKENS;
  const common = { frames, text, answer: o.answer, weights: o.weights, precision: o.precision };
  const kept = Math.round(frames * budget(TOKENS, prefill));
  return {
    dense: { ...common, kept: visual, attended: visual },
    sparsevila: { ...common, kept, attended: budget(kept, decode) },
  };
}

/** All layers, fewer, or none, by the time that the rounds of both methods are expected to take. */
function layersFor(o: Options, works: Record<Row['method'], FilmWork>, machine: Machine): number {
  const { decoder } = FILM_SHAPES[o.shape];
  const all = [works.dense, works.sparsevila]
    .map((work) => leastTimes(FILM_SHAPES[o.shape], work, machine))
    .reduce((sum, { prefill, decode }) => sum + (o.rounds * (prefill + decode)) / EFFICIENCY, 0);
  const fit = Math.min(decoder[1], Math.floor((decoder[1] * o.seconds) / all));
  return fit < FEWEST_LAYERS ? 0 : fit;
}

/** Medians of interleaved rounds, after a sparse one that warms up. */
async function measure(
  o: Options,
  base: VisionLanguageModel,
  methods: Readonly<Record<Row['method'], SparsityMethod>>,
  visual: number,
  layers: number,
  towerFrame: number,
): Promise<Record<Row['method'], FilmTimes>> {
  const film = await filmModel(base, FILM_SHAPES[o.shape], { ...o, visual, layers, tokens: TOKENS });
  const taken: Record<Row['method'], FilmTimes[]> = { dense: [], sparsevila: [] };
  try {
    const tower = (towerFrame * visual) / TOKENS;
    await askOnce(film, methods.sparsevila, o, layers);
    for (let round = 0; round < o.rounds; round++)
      for (const name of ['dense', 'sparsevila'] as const)
        taken[name].push({ tower, ...(await askOnce(film, methods[name], o, layers)) });
  } finally {
    film.dispose();
  }
  const of = (times: readonly FilmTimes[], stage: keyof FilmTimes): number => median(times.map((one) => one[stage]));
  const medians = (times: readonly FilmTimes[]): FilmTimes => ({
    tower: of(times, 'tower'),
    prefill: of(times, 'prefill'),
    decode: of(times, 'decode'),
  });
  return { dense: medians(taken.dense), sparsevila: medians(taken.sparsevila) };
}

/**
 * Seconds of one question about the film. Prefill: the selections, the projector and the decoder's first pass. The part of the decoder is
 * multiplied where only some of its layers were measured; the head, timed by itself, is not.
 */
async function askOnce(
  film: FilmModel,
  method: SparsityMethod,
  o: Options,
  layers: number,
): Promise<Omit<FilmTimes, 'tower'>> {
  using session = createSession(film.model, { method, contextLength: film.contextLength });
  const image = { data: new Uint8Array(3), width: 1, height: 1, channels: 3 } as const;
  const answer = session.ask(QUESTION, { images: [image], maxTokens: o.answer, temperature: 0, logitBias: { 5: 100 } });
  await answer.text();
  const ms = answer.stats?.ms;
  if (ms === undefined || answer.stats?.tokens.generated !== o.answer)
    throw new Error(`Expected an answer of ${o.answer} tokens, received ${answer.stats?.tokens.generated}.`);
  const times = FILM_SHAPES[o.shape].decoder[1] / layers;
  const head = film.headMs();
  const step = (ms.perToken - head) * times + head;
  return { prefill: (ms.project + (ms.prefill + ms.retrieve) * times) / 1000, decode: (step * o.answer) / 1000 };
}

function ratioOf([plain, sparse]: readonly Row[]): Ratio {
  if (plain === undefined || sparse === undefined) throw new Error('Expected two rows for each number of tokens.');
  const of = (a: FilmTimes, b: FilmTimes): Record<Stage, number> => ({
    prefill: a.prefill / b.prefill,
    decode: a.decode / b.decode,
    decoder: (a.prefill + a.decode) / (b.prefill + b.decode),
    'end to end': (a.tower + a.prefill + a.decode) / (b.tower + b.prefill + b.decode),
  });
  const measured = plain.measured && sparse.measured && of(plain.measured, sparse.measured);
  return { visual: plain.visual, measured, counted: of(plain.counted, sparse.counted) };
}

function describeRows(rows: readonly Row[], { shape }: Options): string[] {
  const { visual, measured, counted } = ratioOf(rows);
  const [{ layers = 0 } = {}] = rows;
  const all = FILM_SHAPES[shape].decoder[1];
  const how = layers === 0 ? 'counted only' : layers === all ? 'measured' : `measured in ${layers} of ${all} layers`;
  const seconds = ({ tower, prefill, decode }: FilmTimes): string =>
    [tower, prefill, decode].map((value) => value.toFixed(value < 10 ? 2 : 1).padStart(9)).join('');
  const faster = (of: Record<Stage, number>): string =>
    STAGES.map((stage) => `${stage} ${of[stage].toFixed(2)}x`).join(', ');
  const lines = rows.flatMap(({ method, measured: own, counted: least }) => [
    ...(own === undefined ? [] : [`  ${method.padEnd(12)}measured${seconds(own)}`]),
    `  ${method.padEnd(12)}counted ${seconds(least)}`,
  ]);
  return [
    `\n${visual} visual tokens, ${how}; seconds of tower, prefill, decode:`,
    ...lines,
    ...(measured === undefined ? [] : [`  faster, measured: ${faster(measured)}`]),
    `  faster, counted:  ${faster(counted)}`,
  ];
}
