// A seeded source of calls of the public API: options of right and wrong types, in any order, with disposals and aborts in between.

import * as api from '../../src';
import { ERROR_CODES } from '../../src/errors';
import { scene, TINY, vilaCase } from './assets';
import { explain, factory, helper, job } from './fuzz_calls';
import { method } from './fuzz_method';
import {
  engineCall,
  format,
  logitBias,
  modelCall,
  openServices,
  providerCall,
  type Services,
  saved,
  serviceCall,
} from './fuzz_services';
import { image, junk, options, pick, question, type Random, REASONS, seeded, signal, thrower } from './fuzz_values';

export interface Findings {
  /** Errors without a documented code, or that are too long or carry control characters. */
  readonly faults: string[];
  /** How often each outcome occurred. */
  readonly outcomes: Record<string, number>;
}

interface State {
  readonly services: Services;
  readonly models: api.Model[];
  readonly sessions: api.Session[];
  readonly answers: api.Answer[];
  readonly marks: unknown[];
  readonly iterators: AsyncIterator<string>[];
}

/** Makes `calls` calls, some of them at once; disposes of everything in the end. */
export async function fuzz(seed: number, calls: number): Promise<Findings> {
  const random = seeded(seed);
  const [services, model] = await Promise.all([openServices(), api.load(TINY)]);
  const state: State = { services, models: [model], sessions: [], answers: [], marks: [], iterators: [] };
  const findings: Findings = { faults: [], outcomes: {} };
  let running: Promise<void>[] = [];
  for (let i = 0; i < calls; i++) {
    const [name, call] = action(random, state);
    running.push(judge(`#${i} ${name}`, call, findings));
    if (random() < 0.5 || running.length > 6) {
      await Promise.all(running);
      running = [];
    }
  }
  await Promise.all(running);
  for (const iterator of state.iterators) await judge('return', () => iterator.return?.(), findings);
  for (const session of state.sessions) session.dispose();
  for (const model of state.models) model.dispose();
  await services.close();
  return findings;
}

async function judge(name: string, call: () => unknown, { faults, outcomes }: Findings): Promise<void> {
  let outcome = 'ok';
  try {
    await call();
  } catch (error) {
    outcome = faultOf(error) ?? '';
    if (outcome !== '') faults.push(`${name}: ${outcome}`);
    else outcome = error instanceof api.SparseVilaError ? error.code : 'aborted';
  }
  outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
}

function faultOf(error: unknown): string | undefined {
  if (REASONS.includes(error as Error) || error === 'junk') return undefined;
  if (error instanceof DOMException && error.name === 'AbortError') return undefined;
  if (!(error instanceof api.SparseVilaError)) return `without a code: ${String((error as Error)?.stack ?? error)}`;
  if (!Object.hasOwn(ERROR_CODES, error.code)) return `undocumented: ${error.code}`;
  if (error.code === 'ERR_INTERNAL') return `${error.message}: ${String((error.cause as Error)?.stack ?? error.cause)}`;
  if (error.message.length > 1500) return `${error.message.length} characters`;
  if (/(?![\n\t])\p{Cc}|[\u202a-\u202e]/u.test(error.message))
    return `control characters in ${JSON.stringify(error.message)}`;
  return undefined;
}

function action(random: Random, state: State): [string, () => unknown] {
  const session = state.sessions.length > 0 ? pick(random, state.sessions) : undefined;
  const kinds: readonly (readonly [weight: number, name: string, make: (() => () => unknown) | undefined])[] = [
    [6, 'session', () => open(random, state)],
    [50, 'ask', session && (() => ask(random, state, session))],
    [10, 'read', state.answers.length > 0 ? () => read(random, state, pick(random, state.answers)) : undefined],
    [4, 'open', session && (() => openMessages(random, session))],
    [2, 'fork', session && (() => () => keep(state, session.fork()))],
    [5, 'mark', session && (() => () => void state.marks.push(session.mark()))],
    [5, 'rewind', session && (() => () => session.rewind(mark(random, state) as api.Mark))],
    [3, 'dispose', session && (() => () => dispose(random, state, session))],
    [2, 'load', () => load(random, state)],
    [1, 'model.dispose', () => () => disposeModel(random, state)],
    [8, 'factory', () => factory(random)],
    [4, 'helper', () => helper(random)],
    [3, 'explain', () => explain(random, state.answers)],
    [2, 'job', () => job(random)],
    [4, 'model', () => modelCall(random, pick(random, state.models))],
    [
      5,
      'saved',
      session &&
        (() => saved(random, state.services, [pick(random, state.models), session], (made) => keep(state, made))),
    ],
    [5, 'engine', () => engineCall(random, state.services)],
    [2, 'provider', () => providerCall(random, state.services)],
    [3, 'service', () => serviceCall(random, state.services)],
  ];
  const possible = kinds.filter(([, , make]) => make !== undefined);
  const at = random() * possible.reduce((sum, [weight]) => sum + weight, 0);
  let passed = 0;
  const chosen = possible.find(([weight]) => {
    passed += weight;
    return at < passed;
  });
  const [, name, make] = chosen ?? (possible[0] as (typeof possible)[number]);
  return [name, make?.() ?? (() => undefined)];
}

/** Some sessions are asked again afterwards. */
function dispose(random: Random, { sessions }: State, session: api.Session): void {
  session.dispose();
  if (random() < 0.8) sessions.splice(sessions.indexOf(session), 1);
}

function open(random: Random, state: State): () => unknown {
  const model = pick(random, state.models);
  const given = options(
    random,
    {
      method: () => method(random),
      kv: () => pick(random, ['bf16', 'f32']),
      contextLength: () => pick(random, [2, 50, 500, 4000]),
      kvBudget: () => pick(random, [1, 1e6]),
      history: () => pick(random, ['keep', 'forget']),
      system: () => question(random),
    },
    0.05,
  );
  return () => {
    keep(state, model.session(given as api.SessionOptions));
  };
}

/** Few sessions at a time, so that calls often use the same session. */
function keep({ sessions }: State, session: api.Session): void {
  sessions.push(session);
  const [oldest] = sessions;
  if (oldest === undefined || sessions.length <= 4) return;
  oldest.dispose();
  sessions.splice(sessions.indexOf(oldest), 1);
}

function openMessages(random: Random, session: api.Session): () => unknown {
  const message = (role: string): unknown =>
    random() < 0.95 ? { role: random() < 0.97 ? role : junk(random), content: content(random) } : junk(random);
  const turns = Math.floor(random() * 3);
  const messages = [
    ...(random() < 0.3 ? [message('system')] : []),
    ...Array.from({ length: turns }, () => [message('user'), message('assistant')]).flat(),
    ...(random() < 0.05 ? [message('user')] : []),
  ];
  const given = options(random, { signal: () => signal(random) }, 0.05);
  const what = random() < 0.95 ? messages : junk(random);
  return () => session.open(what as api.ChatMessage[], given as { signal?: AbortSignal });
}

/** Words, or words and pictures in some order. */
function content(random: Random): unknown {
  if (random() < 0.7) return question(random);
  return Array.from({ length: 1 + Math.floor(random() * 3) }, () =>
    random() < 0.6 ? question(random) : random() < 0.9 ? { kind: 'image', image: image(random) } : junk(random),
  );
}

function ask(random: Random, state: State, session: api.Session): () => unknown {
  const words = content(random);
  const given = options(
    random,
    {
      images: () => Array.from({ length: Math.floor(random() * 3) }, () => image(random)),
      maxTokens: () => 1 + Math.floor(random() * 6),
      stop: () => [pick(random, ['red', ' ', 'a'])],
      signal: () => signal(random),
      history: () => pick(random, ['keep', 'forget']),
      temperature: () => random() * 2,
      topK: () => Math.floor(random() * 20),
      topP: () => random(),
      repetitionPenalty: () => 0.5 + random(),
      seed: () => Math.floor(random() * 1e6),
      verify: () => 'dense',
      logprobs: () => pick(random, [0, 2, 101]),
      logitBias: () => logitBias(random),
      format: () => format(random),
      videos: () => [{ frames: [image(random)], fps: 1 }],
    },
    0.05,
  );
  return () => {
    const answer = session.ask(words as string, given as api.AskOptions);
    state.answers.push(answer);
    if (state.answers.length > 6) state.answers.shift();
    return random() < 0.8 ? read(random, state, answer)() : undefined;
  };
}

function read(random: Random, state: State, answer: api.Answer): () => unknown {
  return pick<() => unknown>(random, [
    () => answer.text(),
    () => answer,
    () => Promise.all([answer.text(), answer.text()]),
    () => answer.stats,
    async () => {
      for await (const _ of answer) if (random() < 0.5) break;
    },
    async () => {
      const iterator = answer[Symbol.asyncIterator]();
      state.iterators.push(iterator);
      await iterator.next();
      if (state.iterators.length > 2) await state.iterators.shift()?.return?.();
    },
  ]);
}

function mark(random: Random, { marks }: State): unknown {
  if (marks.length === 0 || random() < 0.2) return junk(random);
  const made = pick(random, marks);
  return random() < 0.8 ? made : { ...(made as object) };
}

function load(random: Random, state: State): () => unknown {
  const path = random() < 0.5 ? vilaCase('linear') : pick<unknown>(random, ['no/such', scene(0), junk(random)]);
  const given = options(random, {
    weights: () => pick(random, ['f32', 'f16', 'bf16']),
    precision: () => pick(random, ['exact', 'fast']),
    imageCache: () => pick(random, [0, 1e5, 1e8]),
    maxPixels: () => 1e6,
    template: () => pick(random, ['qwen2', 'no_such', '{{ x.y.z }}', '{% for']),
    allowUrls: () => false,
    revision: () => 'main',
    signal: () => signal(random),
    onProgress: () => (random() < 0.9 ? () => undefined : thrower),
  });
  return async () => {
    const model = await api.load(path as string, given as api.LoadOptions);
    if (state.models.length > 2) model.dispose();
    else state.models.push(model);
  };
}

/** Sometimes disposes of a session that is in use. At least one session stays. */
function disposeModel(random: Random, { models }: State): void {
  const model = models.length > 1 ? pick(random, models.slice(1)) : undefined;
  model?.dispose();
  if (model !== undefined) models.splice(models.indexOf(model), 1);
}
