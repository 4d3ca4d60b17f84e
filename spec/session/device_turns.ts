// A script for `runOn`: the reference conversations' first, dense and with SparseVILA, on the process's device; and what a token
// of an answer copies from the device.

import { dense, load, type Model, type SessionOptions, sparseVila } from '../../src';
import { start } from '../../src/runtime/start';
import { conversations, scene, TINY } from '../support/assets';
import { print } from '../support/device';

export interface DeviceTurns {
  readonly device: string;
  /** Per configuration, the answers in order. */
  readonly answers: Readonly<Record<string, readonly string[]>>;
  /** What one more token of an answer copies from the device to the host, per configuration; nothing without a device. */
  readonly perToken: Readonly<Record<string, Copies>>;
}

export interface Copies {
  readonly count: number;
  readonly bytes: number;
}

const SETTINGS: Readonly<Record<string, SessionOptions>> = {
  'dense, f32': { method: dense(), kv: 'f32' },
  'SparseVILA, f32': { method: sparseVila(), kv: 'f32' },
  'SparseVILA, bf16': { method: sparseVila(), kv: 'bf16' },
};
const [FEW, MANY] = [2, 5];
/** With these options an answer has more tokens than that, whatever the question is. */
const LONG = { temperature: 1e6, seed: 1211 };

async function answersOf(model: Model, options: SessionOptions): Promise<string[]> {
  const chat = model.session(options);
  const [first] = conversations();
  const answers: string[] = [];
  for (const [i, { question }] of (first?.turns ?? []).entries())
    answers.push(await chat.ask(question, i === 0 ? { images: [scene(0)] } : {}).text());
  chat.dispose();
  return answers;
}

/** The difference per token between two answers of different lengths to one question. */
async function copiesPerToken(model: Model, options: SessionOptions): Promise<Copies> {
  const copies = async (maxTokens: number): Promise<Copies> => {
    const chat = model.session(options);
    const before = start().native.deviceCounters();
    const answer = chat.ask('Read row 1.', { images: [scene(0)], maxTokens, ...LONG });
    await answer.text();
    const { generated = 0 } = answer.stats?.tokens ?? {};
    if (generated !== maxTokens) throw new Error(`expected an answer of ${maxTokens} tokens, received ${generated}`);
    chat.dispose();
    const after = start().native.deviceCounters();
    if (before === undefined || after === undefined) return { count: 0, bytes: 0 };
    return { count: after.toHost - before.toHost, bytes: after.toHostBytes - before.toHostBytes };
  };
  const [few, many] = [await copies(FEW), await copies(MANY)];
  const tokens = MANY - FEW;
  return { count: (many.count - few.count) / tokens, bytes: (many.bytes - few.bytes) / tokens };
}

async function main(): Promise<void> {
  const model = await load(TINY);
  const answers: Record<string, string[]> = {};
  const perToken: Record<string, Copies> = {};
  for (const [name, options] of Object.entries(SETTINGS)) {
    answers[name] = await answersOf(model, options);
    perToken[name] = await copiesPerToken(model, options);
  }
  model.dispose();
  print({ device: start().device, answers, perToken } satisfies DeviceTurns);
}

if (require.main === module) void main();
