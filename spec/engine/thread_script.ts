// A script for thread.spec.ts: what an engine's thread does to the end of a process.

import { openEngine } from '../../src';
import { scene, TINY } from '../support/assets';

const messages = [{ role: 'user' as const, content: [{ kind: 'image' as const, image: scene(0) }, 'What is at b4?'] }];

async function main(how: string | undefined): Promise<void> {
  const engine = await openEngine(TINY);
  const events = engine.run({ messages, temperature: 2, maxTokens: 500 });
  await events.next();
  if (how === 'exit') process.exit(7);
  if (how === 'throw') throw new Error('of the program');
  for await (const event of events) if (event.type === 'end') console.log('answered');
  if (how === 'close') await engine.close();
  // With 'idle' the engine stays open.
}

void main(process.argv[2]);
