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
  /** Copies from the device to the host that one more token of an answer makes, per configuration; null without a device. */
  readonly copiesPerToken: Readonly<Record<string, number | null>>;
}

const SETTINGS: Readonly<Record<string, SessionOptions>> = {
  'dense, f32': { method: dense(), kv: 'f32' },
  'SparseVILA, f32': { method: sparseVila(), kv: 'f32' },
  'SparseVILA, bf16': { method: sparseVila(), kv: 'bf16' },
};
const [FEW, MANY] = [2, 5];
/** With these an answer has more tokens than that, whatever is asked. */
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

/** Of two answers of different lengths to one question. */
async function copiesPerToken(model: Model, options: SessionOptions): Promise<number | null> {
  const { native } = start();
  const copies = async (maxTokens: number): Promise<number> => {
    const chat = model.session(options);
    const before = native.deviceCounters()?.toHost ?? Number.NaN;
    const answer = chat.ask('Read row 1.', { images: [scene(0)], maxTokens, ...LONG });
    await answer.text();
    const { generated = 0 } = answer.stats?.tokens ?? {};
    if (generated !== maxTokens) throw new Error(`expected an answer of ${maxTokens} tokens, received ${generated}`);
    chat.dispose();
    return (native.deviceCounters()?.toHost ?? Number.NaN) - before;
  };
  const [few, many] = [await copies(FEW), await copies(MANY)];
  return (many - few) / (MANY - FEW);
}

async function main(): Promise<void> {
  const model = await load(TINY);
  const answers: Record<string, string[]> = {};
  const copies: Record<string, number | null> = {};
  for (const [name, options] of Object.entries(SETTINGS)) {
    answers[name] = await answersOf(model, options);
    copies[name] = await copiesPerToken(model, options);
  }
  model.dispose();
  print({ device: start().device, answers, copiesPerToken: copies } satisfies DeviceTurns);
}

if (require.main === module) void main();
