// Checkpoint index: the packaged weights, shards, and every kind of inconsistent file.
import { mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { openCheckpoint, readSafetensorsHeader, readTensor } from '../../src/checkpoint/safetensors';
import { withFolder } from '../text/vocabularies';

const TINY = join(__dirname, '../../../assets/tiny-nvila');

/** A file with a header (object or raw text) and the given number of data bytes, or the given bytes. */
function file(header: unknown, data: number | Uint8Array = 0): Uint8Array {
  const text = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, typeof data === 'number' ? Buffer.alloc(data) : data]);
}

const tensor = (dtype: unknown, shape: unknown, ...span: unknown[]) => ({ dtype, shape, data_offsets: span });
const read = (bytes: Uint8Array) =>
  withFolder({ 'w.safetensors': bytes }, (folder) => readSafetensorsHeader(join(folder, 'w.safetensors')));
const error = (message: RegExp, code = 'ERR_CHECKPOINT_INVALID') =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

describe('readSafetensorsHeader', () => {
  it('reads the packaged weights', () => {
    const entries = readSafetensorsHeader(join(TINY, 'llm/model.safetensors'));
    const embed = entries.find(({ name }) => name === 'model.embed_tokens.weight');
    expect(embed).toMatchObject({ dtype: 'BF16', shape: [448, 256], bytes: 448 * 256 * 2 });
    const values = readTensor(embed ?? { name: '', file: '', dtype: 'F32', shape: [], offset: 0, bytes: 0 });
    expect(values).toHaveLength(448 * 256);
    expect(values.every(Number.isFinite)).toBe(true);
  });

  it('gives absolute offsets in order of the bytes; scalars and empty tensors are fine', () => {
    const header = {
      __metadata__: { format: 'pt' },
      b: tensor('F32', [2], 4, 12),
      a: tensor('I32', [], 0, 4),
      none: tensor('U8', [0, 3], 4, 4),
    };
    const start = 8 + JSON.stringify(header).length;
    expect(read(file(header, 12)).map(({ name, offset, bytes }) => [name, offset - start, bytes])).toEqual([
      ['a', 0, 4],
      ['none', 4, 0],
      ['b', 4, 8],
    ]);
    expect(read(file({}))).toEqual([]);
  });

  it.each<[string, Uint8Array, RegExp]>([
    ['is empty', new Uint8Array(0), /w\.safetensors: expected at least 8 bytes, received 0/],
    ['ends within the length', new Uint8Array(7), /at least 8 bytes, received 7/],
    [
      'is something else',
      new Uint8Array(100).fill(0x50),
      /a header of at most 100000000 bytes.*is this a safetensors file/,
    ],
    [
      'ends within the header',
      file({ a: tensor('F32', [1], 0, 4) }).subarray(0, 20),
      /truncated: the header alone needs \d+ bytes, the file has 20/,
    ],
    ['has a header that is not JSON', file('{"a"'), /the header is not JSON/],
    [
      'has a header that is not UTF-8',
      Buffer.concat([file('"').subarray(0, 8), Buffer.of(0xff)]),
      /the header is not UTF-8/,
    ],
    ['has a header that is no object', file('[]'), /a JSON object as header/],
    [
      'has an entry that is no object',
      file({ a: 1 }),
      /an object with dtype, shape and data_offsets for tensor "a", received 1/,
    ],
    [
      'has an unknown dtype',
      file({ a: tensor('F128', [1], 0, 1) }, 1),
      /a dtype of F64.*for tensor "a", received "F128"/,
    ],
    ['has a dtype of the prototype', file({ a: tensor('toString', [1], 0, 1) }, 1), /received "toString"/],
    ['has no dtype', file({ a: { shape: [1], data_offsets: [0, 4] } }, 4), /for tensor "a", received nothing/],
    [
      'has a negative shape',
      file({ a: tensor('F32', [-1], 0, 4) }, 4),
      /non-negative integers for tensor "a", received \[-1\]/,
    ],
    ['has a fractional shape', file({ a: tensor('F32', [1.5], 0, 6) }, 6), /received \[1\.5\]/],
    ['has a shape beyond reason', file({ a: tensor('F32', [2 ** 40, 2 ** 40], 0, 4) }, 4), /at most 2\^53 bytes/],
    [
      'has offsets of text',
      file({ a: tensor('F32', [1], '0', '4') }, 4),
      /data_offsets \[begin, end\] of non-negative integers/,
    ],
    ['has one offset', file({ a: tensor('F32', [1], 4) }, 4), /data_offsets \[begin, end\] for tensor "a"/],
    ['has offsets backwards', file({ a: tensor('F32', [1], 4, 0) }, 4), /4 bytes apart/],
    [
      'has offsets that do not fit the shape',
      file({ a: tensor('F32', [2, 3], 0, 20) }, 20),
      /24 bytes apart \(F32 × \[2, 3\]\) for tensor "a"/,
    ],
    [
      'is truncated',
      file({ a: tensor('F32', [2], 0, 8) }, 5),
      /truncated: (\d+) bytes are expected, (\d+) are present; tensor "a" is out of the file/,
    ],
    [
      'overlaps',
      file({ a: tensor('F32', [2], 0, 8), b: tensor('F32', [1], 4, 8) }, 8),
      /tensor "b" overlaps tensor "a" by 4 bytes/,
    ],
    [
      'has a hole at the start',
      file({ a: tensor('U8', [1], 3, 4) }, 4),
      /3 bytes belong to no tensor .* before tensor "a"/,
    ],
    [
      'has a hole',
      file({ a: tensor('U8', [1], 0, 1), b: tensor('U8', [1], 2, 3) }, 3),
      /1 bytes belong to no tensor .* before tensor "b"/,
    ],
    [
      'has data after the last tensor',
      file({ a: tensor('U8', [1], 0, 1) }, 9),
      /8 bytes belong to no tensor .* after tensor "a"/,
    ],
    [
      'has a name twice',
      file(
        '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}',
        8,
      ),
      /a name written twice/,
    ],
  ])('refuses a file that %s', (_, bytes, message) => {
    expect(() => read(bytes)).toThrow(error(message));
  });

  it('reports how many bytes a truncated file lacks', () => {
    const whole = file({ a: tensor('F32', [2], 0, 8) }, 8);
    expect(() => read(whole.subarray(0, whole.length - 3))).toThrow(
      error(new RegExp(`${whole.length} bytes are expected, ${whole.length - 3} are`)),
    );
  });

  it('names a file that is not there', () => {
    expect(() => readSafetensorsHeader('no/such.safetensors')).toThrow(
      error(/no\/such\.safetensors: cannot be read/, 'ERR_CHECKPOINT_MISSING'),
    );
  });
});

describe('readTensor', () => {
  const values = (dtype: string, data: Uint8Array, count: number): number[] =>
    withFolder({ 'model.safetensors': file({ a: tensor(dtype, [count], 0, data.length) }, data) }, (folder) => {
      const entry = openCheckpoint(folder).get('a');
      return entry === undefined ? [] : Array.from(readTensor(entry));
    });

  it('widens BF16, F16 and F32', () => {
    expect(values('F32', new Uint8Array(Float32Array.of(1.5, -2, 1e-40).buffer), 3)).toEqual([
      1.5,
      -2,
      Math.fround(1e-40),
    ]);
    expect(values('BF16', new Uint8Array(Uint16Array.of(0x3f80, 0xc040, 0x7f80, 0x0001).buffer), 4)).toEqual([
      1,
      -3,
      Infinity,
      2 ** -133,
    ]);
    const half = Uint16Array.of(0x3c00, 0xc000, 0x7bff, 0x0001, 0x03ff, 0x0400, 0xfc00, 0x7e00, 0x8000);
    expect(values('F16', new Uint8Array(half.buffer), half.length)).toEqual([
      1,
      -2,
      65504,
      2 ** -24,
      1023 * 2 ** -24,
      2 ** -14,
      -Infinity,
      Number.NaN,
      -0,
    ]);
  });

  it('refuses integers', () => {
    expect(() => values('I32', new Uint8Array(4), 1)).toThrow(
      error(/BF16, F16 or F32 for "a", received I32/, 'ERR_WEIGHT_DTYPE'),
    );
  });
});

describe('openCheckpoint', () => {
  const one = (name: string) => file({ [name]: tensor('U8', [2], 0, 2) }, 2);
  const open = (files: Record<string, unknown>) => withFolder(files, (folder) => [...openCheckpoint(folder).keys()]);
  const index = (map: Record<string, unknown>) => ({ metadata: {}, weight_map: map });

  it('opens the packaged folders', () => {
    for (const [folder, count] of [
      ['llm', 50],
      ['vision_tower', 85],
      ['mm_projector', 6],
    ] as const) {
      expect([folder, openCheckpoint(join(TINY, folder)).size]).toEqual([folder, count]);
    }
  });

  it('takes one file, shards, or a file of another name', () => {
    const shards = { 's1.safetensors': one('a'), 's2.safetensors': one('b') };
    const map = { 'model.safetensors.index.json': index({ b: 's2.safetensors', a: 's1.safetensors' }) };
    expect(open({ 'model.safetensors': one('whole'), ...map, ...shards })).toEqual(['whole']);
    expect(open({ ...map, ...shards })).toEqual(['a', 'b']);
    const swapped = { 'model.safetensors.index.json': index({ a: 's2.safetensors', b: 's1.safetensors' }) };
    expect(open({ ...swapped, ...shards })).toEqual(['a', 'b']);
    expect(
      open({ 'weights.safetensors': one('x'), '._weights.safetensors': 'left by macOS', 'notes.txt': '' }),
    ).toEqual(['x']);
  });

  it('reads shards in a subfolder', () => {
    const found = withFolder(
      { 's.safetensors': one('a'), 'model.safetensors.index.json': index({ a: 'sub/s.safetensors' }) },
      (folder) => {
        mkdirSync(join(folder, 'sub'));
        renameSync(join(folder, 's.safetensors'), join(folder, 'sub/s.safetensors'));
        return openCheckpoint(folder)
          .get('a')
          ?.file.slice(folder.length + 1);
      },
    );
    expect(found).toBe(join('sub', 's.safetensors'));
  });

  it.each<[string, Record<string, unknown>, RegExp, string]>([
    [
      'an index entry that no shard has',
      { x: 's1.safetensors' },
      /tensor "x" in .*s1\.safetensors, found it nowhere/,
      'ERR_CHECKPOINT_INVALID',
    ],
    ['a shard that is not there', { a: 's3.safetensors' }, /s3\.safetensors: cannot be read/, 'ERR_CHECKPOINT_MISSING'],
    [
      'a name in two shards',
      { a: 's1.safetensors', c: 'again.safetensors' },
      /tensor "a" is also in/,
      'ERR_CHECKPOINT_INVALID',
    ],
    [
      'a shard above the folder',
      { a: '../s1.safetensors' },
      /the shard of tensor "a" inside the folder, received "\.\.\/s1/,
      'ERR_CHECKPOINT_INVALID',
    ],
    ['a shard above, hidden', { a: 'x/../../s1.safetensors' }, /inside the folder/, 'ERR_CHECKPOINT_INVALID'],
    ['a shard at an absolute path', { a: '/etc/passwd' }, /inside the folder/, 'ERR_CHECKPOINT_INVALID'],
    ['a shard with backslashes', { a: '..\\s1.safetensors' }, /inside the folder/, 'ERR_CHECKPOINT_INVALID'],
    ['a shard that is no string', { a: 1 }, /a string for "weight_map\.a", received 1/, 'ERR_CONFIG_INVALID'],
  ])('refuses %s', (_, map, message, code) => {
    const files = { 's1.safetensors': one('a'), 's2.safetensors': one('b'), 'again.safetensors': one('a') };
    expect(() => open({ ...files, 'model.safetensors.index.json': index(map) })).toThrow(error(message, code));
  });

  it('refuses an adapter beside the weights, which transformers would apply', () => {
    expect(() => open({ 'model.safetensors': one('a'), 'adapter_config.json': '{}' })).toThrow(
      error(/adapter_config\.json: .*Merge it/, 'ERR_CONFIG_UNSUPPORTED'),
    );
  });

  it('reports what it found instead of weights', () => {
    expect(() => open({})).toThrow(error(/found no weights/, 'ERR_CHECKPOINT_MISSING'));
    expect(() => open({ 'pytorch_model.bin': 'x' })).toThrow(
      error(/found pytorch_model\.bin\. Convert/, 'ERR_CHECKPOINT_MISSING'),
    );
    expect(() => open({ 'a.safetensors': one('a'), 'b.safetensors': one('b') })).toThrow(
      error(/found 2 \*\.safetensors files and no index/, 'ERR_CHECKPOINT_MISSING'),
    );
    expect(() => openCheckpoint('no/such/folder')).toThrow(
      error(/no\/such\/folder: expected/, 'ERR_CHECKPOINT_MISSING'),
    );
    expect(() => open({ 'model.safetensors.index.json': {} })).toThrow(
      error(/an object from tensor name to shard for "weight_map"/, 'ERR_CONFIG_INVALID'),
    );
  });
});
