// Random faults of the Hub and of the connection: a download ends whole or with a documented code, and the next one without faults completes it.
// `FUZZ_RUNS` and `FUZZ_SEED` say how many, and which.

import { ERROR_CODES } from '../../src/errors';
import { uniform } from '../../src/text/random';
import type { Fault } from '../support/hub';
import { expectWhole, type Scratch, scratchHub } from '../support/hub_model';

const RUNS = Number(process.env.FUZZ_RUNS ?? 10);
const SEED = Number(process.env.FUZZ_SEED ?? 1);

let scratch: Scratch;
beforeEach(async () => {
  scratch = await scratchHub();
});
afterEach(() => scratch.remove());

test(`${RUNS} downloads, seed ${SEED}`, async () => {
  const random = uniform(SEED);
  const upTo = (most: number): number => Math.floor(random() * most);
  const faults: readonly (() => Fault)[] = [
    () => ({ status: [400, 401, 403, 404, 408, 416, 429, 500, 503][upTo(9)] ?? 500 }),
    () => ({ status: 302, headers: { location: ['/', 'x', 'ftp://x', '//', 'http://127.0.0.1:1/'][upTo(5)] ?? '/' } }),
    () => ({ status: 200, body: ['', '{}', '[]', 'null', '<html>', '[{"type":"file"}]'][upTo(6)] ?? '' }),
    () => ({ breakAfter: upTo(3_000_000) }),
    () => ({ endAfter: upTo(3_000_000) }),
    () => ({ noRanges: true }),
    () => ({ bytes: (right) => Buffer.concat([right.subarray(0, upTo(right.length)), right]) }),
    () => ({ bytes: (right) => Buffer.from(right.map((byte, i) => (i % 1000 === 7 ? byte ^ 1 : byte))) }),
  ];
  const ends: Record<string, number> = {};
  for (let run = 0; run < RUNS; run++) {
    const share = random() * 0.3;
    scratch.hub.misbehave(() => (random() < share ? faults[upTo(faults.length)]?.() : undefined));
    const end = await scratch.fetchModel().then(
      ({ folder }) => {
        expectWhole(folder);
        return 'whole';
      },
      (error: { code: string }) => error.code,
    );
    ends[end] = (ends[end] ?? 0) + 1;
    expect(end === 'whole' || end in ERROR_CODES).toBe(true);
    expect(end).not.toBe('ERR_INTERNAL');
    scratch.hub.misbehave(() => undefined);
    expectWhole((await scratch.fetchModel()).folder);
    await scratch.remove();
    scratch = await scratchHub();
  }
  // The faults are neither too few nor too many.
  expect(ends.whole).toBeGreaterThan(0);
  expect(Object.keys(ends).length).toBeGreaterThan(2);
  if (process.env.FUZZ_RUNS !== undefined) console.log(ends);
});
