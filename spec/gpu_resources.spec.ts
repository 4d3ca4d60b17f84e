// The registers, spills and loads in flight of every kernel of the GPU's library are those that scripts/gpu/resources.tsv keeps. The library
// is compiled wherever there is an nvcc; another version of it than the file's may give other figures.
import { readFileSync } from 'node:fs';
import { cubinsOf, followCode } from '../scripts/gpu/cubin';
import { RESOURCES_FILE, resources } from '../scripts/gpu/resources';
import { findCuda } from '../src/runtime/cuda';
import { ensureDeviceLibrary } from '../src/runtime/device_library';
import { findLibtensorflow } from '../src/runtime/libtensorflow';

const kept = readFileSync(RESOURCES_FILE, 'utf8');
const isSameCompiler = `nvcc ${findCuda()?.version}` === kept.slice(0, kept.indexOf('\n'));

(isSameCompiler ? test : test.skip)(
  'kernels take the registers that the file keeps, and have its loads in flight',
  async () => {
    const libtensorflow = findLibtensorflow();
    if (libtensorflow === undefined) throw new Error('Expected libtensorflow to be set up.');
    const { path, cuda = '' } = await ensureDeviceLibrary('gpu', libtensorflow);
    // After an intended change: `npm run build && node dist/scripts/gpu/resources.js --write`.
    expect(resources(path, cuda)).toBe(kept);
  },
);

/** An instruction: its opcode, the scoreboard that it sets (7: none), those it waits for, and its width field. */
function instruction(opcode: number, sets = 7, waits = 0, width = 6): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt16LE(opcode, 0);
  bytes.writeBigUInt64LE((BigInt(sets) << 46n) | (BigInt(waits) << 52n) | BigInt(width << 9), 8);
  return bytes;
}

test('a load is in flight until an instruction waits for its scoreboard', () => {
  const [load, product, spill] = [0x981, 0x23c, 0x387];
  const code = [
    instruction(load, 0),
    instruction(load, 0, 0, 4),
    instruction(load, 1),
    instruction(product, 7, 1), // waits for the first two
    instruction(load, 2),
    instruction(spill),
  ];
  expect(followCode(Buffer.concat(code))).toEqual({
    ...{ instructions: 6, spills: 1, products: 1 },
    ...{ loads: 3, loadBytes: 36 },
  });
});

test('what is no library has no kernels', () => {
  expect(cubinsOf(Buffer.from('no fat binary'))).toEqual([]);
  expect(cubinsOf(Buffer.from([0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0, 255, 0, 0, 0, 0, 0, 0, 0]))).toEqual([]);
});
