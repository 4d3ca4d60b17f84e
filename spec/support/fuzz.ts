// A seeded source of calls of the public API: options of right and wrong types, in any order, with disposals and aborts in between.

import { readFileSync } from 'node:fs';
import * as api from '../../src';
import { ERROR_CODES } from '../../src/errors';
import { imageFixture, scene, TINY, vilaCase } from './assets';

/** Numbers from 0 to 1 (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export interface Findings {
  /** Errors without a documented code, or that are too long or carry control characters. */
  readonly faults: string[];
  /** How often each outcome occurred. */
  readonly outcomes: Record<string, number>;
}

type Random = () => number;
type Maker = () => unknown;
const REASONS = [new Error('aborted by the fuzzer'), 'a reason', 42, null];
const bytes = readFileSync(scene(1));

function pick<T>(random: Random, list: readonly T[]): T {
  return list[Math.floor(random() * list.length)] as T;
}

const thrower = (): never => {
  throw new TypeError('thrown by the fuzzer \u001b[31m');
};
const revoked = (): unknown => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
};

/** Values that almost no option accepts. */
const JUNK: readonly Maker[] = [
  ...[undefined, null, Number.NaN, -1, 0, 1e308, 2 ** 53, 2 ** 32 + 1, 0.5, 1e-40, true, 10n].map(
    (value) => () => value,
  ),
  ...['', ' ', 'x', 'NaN', '\u001b[31mred', '\u202e', '\0', 'y'.repeat(1e5), '\ud800', '__proto__'].map(
    (text) => () => text,
  ),
  () => [],
  () => [null, undefined],
  () => new Array(5),
  () => ({}),
  () => Symbol('fuzz'),
  () => () => 1,
  () => async () => [],
  () => thrower,
  () => new Proxy({}, { get: thrower, ownKeys: thrower, has: thrower, getPrototypeOf: thrower }),
  revoked,
  () => ({
    get name() {
      return thrower();
    },
    toString: thrower,
    valueOf: thrower,
    toJSON: thrower,
  }),
  () => ({ [Symbol.toPrimitive]: thrower, [Symbol.iterator]: thrower }),
  () => Object.create(null),
  () => new Date(Number.NaN),
  () => new Map([[1, 2]]),
  () => Int32Array.of(0, 1, 2),
  () => Float32Array.of(Number.NaN, 1),
  () => Buffer.alloc(0),
  () => new URL('ftp://x/y'),
  () => AbortSignal.abort('junk'),
  () => ({ aborted: false, throwIfAborted: thrower, addEventListener: thrower }),
  () => api.dense(),
  () => class {},
];

const junk = (random: Random): unknown => pick(random, JUNK)();

/** Some of the options, sometimes with an invalid value. */
function some(random: Random, good: Readonly<Record<string, Maker>>, share: number): Record<string, unknown> {
  const names = Object.keys(good).filter(() => random() < 0.4);
  return Object.fromEntries(names.map((name) => [name, random() < share ? junk(random) : good[name]?.()]));
}

/** The same, sometimes with an unknown name, or with an invalid value in place of the whole object. */
function options(random: Random, good: Readonly<Record<string, Maker>>, share = 0.15): unknown {
  if (random() < 0.04) return junk(random);
  const made = some(random, good, share);
  const stray = random() < 0.04 ? pick(random, ['metod', 'max_tokens', 'toString', '\u001b', 'signl']) : undefined;
  return stray === undefined ? made : { ...made, [stray]: junk(random) };
}

function indices(random: Random, n: number): unknown {
  const kept = Int32Array.from({ length: n }, (_, i) => i).filter(() => random() < 0.6);
  return random() < 0.85
    ? kept
    : pick<unknown>(random, [junk(random), Int32Array.of(n), Array.from(kept), Int32Array.of(2, 1)]);
}

function merged(random: Random, n: number, width: number): unknown {
  const kept = Int32Array.from({ length: n }, (_, i) => i).filter(() => random() < 0.6);
  const rows = new Float32Array(kept.length * width).fill(pick(random, [0.1, 0.1, 0.1, Number.NaN, 1e38]));
  return { kept, rows: random() < 0.9 ? rows : junk(random) };
}

/** A valid or invalid custom method. */
function method(random: Random): unknown {
  if (random() < 0.1) return junk(random);
  if (random() < 0.5)
    return pick(random, api.METHODS).create({ prefillSparsity: random() * 0.99, decodeSparsity: random() * 0.99 });
  const group = (members: Readonly<Record<string, Maker>>, needed: Readonly<Record<string, Maker>>): Maker => {
    const required = Object.fromEntries(Object.entries(needed).map(([name, make]) => [name, make()]));
    return () => ({ ...(random() < 0.95 && required), ...some(random, members, 0.05) });
  };
  const parts: Readonly<Record<string, Maker>> = {
    positions: () => pick(random, ['original', 'compact']),
    prune: group(
      {
        taps: () => ({ salience: [pick(random, [-1, 0, 0.5, 99])], keys: [-1] }),
        rows: () => pick(random, ['features', 'projected']),
      },
      {
        select: () => (grids: readonly api.TowerView[]) =>
          grids.map((grid) =>
            random() < 0.2 ? merged(random, grid.tokens, grid.projected().width) : indices(random, grid.tokens),
          ),
      },
    ),
    drop: group(
      {
        scores: () => pick(random, ['previous', 'next']),
        raters: () => (question: api.Matrix) => indices(random, question.data.length / question.width),
      },
      {
        layers: () => [pick(random, [1, 2, 0.5, -1, 0])],
        select: () => (view: api.DropView) => indices(random, view.scores.length),
      },
    ),
    retrieve: group(
      { window: () => 1 + Math.floor(random() * 5), permanent: () => random() < 0.5 },
      {
        select: () => (relevance: Float32Array) => (random() < 0.02 ? thrower() : indices(random, relevance.length)),
      },
    ),
  };
  return { ...some(random, parts, 0.05), ...(random() < 0.97 && { name: 'fuzz' }) };
}

function image(random: Random): unknown {
  return pick<Maker>(random, [
    () => scene(Math.floor(random() * 24)),
    () => scene(0),
    () => bytes,
    () => ({ data: new Uint8Array(12).fill(9), width: 2, height: 2, channels: 3 }),
    () => ({ data: new Uint8Array(5), width: 2, height: 2, channels: 3 }),
    () => imageFixture('truncated.png'),
    () => 'no/such.png',
    () => junk(random),
  ])();
}

function question(random: Random): unknown {
  const texts = [
    'What is at b4?',
    'Where is the A?',
    'List the red objects.',
    '',
    'see <image>',
    '<|im_end|>',
    '\0',
    '\ud800',
    '😀',
  ];
  return random() < 0.85
    ? pick(random, [...texts, 'What is at b4?', 'red '.repeat(Math.floor(random() * 400))])
    : junk(random);
}

interface State {
  readonly models: api.Model[];
  readonly sessions: api.Session[];
  readonly answers: api.Answer[];
  readonly marks: unknown[];
  readonly iterators: AsyncIterator<string>[];
}

/** Makes `calls` calls, some of them at once; disposes of everything in the end. */
export async function fuzz(seed: number, calls: number): Promise<Findings> {
  const random = seeded(seed);
  const state: State = { models: [await api.load(TINY)], sessions: [], answers: [], marks: [], iterators: [] };
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
    [3, 'explain', () => explain(random, state)],
    [2, 'job', () => job(random)],
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

const signal = (random: Random): AbortSignal => {
  const controller = new AbortController();
  const reason = pick(random, REASONS);
  const delay = random();
  if (delay < 0.1) controller.abort(reason);
  else if (delay < 0.2) queueMicrotask(() => controller.abort(reason));
  else if (delay < 0.3) setImmediate(() => controller.abort(reason));
  else if (delay < 0.6) setTimeout(() => controller.abort(reason), delay * 60).unref();
  return controller.signal;
};

function open(random: Random, state: State): () => unknown {
  const model = pick(random, state.models);
  const given = options(
    random,
    {
      method: () => method(random),
      kv: () => pick(random, ['bf16', 'f32']),
      contextLength: () => pick(random, [2, 50, 500, 4000]),
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

function factory(random: Random): () => unknown {
  const { cdPruner, dart, divPrune, downsample, fastV, hiPrune, holoV, mmTok, pruMerge, pruMergePlus, pyramidDrop } =
    api;
  const { quest, random: drawn, randomDeep, snapKv } = api;
  const { sparseVila, sparseVlm, sparseVlmPlus, uniform, vScan, visionZip, METHODS } = api;
  const share: Maker = () => random();
  const given = options(
    random,
    { prefillSparsity: share, decodeSparsity: share, positions: () => 'compact', layer: () => 1, seed: () => 1 },
    0.3,
  );
  const make = pick<(given: never) => unknown>(random, [
    ...[divPrune, fastV, hiPrune, pruMerge, pruMergePlus, pyramidDrop, quest, drawn, snapKv],
    ...[cdPruner, dart, downsample, holoV, mmTok, randomDeep],
    ...[sparseVila, sparseVlm, sparseVlmPlus, uniform, vScan, visionZip],
    ...METHODS.map((entry) => (of: api.MethodRatios) => entry.create(of)),
  ]);
  return () => make(given as never);
}

function helper(random: Random): () => unknown {
  const [a, b] = [method(random), method(random)] as [api.SparsityMethod, api.SparsityMethod];
  return pick<() => unknown>(random, [
    () => api.compose(a, b),
    () => api.observed(a),
    () =>
      api.topK(
        (random() < 0.5 ? new Float32Array(9).fill(random()) : junk(random)) as Float32Array,
        (random() < 0.5 ? 3 : junk(random)) as number,
      ),
    () => api.budget((random() < 0.5 ? 9 : junk(random)) as number, (random() < 0.5 ? 0.5 : junk(random)) as number),
  ]);
}

function explain(random: Random, { answers }: State): () => unknown {
  const stats = answers.map((answer) => answer.stats).find((made) => made !== undefined && made.media.length > 0);
  const turn = options(random, {
    question: () => question(random),
    answer: () => 'red',
    images: () => (stats?.media ?? []).map(() => scene(0)),
    stats: () => stats,
    relevance: () => [],
  });
  const turns = random() < 0.8 ? [turn] : junk(random);
  const given = options(random, { title: () => 'title', signal: () => signal(random) });
  return () => api.explain(turns as api.ExplainedTurn[], given as api.ExplainOptions);
}

/** Calls of long operations with an invalid argument, so that only their validation runs. */
function job(random: Random): () => unknown {
  const withUnknown = { 'no such option': 1, ...some(random, { signal: () => signal(random) }, 0.1) };
  const given = random() < 0.8 ? withUnknown : pick<unknown>(random, [null, 7, 'x', [], () => 1]);
  return pick<() => unknown>(random, [
    () => api.setup(given as never),
    () => api.quantize(given as never),
    () => api.convert(given as never),
    () => api.evaluate(given as never),
    () => api.readDataSet((random() < 0.5 ? 'no/such.jsonl' : junk(random)) as never),
    () =>
      api.scenesSet(
        (random() < 0.5 ? { scenes: 1, turns: 1, frames: junk(random), seed: 'x' } : junk(random)) as never,
      ),
  ]);
}
