// Soak test of queues: workers in separate processes answer questions about the packaged picture while one of them is killed every 20 s.
//   node dist/scripts/soak_jobs.js redis|postgres [jobs] [workers] [seconds between kills]
// Checks that each job has one result and that it is the answer of the same question asked alone. Prints one line of JSON.

import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { load, openQueue, PACKAGED_MODEL, PACKAGED_PICTURE, sparseVila } from '../src/index';
import type { JobResult } from '../src/jobs/job';
import { postgresServer, redisServer } from '../testing/servers';

const QUESTIONS = ['Where is the yellow 2?', 'Read row 7.', 'How many orange objects are there?'];

async function answersAlone(): Promise<string[]> {
  const model = await load(PACKAGED_MODEL);
  const answers: string[] = [];
  for (const question of QUESTIONS) {
    const chat = model.session({ method: sparseVila() });
    answers.push(await chat.ask(question, { images: [PACKAGED_PICTURE] }));
    chat.dispose();
  }
  model.dispose();
  return answers;
}

async function main([kind = 'redis', count = '1000', workers = '3', pause = '20']: readonly string[]): Promise<void> {
  const expected = await answersAlone();
  const server = await (kind === 'redis' ? redisServer() : postgresServer());
  const cli = join(__dirname, '../src/cli/main.js');
  const start = (): ChildProcess =>
    spawn(process.execPath, [cli, 'worker', `--${kind}`, server.url, '--model-name', 'soak'], { stdio: 'ignore' });
  const children = Array.from({ length: Number(workers) }, start);
  const queue = await openQueue({ [kind]: server.url, model: 'soak' });
  const begin = Date.now();
  let kills = 0;
  const killer = setInterval(() => {
    const at = kills++ % children.length;
    children[at]?.kill('SIGKILL');
    children[at] = start();
  }, Number(pause) * 1000);
  const ids = Array.from({ length: Number(count) }, (_, i) => `question ${i}`);
  const questionOf = (i: number): string => QUESTIONS[i % QUESTIONS.length] as string;
  await queue.enqueue(
    ids.map((id, i) => ({
      id,
      request: {
        messages: [{ role: 'user', content: [{ kind: 'image', image: PACKAGED_PICTURE }, questionOf(i)] }],
      },
    })),
  );
  const results = new Map<string, JobResult[]>();
  for await (const result of queue.results(ids)) results.set(result.id, [...(results.get(result.id) ?? []), result]);
  clearInterval(killer);
  const seconds = (Date.now() - begin) / 1000;
  const counts = await queue.counts();
  const right = ids.filter((id, i) => {
    const [only, ...others] = results.get(id) ?? [];
    return others.length === 0 && only?.status === 'done' && only.text === expected[i % expected.length];
  }).length;
  await queue.close();
  for (const child of children) child.kill('SIGTERM');
  await Promise.all(children.map((child) => new Promise((done) => child.once('exit', done))));
  await server.stop();
  process.stdout.write(`${JSON.stringify({ kind, jobs: ids.length, right, counts, kills, seconds })}\n`);
  process.exitCode = right === ids.length && counts.completed === ids.length ? 0 : 1;
}

main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exitCode = 1;
});
