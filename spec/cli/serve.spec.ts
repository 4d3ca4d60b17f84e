// `sparsevila serve`: it prints its address, SIGTERM lets a running answer finish, and the process ends with 0.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { TINY } from '../support/assets';
import { MAIN } from './run';

it('serves until SIGTERM, which finishes the running answer', async () => {
  const server = spawn(process.execPath, [MAIN, 'serve', TINY, '--port', '0', '--model-name', 'mine'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exit = once(server, 'exit');
  const [line] = (await once(server.stdout, 'data')) as [Buffer];
  const url = line.toString().trim();
  const body = {
    model: 'mine',
    stream: true,
    messages: [{ role: 'user', content: 'Count.' }],
    n: 4,
    max_tokens: 40,
    temperature: 2,
  };
  const response = await fetch(`${url}/v1/chat/completions`, {
    ...{ method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) },
  });
  server.kill('SIGTERM');
  expect((await response.text()).trimEnd().endsWith('data: [DONE]')).toBe(true);
  expect(await exit).toEqual([0, null]);
});
