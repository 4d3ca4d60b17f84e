// `node dist/scripts/compare.js CHECKPOINT FOLDER`: holds the conversations of FOLDER/conversations.json and compares pixels, positions, what
// every decoder layer receives, logits and greedy tokens with what transformers gave. scripts/fixtures/compare.py writes the folder and calls this.

import { join } from 'node:path';
import { drawn, patchesOf, pixelsOf } from '../spec/support/media';
import { F32_NMSE, largestDifference, nmse, PIXELS_ABSOLUTE } from '../spec/support/nmse';
import { type Expected, readExpected } from '../spec/support/tensors';
import { argmax, joined } from '../spec/support/turn';
import { type Call, type Watched, watch } from '../spec/support/watch';
import { load, type Model } from '../src';
import { readJson } from '../src/json';
import type { MediaInput } from '../src/models/media';
import type { Position } from '../src/ops/rope';
import { start } from '../src/runtime/start';
import { createSession, type Session } from '../src/session/session';

/**
 * On processors with matrix tiles, products with bf16 weights hold activations in two bf16 planes, so that each is rounded to 17 bits: an NMSE
 * of 5e-12 for one product, and up to 1.5e-9 measured for the logits of a few layers with peaked attention. Without tiles the same
 * checkpoints have 1e-12 (SPARSEVILA_ISA=avx512).
 */
const TILES_NMSE = 1e-8;

/**
 * State layers may amplify that rounding: Qwen3.5 with value heads of 5 dimensions (seed 42019), whose gated norm divides by nearly nothing, has
 * 2.5e-8 with tiles and 1.5e-10 without. For models with such layers compare.py measures how far transformers' own result moves if its decoder's
 * input has noise of 1e-11 (`disturbed`: 1.9e-8 there, 4e-10 to 2e-9 in other conversations). With tiles an error may be that many times the error
 * of the visual rows with which the decoder begins, up to this bound.
 */
const DISTURBED_NMSE = 1e-7;

interface Turn {
  readonly question: string;
  readonly images: readonly string[];
  readonly answer: string;
  readonly frames?: readonly string[];
  readonly fps?: number;
}

/** The largest error of each kind, and what is outside its tolerance. */
interface Report {
  readonly largest: Record<'visual rows' | 'layers' | 'logits', number>;
  readonly faults: string[];
  turns: number;
  rows: number;
  /** Errors above the usual tolerance that transformers' own conditioning explains. */
  amplified: number;
}

async function main([checkpoint, folder]: readonly string[]): Promise<void> {
  if (checkpoint === undefined || folder === undefined) throw new Error('Expected a checkpoint and a folder.');
  const expected = readExpected(join(folder, 'expected.safetensors'));
  const report: Report = {
    largest: { 'visual rows': 0, layers: 0, logits: 0 },
    faults: [],
    turns: 0,
    rows: 0,
    amplified: 0,
  };
  using model = await load(checkpoint);
  const conversations = readJson(join(folder, 'conversations.json')) as unknown as Readonly<Record<string, Turn[]>>;
  for (const [name, turns] of Object.entries(conversations)) {
    const watched = watch({ ...model, stopIds: [] }, { hidden: true });
    using session = createSession(watched.model, { kv: 'f32' });
    for (const [turn, facts] of turns.entries())
      await compareTurn({ model, folder, watched, session, expected, report }, facts, `${name}.${turn}`);
  }
  const errors = Object.entries(report.largest).map(([kind, error]) => `${kind} ${error.toExponential(1)}`);
  process.stdout.write(`  ${report.turns} turns, ${report.rows} rows; largest NMSE: ${errors.join(', ')}\n`);
  if (report.amplified > 0)
    process.stdout.write(
      `  ${report.amplified} of them above ${TILES_NMSE}, where transformers' own result moves as far by noise on its input\n`,
    );
  for (const fault of report.faults) process.stdout.write(`  DIFFERS ${fault}\n`);
  if (report.faults.length > 0 || report.turns === 0) process.exitCode = 1;
}

interface Context {
  readonly model: Model;
  readonly folder: string;
  readonly watched: Watched;
  readonly session: Session;
  readonly expected: Expected;
  readonly report: Report;
}

type Differs = (what: string) => void;
/** `at`: index of a layer that receives the rows, or the number of layers for the logits. */
type Measure = (kind: keyof Report['largest'], what: string, error: number, at: number) => void;

async function compareTurn(context: Context, turn: Turn, at: string): Promise<void> {
  const { watched, session, folder, expected, report } = context;
  const within = (name: string): string => join(folder, name);
  const images = turn.images.map(within);
  const videos =
    turn.frames === undefined ? [] : [{ frames: turn.frames.map(within), ...(turn.fps && { fps: turn.fps }) }];
  await comparePixels(
    context,
    [
      ...images.map((image) => ({ kind: 'image', image }) as const),
      ...videos.map((video) => ({ kind: 'video', video }) as const),
    ],
    at,
  );
  watched.clear();
  const greedy = expected.ids(`${at}.greedy`);
  const text = await session.ask(turn.question, { images, videos, maxTokens: greedy.length, temperature: 0 }).text();
  const differs: Differs = (what) => void report.faults.push(`${at}: ${what}`);
  const own = watched.logits.map(argmax);
  if (own.join() !== greedy.join()) differs(`tokens ${own} against ${greedy}`);
  else if (text !== turn.answer) differs(`text ${JSON.stringify(text)} against ${JSON.stringify(turn.answer)}`);
  const last = watched.logits[0] ?? new Float32Array();
  const hasTiles = start().native.isa().includes('amx');
  const moved = hasTiles && expected.has(`${at}.disturbed`) ? expected.f32(`${at}.disturbed`) : undefined;
  let input = moved?.[0] ?? 0;
  const measure: Measure = (kind, what, error, layer) => {
    if (kind === 'visual rows') input = Math.max(input, error);
    report.largest[kind] = Math.max(report.largest[kind], error);
    const tolerance = hasTiles ? TILES_NMSE : F32_NMSE;
    const amplified = moved === undefined ? 0 : ((moved[layer] ?? 0) / (moved[0] ?? 0)) * input;
    const allowed = Math.max(tolerance, Math.min(amplified, DISTURBED_NMSE));
    if (error > tolerance && error <= allowed) report.amplified++;
    if (!(error <= allowed)) differs(`NMSE ${error.toExponential(2)} of ${what}`);
  };
  compareRows(context, at, differs, measure);
  const { layers } = context.model.decoder.config;
  measure('logits', 'the first logits', nmse(last, expected.f32(`${at}.logits`)), layers);
  report.turns++;
  report.rows += expected.ids(`${at}.input_ids`).length;
}

/** Positions and hidden states of the rows of the prompt that this turn ran, which are its last. */
function compareRows({ watched, expected, model }: Context, at: string, differs: Differs, measure: Measure): void {
  const total = expected.ids(`${at}.input_ids`).length;
  const steps = expected.ids(`${at}.greedy`).length - 1;
  const calls = watched.calls.slice(0, watched.calls.length - steps);
  const positions = calls.flatMap((call) => call.positions.map(triple));
  const begin = total - positions.length;
  if (begin !== calls[0]?.length) {
    differs(`${total} rows of a prompt against ${positions.length} after ${calls[0]?.length}`);
    return;
  }
  const flat = expected.ids(`${at}.positions`);
  const axes = flat.length / total;
  const want = positions.map((_, i) => [0, 1, 2].map((axis) => flat[(axes === 1 ? 0 : axis) * total + begin + i]));
  const wrong = positions.findIndex((own, i) => own.join() !== want[i]?.join());
  if (wrong >= 0) differs(`position ${positions[wrong]} of row ${begin + wrong} against ${want[wrong]}`);
  const { hiddenSize: d, layers } = model.decoder.config;
  const visual = new Set(expected.ids(`${at}.visual`));
  const rows = positions.flatMap((_, i) => (visual.has(begin + i) ? [i] : []));
  const visualOf = (x: Float32Array): Float32Array => joined(rows.map((i) => x.subarray(i * d, (i + 1) * d)));
  for (let layer = 0; layer < layers; layer++) {
    const ours = joined(calls.map((call) => leaving(call, layer)));
    const theirs = expected.f32(`${at}.hidden.${layer}`).subarray(begin * d);
    if (layer > 0) measure('layers', `the rows before layer ${layer}`, nmse(ours, theirs), layer);
    else if (rows.length > 0) measure('visual rows', 'the visual rows', nmse(visualOf(ours), visualOf(theirs)), 0);
  }
}

/** What the layer before this one gives, without what deepstack adds to it: transformers records it so. */
function leaving({ hidden, added }: Call, layer: number): Float32Array | undefined {
  const more = layer === 0 ? undefined : added[layer - 1];
  return more === undefined ? hidden[layer] : hidden[layer]?.map((x, i) => x - (more[i] ?? Number.NaN));
}

const triple = (position: Position): readonly number[] =>
  typeof position === 'number' ? [position, position, position] : position;

/** Canvases, or patches where the processor cuts them itself: the same f32 values. */
async function comparePixels(
  { model, expected, report }: Context,
  media: readonly MediaInput[],
  at: string,
): Promise<void> {
  for (const [i, medium] of (await drawn(model, media)).entries()) {
    const name = `${at}.pixel_values.${i}`;
    const own = expected.shape(name).length === 2 ? patchesOf(model, medium) : pixelsOf(model, medium);
    const difference = largestDifference(own, expected.f32(name));
    if (difference <= PIXELS_ABSOLUTE) continue;
    report.faults.push(`${name}: pixels differ by ${difference}; ${own.length} values against ${expected.shape(name)}`);
  }
}

main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`compare: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.exitCode = 1;
});
