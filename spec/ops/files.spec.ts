// Files that change while ops read them: an error that names the file, never a crash, never half-old half-new weights.

import { appendFileSync, mkdtempSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { codeOf, messageOf } from '../../src/errors';
import { floats } from '../../src/ops/run';
import { dequantize, loadTensor, packInt4, packInt8, packMatrix } from '../../src/ops/weights';
import { start } from '../../src/runtime/start';
import type { Tensor } from '../../src/runtime/tensor';

const [ROWS, K] = [48, 128];
const BYTES = ROWS * K * 4;
const folder = mkdtempSync(join(tmpdir(), 'sparsevila-files-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Each op that reads the first bytes of a source. */
const OPS: readonly (readonly [string, (source: number) => { dispose(): unknown }])[] = [
  ['SvLoad f32', (source) => loadTensor({ source, offset: 0, type: 'f32' }, [ROWS, K])],
  ['SvLoad bf16', (source) => loadTensor({ source, offset: 0, type: 'bf16' }, [2 * ROWS, K])],
  ['SvPack', (source) => packMatrix([{ source, offset: 0, type: 'f32', rows: ROWS }], K).tensor],
  ['SvPackInt8', (source) => packInt8([{ source, offset: 0, type: 'f32', rows: ROWS }], K).tensor],
  [
    'SvPackInt4',
    (source) =>
      packInt4(
        [
          {
            rows: ROWS,
            weight: { source, offset: 0 },
            scales: { source, offset: 8192 },
            zeros: { source, offset: 16384 },
          },
        ],
        { format: 'gptq', k: K, group: 32, storedGroup: 32, scaleType: 'f16' },
      ).tensor,
  ],
];

/** Opens a file of zeros, applies `change` to it, then calls `use`. */
function withChanged<T>(change: (file: string) => void, use: (source: number) => T): T {
  const file = join(folder, 'weights');
  writeFileSync(file, new Uint8Array(BYTES));
  const { native } = start();
  const source = native.openFile(file);
  try {
    change(file);
    return use(source);
  } finally {
    native.release(source);
  }
}

function errorOf(body: () => unknown): { code: string | undefined; message: string } {
  try {
    body();
  } catch (error) {
    return { code: codeOf(error), message: messageOf(error) };
  }
  return { code: undefined, message: 'nothing was thrown' };
}

describe.each(OPS)('%s', (_name, make) => {
  test('reads a file that does not change', () => {
    expect(() => withChanged(() => undefined, make).dispose()).not.toThrow();
  });

  test.each<readonly [string, (file: string) => void]>([
    ['cut to nothing', (file) => truncateSync(file, 0)],
    ['cut within the tensor', (file) => truncateSync(file, 5000)],
    ['longer', (file) => appendFileSync(file, 'more')],
    ['of another date', (file) => utimesSync(file, 1, 1)],
  ])('refuses a file that is %s, and names it', (_what, change) => {
    const error = withChanged(change, (source) => errorOf(() => make(source)));
    expect(error).toEqual({ code: 'ERR_FILE_CHANGED', message: expect.stringContaining(join(folder, 'weights')) });
  });
});

test('a missing file or one that is not regular cannot be opened', () => {
  const { native } = start();
  for (const path of [folder, '/dev/null', join(folder, 'none')]) {
    const error = errorOf(() => native.openFile(path));
    expect(error).toEqual({ code: 'ERR_FILE_UNREADABLE', message: expect.stringContaining(path) });
  }
});

test('weights at odd offsets of a file have the same values', () => {
  const file = join(folder, 'odd');
  const data = Buffer.from(Float32Array.from({ length: ROWS * K }, (_, i) => i - 1000).buffer);
  const { native } = start();
  /** The values that `use` makes of the data, `offset` bytes into a file. */
  const read = (offset: number, use: (source: number) => Tensor): Float32Array => {
    writeFileSync(file, Buffer.concat([Buffer.alloc(offset), data]));
    const source = native.openFile(file);
    const tensor = use(source);
    native.release(source);
    const values = floats(tensor);
    tensor.dispose();
    return values;
  };
  for (const type of ['f32', 'f16', 'bf16'] as const) {
    const rows = type === 'f32' ? ROWS : 2 * ROWS;
    const load = (offset: number) => read(offset, (source) => loadTensor({ source, offset, type }, [rows, K]));
    const pack = (offset: number) =>
      read(offset, (source) => {
        const packed = packMatrix([{ source, offset, type, rows }], K);
        const values = dequantize(packed);
        packed.tensor.dispose();
        return values;
      });
    for (const values of [load, pack]) for (const offset of [1, 2, 3]) expect(values(offset)).toEqual(values(0));
  }
});
