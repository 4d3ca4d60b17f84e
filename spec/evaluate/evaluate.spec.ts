// `evaluate` and `tune` on the packaged model: summaries, interruption, printed and written output.

import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { load, METHODS, type Model } from '../../src';
import { scenesSet, type TrueTurn } from '../../src/evaluate/data_set';
import { type EvaluateOptions, evaluate } from '../../src/evaluate/evaluate';
import { DENSE, methodEntry, type Setting } from '../../src/evaluate/settings';
import type { MethodSummary } from '../../src/evaluate/summary';
import { formatTable } from '../../src/evaluate/table';
import { tune } from '../../src/evaluate/tune';
import { openResults } from '../../src/runtime/results_file';
import { brokenImage, cli, startCli } from '../cli/run';
import { scene, TINY } from '../support/assets';

let folder: string;
let model: Model;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-evaluate-'));
  model = await load(TINY);
});
afterAll(() => {
  model.dispose();
  rmSync(folder, { recursive: true });
});

const at = (...names: string[]): string => join(folder, ...names);
const DATA = scenesSet({ scenes: 4, turns: 3, frames: 1, seed: 1 });
const SPARSE: Setting = { method: 'sparsevila', prefillSparsity: 0.6, decodeSparsity: 0.75, positions: 'original' };
const KEEP_ALL: Setting = { ...SPARSE, prefillSparsity: 0, decodeSparsity: 0 };
const RANDOM: Setting = { ...SPARSE, method: 'random' };
const ROW_KEYS = [
  ...['method', 'prefillSparsity', 'decodeSparsity', 'positions', 'accuracy', 'accuracyByTurn', 'accuracyByKind'],
  ...['agreement', 'activePrefill', 'activeDecode', 'ms'],
];

async function run(name: string, more: Partial<EvaluateOptions> = {}): Promise<MethodSummary[]> {
  const results = openResults(at(name, 'results.jsonl'), { seed: 1 });
  const settings = [DENSE, SPARSE, KEEP_ALL, RANDOM];
  try {
    const common = { model, data: DATA, settings, protocols: ['forget'], seed: 1, maxTokens: 64, results } as const;
    return await evaluate({ ...common, ...more });
  } finally {
    results.close();
  }
}

const withoutTimes = (rows: readonly MethodSummary[]): unknown[] => rows.map(({ ms: _, ...row }) => row);

describe('rows', () => {
  it('hold accuracy, agreement with dense, and active tokens', async () => {
    const [dense, sparse, keepAll, random] = await run('rows');
    expect(Object.keys(dense ?? {})).toEqual(ROW_KEYS);
    expect(dense).toMatchObject({ method: 'dense', agreement: 1, activePrefill: 100, activeDecode: 100 });
    expect(keepAll).toMatchObject({ accuracy: dense?.accuracy, agreement: 1, activeDecode: 100 });
    expect(sparse).toMatchObject({ activePrefill: 40, activeDecode: 10 });
    expect(dense?.accuracy).toBeGreaterThanOrEqual(10 / 12);
    expect(sparse?.accuracy).toBeGreaterThan(random?.accuracy ?? 1);
    for (const row of [dense, sparse]) {
      expect(row?.accuracyByTurn).toHaveLength(3);
      const mean = (row?.accuracyByTurn ?? []).reduce((sum, share) => sum + share / 3, 0);
      expect(mean).toBeCloseTo(row?.accuracy ?? Number.NaN, 3);
      const { conversation = 0, total = 0, tower = 0 } = row?.ms ?? {};
      expect(conversation).toBeGreaterThan(total);
      expect(total).toBeGreaterThan(tower);
    }
  });

  it('of verified answers agree with dense, and tell how many tokens were drafted', async () => {
    const quest: Setting = { ...SPARSE, method: 'quest', prefillSparsity: 0, decodeSparsity: 0.97 };
    const [dense, verified] = await run('verified', { settings: [DENSE, quest], verify: 'dense' });
    expect(verified).toMatchObject({ method: 'quest', agreement: 1, accuracy: dense?.accuracy });
    expect(verified?.accepted).toBeGreaterThan(0);
    expect(verified?.drafted).toBeGreaterThanOrEqual(verified?.accepted ?? 0);
    expect(formatTable([dense, verified] as MethodSummary[], 200)).toMatch(/as dense +drafted +accepted/);
  });

  it('of questions that a setting misses count those alone, and the setting has none right', async () => {
    const missedBy = { ...RANDOM, prefillSparsity: 0.9, decodeSparsity: 0 };
    const rows = await run('missed', { missedBy });
    expect(rows.map(({ method, prefillSparsity }) => [method, prefillSparsity])).toContainEqual(['random', 0.9]);
    expect(rows.find(({ prefillSparsity }) => prefillSparsity === 0.9)?.accuracy).toBe(0);
    const lines = readFileSync(at('missed', 'results.jsonl'), 'utf8').trim().split('\n').slice(1);
    const pieces = lines.map((line) => JSON.parse(line) as { name: string; value: { answer: string }[] });
    const answersOf = (end: string) =>
      pieces.filter(({ name }) => name.endsWith(end)).flatMap(({ value }) => value.map(({ answer }) => answer));
    const truths = DATA.conversations.flatMap(({ turns }) => turns.map(({ answer }) => answer));
    const [missed, dense] = [answersOf('random 0.9/0 original'), answersOf('dense 0/0 original')];
    const asked = truths.flatMap((truth, i) => (missed[i] === truth ? [] : [Number(dense[i] === truth)]));
    expect(asked.length).toBeGreaterThan(0);
    expect(rows[0]?.accuracy).toBeCloseTo(asked.reduce((a, b) => a + b) / asked.length, 3);
    const error = await run('all right', { missedBy: DENSE, data: { ...DATA, conversations: [] } }).catch((one) => one);
    expect(error).toMatchObject({ code: 'ERR_DATA_SET' });
  });

  it('equal an independent count of the recorded answers', async () => {
    const [, sparse] = await run('rows');
    const lines = readFileSync(at('rows', 'results.jsonl'), 'utf8').trim().split('\n').slice(1);
    const answers = lines
      .map((line) => JSON.parse(line) as { name: string; value: { answer: string }[] })
      .filter(({ name }) => name.endsWith('sparsevila 0.6/0.75 original'))
      .flatMap(({ value }) => value.map(({ answer }) => answer));
    const truths = DATA.conversations.flatMap(({ turns }) => turns.map(({ answer }) => answer));
    expect(answers).toHaveLength(12);
    const right = answers.filter((answer, i) => answer === truths[i]).length;
    expect(sparse?.accuracy).toBeCloseTo(right / 12, 4);
  });

  it('the chat protocol keeps earlier turns', async () => {
    const settings = [DENSE];
    const rows = await run('both', { settings, protocols: ['forget', 'chat'] });
    expect(rows.map(({ protocol, method }) => [protocol, method])).toEqual([
      ['forget', 'dense'],
      ['chat', 'dense'],
    ]);
  });
});

describe('scores', () => {
  const settings: Setting[] = [];
  it('a function can judge answers, results are in memory by default, and dense always runs', async () => {
    const seen: string[] = [];
    const score = async (answer: string, { question }: TrueTurn): Promise<number> => {
      seen.push(question);
      return answer === '' ? 0 : 0.25;
    };
    const rows = await evaluate({ model, data: DATA, settings, score });
    expect(rows).toMatchObject([{ method: 'dense', accuracy: 0.25, agreement: 1 }]);
    expect(seen).toEqual(DATA.conversations.flatMap(({ turns }) => turns.map(({ question }) => question)));
  });

  it('a score is chosen by name; one of several accepted answers suffices', async () => {
    const conversations = DATA.conversations.map((one) => ({
      ...one,
      turns: one.turns.map((turn) => ({ ...turn, answers: ['none of these', `The ${turn.answer.toUpperCase()}!`] })),
    }));
    const [exact] = await evaluate({ model, data: { ...DATA, conversations }, settings });
    const [normalized] = await evaluate({ model, data: { ...DATA, conversations }, settings, score: 'normalized' });
    expect(exact?.accuracy).toBe(0);
    expect(normalized?.accuracy).toBeGreaterThan(0.8);
  });

  it.each([2, -0.1, Number.NaN])('refuses the score %d', async (value) => {
    const judged = evaluate({ model, data: DATA, settings, score: () => value });
    await expect(judged).rejects.toMatchObject({
      code: 'ERR_OPTION_INVALID',
      message: expect.stringContaining('share'),
    });
  });

  it('the error names what a score function threw', async () => {
    const failing = (): number => {
      throw new TypeError('judge is away');
    };
    const judged = evaluate({ model, data: DATA, settings, score: failing });
    await expect(judged).rejects.toMatchObject({
      code: 'ERR_CALLBACK',
      message: expect.stringContaining('judge is away'),
    });
  });

  it('refuses options that it does not know', async () => {
    const wrong = { model, data: DATA, settings, score: 'bleu' } as unknown as EvaluateOptions;
    await expect(evaluate(wrong)).rejects.toThrow(/one of exact, .* or a function for score/);
  });
});

describe('interruption', () => {
  it('gives the same rows, repeats no conversation, and ignores an unfinished line', async () => {
    const whole = await run('whole');
    const controller = new AbortController();
    const stop = ({ done }: { done: number }): void => {
      if (done === 2) controller.abort();
    };
    await expect(run('cut', { signal: controller.signal, onProgress: stop })).rejects.toThrow();
    const file = at('cut', 'results.jsonl');
    const before = readFileSync(file, 'utf8');
    expect(before.trim().split('\n')).toHaveLength(1 + 2 * 4);
    appendFileSync(file, '{"name":"2 forget dense 0/0 orig');
    expect(withoutTimes(await run('cut'))).toEqual(withoutTimes(whole));
    expect(readFileSync(file, 'utf8').startsWith(before)).toBe(true);
    const asked = await run('cut', { model: new Proxy(model, { get: () => expect(false).toBe(true) }) });
    expect(withoutTimes(asked)).toEqual(withoutTimes(whole));
  });

  it('refuses to continue another configuration, and names the difference', () => {
    openResults(at('other', 'results.jsonl'), { seed: 1, methods: 'all' }).close();
    expect(() => openResults(at('other', 'results.jsonl'), { seed: 2, methods: 'all' })).toThrow(
      /holds the results of another run: seed is 1 there and 2 here\. .*another output/,
    );
  });
});

describe('command line', () => {
  const EVALUATE = ['evaluate', '--scenes', '3', '--turns', '2', '--methods', 'sparsevila,uniform', '--seed', '3'];

  it('prints a table of at most 80 columns, or JSON alone; writes plots', async () => {
    const { code, stdout } = await cli([...EVALUATE, '--json', '--out', at('cli')]);
    expect(code).toBe(0);
    const json = JSON.parse(stdout) as { rows: MethodSummary[] };
    expect(Object.keys(json)).toEqual(['seed', 'score', 'scenes', 'turns', 'rows']);
    expect(json).toMatchObject({ seed: 3, score: 'exact', scenes: 3, turns: 2 });
    const table = await cli([...EVALUATE, '--out', at('cli')]);
    const lines = table.stdout.trim().split('\n');
    expect(Math.max(...lines.slice(0, -4).map(({ length }) => length))).toBeLessThanOrEqual(80);
    expect(json.rows.map(({ method }) => method)).toEqual(['dense', 'sparsevila', 'uniform']);
    for (const row of json.rows) expect(Object.keys(row)).toEqual(ROW_KEYS);
    expect(lines[0]).toMatch(/^method +ratios +accuracy +turn 1 +later/);
    expect(lines[1]).toMatch(/^dense +0\/0 +[01]\.\d{3} /);
    expect(lines[2]).toMatch(/^\w+ +0\.\d+\/[\d.]+ /);
    for (const name of ['accuracy-by-tokens', 'accuracy-by-turn']) {
      expect(readFileSync(at('cli', `${name}.svg`), 'utf8')).toMatch(/^<svg[\s\S]*sparsevila[\s\S]*<\/svg>$/);
      const { width = 0, height = 0, format } = await sharp(at('cli', `${name}.png`)).metadata();
      expect([format, width > 400, height > 200]).toEqual(['png', true, true]);
    }
    expect(readdirSync(at('cli')).filter((name) => name.endsWith('.new'))).toEqual([]);
    const other = await cli([...EVALUATE, '--out', at('cli'), '--protocol', 'chat']);
    expect([other.code, other.stderr]).toEqual([
      1,
      expect.stringMatching(/ERR_RESUME_MISMATCH.*protocol is "forget" there/),
    ]);
  });

  it('Ctrl-C stops it, and the message says how to continue', async () => {
    const long = ['evaluate', '--scenes', '400', '--turns', '2', '--methods', 'sparsevila', '--out', at('stopped')];
    const { child, ended, shows } = startCli(long);
    await shows(/evaluate: 0 %/);
    child.kill('SIGINT');
    const { code, stderr } = await ended;
    expect(code).toBe(130);
    expect(stderr).toContain('The same command continues from here.');
  });

  it.each([
    ['a folder that cannot be made', '/proc/none/x', /ERR_OUTPUT_UNWRITABLE/],
    ['a file in place of a folder', 'file/x', /ERR_OUTPUT_UNWRITABLE/],
    ['a folder in place of the results', 'folder', /ERR_FILE_UNREADABLE.*results\.jsonl.*directory/],
    ['results that are damaged', 'damaged', /ERR_RESUME_MISMATCH/],
  ])('refuses %s before the model is loaded', async (_name, out, message) => {
    mkdirSync(at('folder', 'results.jsonl'), { recursive: true });
    mkdirSync(at('damaged'), { recursive: true });
    writeFileSync(at('file'), '');
    writeFileSync(at('damaged', 'results.jsonl'), 'garbage\n{"x":\n');
    const { code, stderr } = await cli(['evaluate', '--scenes', '1', '--out', out.startsWith('/') ? out : at(out)]);
    expect([code, stderr]).toEqual([1, expect.stringMatching(message)]);
  });

  it("asks a user's own questions", async () => {
    const turns = [{ question: 'What is at b4?', answer: 'red F', kind: 'at' }];
    writeFileSync(at('set.jsonl'), JSON.stringify({ images: [scene(0)], turns }));
    const { stdout } = await cli([
      'evaluate',
      '--data',
      at('set.jsonl'),
      '--methods',
      'dense',
      '--json',
      '--out',
      at('own'),
    ]);
    const [row] = (JSON.parse(stdout) as { rows: MethodSummary[] }).rows;
    expect(row).toMatchObject({ accuracy: 1, accuracyByKind: { at: 1 } });
  });

  it('names the line of a picture that cannot be decoded', async () => {
    const turns = [{ question: 'What is at b4?', answer: 'red F' }];
    const lines = [scene(0), brokenImage('truncated.png')].map((path) => JSON.stringify({ images: [path], turns }));
    writeFileSync(at('broken.jsonl'), lines.join('\n'));
    const { code, stderr } = await cli([
      'evaluate',
      '--data',
      at('broken.jsonl'),
      '--methods',
      'dense',
      '--out',
      at('broken'),
    ]);
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/ERR_DATA_SET: .*broken\.jsonl:2: .*corrupt or truncated/),
    ]);
  });

  it('asks the film model about films, by length and by place', async () => {
    const films = ['--frames', '2,6', '--scenes', '2', '--turns', '4', '--methods', 'sparsevila'];
    const { code, stdout } = await cli(['evaluate', ...films, '--json', '--out', at('films')]);
    expect(code).toBe(0);
    const { rows } = JSON.parse(stdout) as { rows: MethodSummary[] };
    // The ratios of films: 2.5 % of the visual tokens are active at decode.
    expect(rows.map(({ activeDecode }) => activeDecode)).toEqual([400, 10]);
    for (const { accuracy, films: lengths = [] } of rows) {
      expect(accuracy).toBe(1);
      expect(lengths.map(({ frames }) => frames)).toEqual([2, 6]);
      expect(lengths.flatMap(({ accuracyByPlace }) => accuracyByPlace).filter((one) => one !== null)).not.toEqual([]);
    }
    for (const name of ['length', 'place']) expect(existsSync(join(at('films'), `accuracy-by-${name}.svg`))).toBe(true);
  });

  it('measures ratios of equal time once, and stores them', async () => {
    const args = ['evaluate', '--scenes', '2', '--turns', '1', '--methods', 'visionzip', '--equal', 'time', '--json'];
    const run = async () => (await cli([...args, '--out', at('time')])).stdout;
    const first = await run();
    const { rows } = JSON.parse(first ?? '') as { rows: MethodSummary[] };
    expect(rows).toHaveLength(2);
    expect(rows[1]).toMatchObject({ method: 'visionzip', decodeSparsity: 0 });
    expect(await run()).toBe(first);
  });

  it.each([
    [['--equal', 'active=2'], /ERR_OPTION_INVALID: Expected active=SHARES/],
    [['--equal', 'speed'], /Expected active=SHARES.*received speed/],
    [['--methods', 'none'], /Expected methods among dense, .*received none/],
    [['--ratios', '60'], /Expected ratios PREFILL\/DECODE.*received 60/],
    [['--data', 'x.jsonl', '--scenes', '3'], /Expected no --scenes with --data/],
    [['--max-tokens', '0'], /for --max-tokens, received 0/],
    [['--scenes', '1e9'], /from 1 to 100000 for scenes, received 1000000000/],
    [['--seed', '-1'], /for --seed, received -1/],
    [['--score', 'bleu'], /Expected one of exact, .* for --score/],
    [['--frames', '1e6', '--scenes', '1'], /for frames, received 1000000/],
    [['--frames', '4,', '--scenes', '1'], /Expected comma-separated integers of at least 1 for --frames/],
    [['--frames', '4', '--things', '5'], /Expected FEWEST-MOST, such as 1-5, for --things, received 5/],
    [['--things', '1-3'], /Expected --things with films, .*received it without/],
  ])('refuses %j', async (args, message) => {
    const { code, stderr } = await cli(['evaluate', ...args]);
    expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
  });
});

describe('tune', () => {
  const grid = { prefill: [0, 0.6, 0.9], decode: [0, 0.75, 0.9] };
  const options = {
    data: DATA,
    method: methodEntry('sparsevila'),
    positions: 'original',
    seed: 1,
    maxTokens: 64,
    grid,
  } as const;

  it('walks the border of the grid and takes the most aggressive ratios that keep the goal', async () => {
    const tuned = await tune({ model, ...options, goal: { measure: 'agreement', least: 0.8 } });
    expect(tuned?.best.value).toBeGreaterThanOrEqual(0.8);
    expect(tuned?.tried.length).toBeLessThanOrEqual(5);
    const active = ({ prefillSparsity: p, decodeSparsity: d }: { prefillSparsity: number; decodeSparsity: number }) =>
      1 - p + (1 - p) * (1 - d);
    for (const one of tuned?.tried ?? [])
      if (one.value !== undefined) expect(active(one)).toBeGreaterThanOrEqual(active(tuned?.best ?? one));
    const { prefillSparsity = 0, decodeSparsity = 0, value } = tuned?.best ?? {};
    const [, row] = await run('tuned', { settings: [DENSE, { ...SPARSE, prefillSparsity, decodeSparsity }] });
    expect(row?.agreement).toBeCloseTo(value ?? Number.NaN, 4);
  });

  it('returns no sparsity if nothing else reaches the goal, and an error if even that fails', async () => {
    const all = await tune({
      model,
      ...options,
      goal: { measure: 'agreement', least: 1 },
      grid: { prefill: [0, 0.99], decode: [0, 0.99] },
    });
    expect(all?.best).toEqual({ prefillSparsity: 0, decodeSparsity: 0, value: 1 });
    const data = {
      ...DATA,
      conversations: DATA.conversations.map((one) => ({
        ...one,
        turns: one.turns.map((turn) => ({ ...turn, answer: 'x' })),
      })),
    };
    expect(await tune({ model, ...options, data, goal: { measure: 'accuracy', least: 0.5 } })).toBeUndefined();
  });

  it('does not tune a stage that the method does not have', async () => {
    const method = METHODS.find(({ uses }) => uses.prefill && !uses.decode);
    if (method === undefined) throw new Error('expected a method that only prunes');
    const tuned = await tune({ model, ...options, method, goal: { measure: 'agreement', least: 0.1 } });
    for (const { decodeSparsity } of tuned?.tried ?? []) expect(decodeSparsity).toBe(0);
  });

  it('prints options to paste', async () => {
    const { code, stdout } = await cli(['tune', '--scenes', '2', '--turns', '2', '--keep', 'agreement=0.5']);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /sparseVila\(\{ prefillSparsity: [\d.]+, decodeSparsity: [\d.]+, positions: 'original' \}\)/,
    );
    expect(stdout).toMatch(
      /sparsevila ask --method sparsevila --prefill-sparsity [\d.]+ --decode-sparsity [\d.]+ --positions original/,
    );
    const wrong = await cli(['tune', '--keep', 'speed=2']);
    expect(wrong.stderr).toMatch(/Expected agreement=SHARE or accuracy=SHARE.*received speed=2/);
  });
});
