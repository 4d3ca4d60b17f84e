// The calibration set: conversations about pictures, which the model's adapter and the session's layout turn into the rows and
// positions that enter the decoder, so that visual tokens count. Does not know quantization.

import { dirname, resolve } from 'node:path';
import { codeOf, messageOf, SparseVilaError } from '../errors';
import { type JsonLine, readJsonLines } from '../json';
import { kvCache } from '../models/kv_cache';
import { loadModel, loadRowModel } from '../models/load';
import type { MediaInput, PreparedMedium } from '../models/media';
import type { RowModel, VisionLanguageModel } from '../models/model';
import { pacer } from '../models/pacer';
import { endOfAnswer, transcript } from '../models/transcript';
import type { Position } from '../ops/rope';
import { floats, joinNumbers } from '../ops/run';
import type { OnProgress } from '../runtime/progress';
import { blockEnds, blocksOf } from '../session/blocks';
import { append, startConversation } from '../session/conversation';
import { addOpening, type DecoderRows, type DecoderRowsContext, rowBuilder, textRows } from '../session/decoder_rows';
import type { MediaContext } from '../session/encoded_media';
import { prepareMedia } from '../session/media';
import { type TurnPrompt, turnPrompt } from '../session/prompt';
import { createSession } from '../session/session';
import { sightOf } from '../session/sight';
import { turnsWith } from '../session/turn';
import { dense } from '../sparsity/dense';

export interface CalibrationTurn {
  readonly question: string;
  /** The model's answer; if absent, the model generates it. */
  readonly answer: string | undefined;
  /** The true answer, where known: for reports. */
  readonly truth: string | undefined;
}

export interface CalibrationSample {
  readonly images: readonly string[];
  readonly turns: readonly CalibrationTurn[];
}

/** The input of the decoder's first layer for one conversation. */
export interface Sequence {
  /** f32 [t, d] */
  x: Float32Array;
  readonly positions: readonly Position[];
  /** Number of rows, from the first on, that each row attends if there are no windows; absent: those up to itself. */
  readonly ends?: Int32Array | undefined;
  /** f32 [t, d] each: added to what leaves the first layers. */
  readonly added?: readonly Float32Array[];
  /** 1 for a visual row, 0 for text. */
  readonly visual: Uint8Array;
  /** Rows from which answers are sampled; `next` has their next tokens. */
  readonly answers: readonly { readonly row: number; readonly next: number }[];
}

const FILE = { what: 'JSON lines of conversations', code: 'ERR_CALIBRATION', limit: 256 * 2 ** 20 } as const;

/**
 * Reads JSON lines `{"image": path | "images": [paths], "turns": [{"question", "answer"?, "truth"?}]}`; paths are relative to the
 * file. `greedy`, as in the packaged reference conversations, counts as `answer`.
 * @throws SparseVilaError `ERR_CALIBRATION`, naming the line
 */
export function readCalibration(file: string): CalibrationSample[] {
  return readJsonLines(file, FILE, (line) => parseLine(line, dirname(file))).values;
}

/** The content of a calibration file, for keys of runs. Validates it first. */
export const readCalibrationText = (file: string): string =>
  readJsonLines(file, FILE, (line) => parseLine(line, dirname(file))).text;

function parseLine({ json, wrong: wrongLine }: JsonLine, folder: string): CalibrationSample {
  const wrong = (expected: string): SparseVilaError => wrongLine(expected, (JSON.stringify(json) ?? '').slice(0, 80));
  if (typeof json !== 'object' || json === null) throw wrong('a JSON object');
  const { image, images = image === undefined ? [] : [image], turns } = json as Record<string, unknown>;
  if (!Array.isArray(images) || !images.every((path) => typeof path === 'string'))
    throw wrong('"image": path or "images": [paths]');
  if (!Array.isArray(turns) || turns.length === 0) throw wrong('"turns": [{"question": …}] of at least one turn');
  return {
    images: images.map((path: string) => resolve(folder, path)),
    turns: turns.map((turn: unknown) => {
      const { question, answer, greedy, truth } = (turn ?? {}) as Record<string, unknown>;
      if (typeof question !== 'string') throw wrong('"question": text in every turn');
      const reply = answer ?? greedy;
      if (reply !== undefined && typeof reply !== 'string') throw wrong('"answer": text');
      return { question, answer: reply, truth: typeof truth === 'string' ? truth : undefined };
    }),
  };
}

/** What a calibration is made from. */
export interface CalibrationSource {
  /** Folder of the checkpoint. */
  readonly model: string;
  readonly samples: readonly CalibrationSample[];
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/**
 * The results of `work` for each sample, one after the other; errors of pictures name them.
 * @throws SparseVilaError `ERR_CALIBRATION` for a picture that cannot be read or decoded; other errors unchanged
 */
export async function eachSample<T>(
  { samples, onProgress = () => undefined }: Omit<CalibrationSource, 'model'>,
  { step, unit = 'conversations' }: { readonly step: string; readonly unit?: string },
  work: (sample: CalibrationSample) => Promise<T>,
): Promise<T[]> {
  const found: T[] = [];
  const report = (): void => onProgress({ step, done: found.length, total: samples.length, unit });
  for (const sample of samples) {
    report();
    try {
      found.push(await work(sample));
    } catch (cause) {
      if (!/^ERR_IMAGE/.test(codeOf(cause) ?? '')) throw cause;
      throw new SparseVilaError(
        'ERR_CALIBRATION',
        `Picture ${sample.images.join(', ')}: ${messageOf(cause)} Repair it or take its line out of the file.`,
        { cause },
      );
    }
  }
  report();
  return found;
}

/** `count` of the samples, evenly spread. */
export function spread<T>(samples: readonly T[], count: number): T[] {
  if (count >= samples.length) return [...samples];
  return Array.from({ length: count }, (_, i) => samples[Math.floor((i * samples.length) / count)] as T);
}

/** Whether a sample has all answers, so that the model need not generate any. */
export const isComplete = ({ turns }: CalibrationSample): boolean => turns.every(({ answer }) => answer !== undefined);

/** The sample with the model's own greedy answers. @param history whether a question sees the turns before it, besides their pictures */
export async function answered(
  model: VisionLanguageModel,
  sample: CalibrationSample,
  history: 'keep' | 'forget',
  signal?: AbortSignal,
): Promise<CalibrationSample> {
  const session = createSession(model);
  try {
    const turns: CalibrationTurn[] = [];
    for (const [i, turn] of sample.turns.entries()) {
      const images = i === 0 ? sample.images : [];
      const options = { images, history, temperature: 0, ...(signal === undefined ? {} : { signal }) };
      turns.push({ ...turn, answer: await session.ask(turn.question, options).text() });
    }
    return { ...sample, turns };
  } finally {
    session.dispose();
  }
}

/**
 * The rows of one conversation that has all answers.
 * @throws SparseVilaError `ERR_IMAGE_…`, `ERR_QUESTION`; `signal.reason`
 */
export async function sequenceOf(model: RowModel, sample: CalibrationSample, signal?: AbortSignal): Promise<Sequence> {
  // Rows are laid out as in a session, but no cache is filled.
  const { config } = model.decoder;
  const conversation = startConversation(kvCache(config, 'f32', config.maxPositions));
  const times = { image: 0, tower: 0, project: 0, prefill: 0, retrieve: 0 };
  const context: MediaContext & DecoderRowsContext = {
    model,
    method: dense(),
    conversation,
    times,
    signal,
    pace: pacer(signal),
  };
  /** Of each piece of the conversation, x and what is added. */
  const parts: Float32Array[][] = [];
  const positions: Position[] = [];
  const answers: { row: number; next: number }[] = [];
  const visualRows: number[] = [];
  const ends: number[] = [];
  const add = (rows: DecoderRows, isPrompt: boolean): void => {
    const blocks = isPrompt ? blocksOf(rows, config) : undefined;
    const own = Int32Array.from(rows.positions.keys());
    const before = positions.length;
    const attended = blocks === undefined ? own.map((row) => row + 1) : blockEnds(own, blocks);
    append(
      ends,
      Array.from(attended, (end) => before + end),
    );
    for (const row of rows.visual) visualRows.push(positions.length + row);
    for (const position of rows.positions) positions.push(position);
    const tensors = [rows.x, ...rows.added];
    parts.push(tensors.map((tensor) => floats(tensor).slice()));
    for (const tensor of tensors) tensor.dispose();
    conversation.nextPosition += rows.advance;
    append(conversation.items, rows.items);
  };
  const [end] = model.tokenizer.encode(endOfAnswer(model));
  for (const [i, { question, answer = '' }] of sample.turns.entries()) {
    const inputs = i === 0 ? sample.images.map((image): MediaInput => ({ kind: 'image', image })) : [];
    const prepared = await prepareMedia(context, inputs);
    for (const medium of prepared) conversation.media.push({ prepared: medium, first: 0 });
    const layoutText = (medium: number): string => conversation.media[medium]?.prepared.layout.text ?? '';
    const turns = turnsWith(conversation.script, undefined, { parts: [question], media: inputs }, 0);
    const prompt = turnPrompt({ model, conversation, layoutText }, turns);
    const assistant = { role: 'assistant', parts: [answer] } as const;
    const spoken = spokenAs(
      transcript(model, [...turns, assistant], layoutText, { answers: false }).text,
      prompt.text,
      answer,
    );
    const plain = [{ begin: spoken.length - answer.length, end: spoken.length }];
    const ids = model.tokenizer.encode(spoken, { plain, continues: true });
    add(await promptRows(context, prompt, prepared), true);
    const answerIds = end === undefined ? ids : [...ids, end];
    for (const [j, next] of answerIds.entries()) answers.push({ row: positions.length - 1 + j, next });
    if (ids.length > 0) add(textRows(context, ids), false);
    conversation.script = { turns: [...turns, assistant], open: [], text: prompt.text + spoken, pending: [] };
  }
  const visual = new Uint8Array(positions.length);
  for (const row of visualRows) visual[row] = 1;
  const count = parts.reduce((most, { length }) => Math.max(most, length), 1);
  const [x = new Float32Array(), ...added] = Array.from({ length: count }, (_, i) =>
    joinNumbers(parts.map((part) => part[i] ?? new Float32Array(part[0]?.length ?? 0))),
  );
  const isCausal = config.bidirectional === undefined;
  return {
    ...{ x, positions, visual, answers, ends: isCausal ? undefined : Int32Array.from(ends) },
    ...(added.length > 0 && { added }),
  };
}

/** The rows of a prompt with its media. */
async function promptRows(
  context: MediaContext & DecoderRowsContext,
  { opening, question }: TurnPrompt,
  media: readonly PreparedMedium[],
): Promise<DecoderRows> {
  const sight = sightOf(context, [new Map(media.entries())], question);
  const rows = rowBuilder(context);
  try {
    await addOpening(rows, opening, sight);
    rows.text(question);
    return rows.take();
  } finally {
    rows.dispose();
    await sight.close();
  }
}

/** An answer as the template prints it after a prompt: white space may precede it, as in "ASSISTANT: answer". */
function spokenAs(told: string, prompt: string, answer: string): string {
  const rest = told.startsWith(prompt) ? told.slice(prompt.length) : answer;
  const at = rest.indexOf(answer);
  return at > 0 && rest.slice(0, at).trim() === '' ? rest.slice(0, at) + answer : answer;
}

/**
 * The rows of all samples; the model generates missing answers, which requires its decoder.
 * @throws SparseVilaError `ERR_CALIBRATION`, and errors of loading; `signal.reason`
 */
export async function calibrationSequences(source: CalibrationSource): Promise<Sequence[]> {
  const { model: path, samples, signal, onProgress } = source;
  const load = { ...(onProgress && { onProgress }), ...(signal && { signal }) };
  const whole = samples.every(isComplete) ? undefined : await loadModel(path, load);
  const model = whole ?? (await loadRowModel(path, load));
  try {
    return await eachSample(source, { step: 'read calibration set' }, async (sample) => {
      const isGiven = whole === undefined || isComplete(sample);
      return sequenceOf(model, isGiven ? sample : await answered(whole, sample, 'keep', signal), signal);
    });
  } finally {
    model.dispose();
  }
}
