// 5,000 random calls of the public API in one process: every error has a documented code, and all memory comes back.
// `FUZZ_CALLS` is the number of calls, and `FUZZ_SEED` determines them.

import { load, sparseVila } from '../src';
import { start } from '../src/runtime/start';
import { scene, TINY, vilaCase } from './support/assets';
import { fuzz } from './support/fuzz';
import { countTensors } from './support/leaks';

const CALLS = Number(process.env.FUZZ_CALLS ?? 5000);
const SEED = Number(process.env.FUZZ_SEED ?? 1);

const bytes = (): number => (start().tf.memory() as { numTensors: number; numBytes?: number }).numBytes ?? 0;

it(`${CALLS} calls, seed ${SEED}: every error has a code, and no tensor is left`, async () => {
  // Constants that are made once per process are made here.
  for (const path of [TINY, vilaCase('linear')]) {
    const model = await load(path);
    using chat = model.session({ method: sparseVila() });
    await chat.ask('What is at b4?', { images: [scene(0)], maxTokens: 2 });
    chat.dispose();
    model.dispose();
  }
  const before = { ...countTensors(), bytes: bytes() };
  const { faults, outcomes } = await fuzz(SEED, CALLS);
  expect(faults).toEqual([]);
  expect({ ...countTensors(), bytes: bytes() }).toEqual(before);
  // The fuzzer reaches the states that it is meant to test.
  const { ok = 0, aborted = 0, ERR_OPTION_INVALID = 0, ERR_BUSY = 0, ERR_DISPOSED = 0, ERR_MARK = 0 } = outcomes;
  expect(ok).toBeGreaterThan(CALLS / 10);
  for (const count of [aborted, ERR_OPTION_INVALID, ERR_BUSY, ERR_DISPOSED, ERR_MARK]) expect(count).toBeGreaterThan(0);
  if (process.env.FUZZ_CALLS !== undefined) console.log(outcomes);
});
