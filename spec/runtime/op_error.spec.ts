// Errors of native code: each failure has a code, and names the call and the reason.

import { codeOf, messageOf, SparseVilaError } from '../../src/errors';
import { float32, floats, int32, run } from '../../src/ops/run';
import { guard, guardModule, opError } from '../../src/runtime/op_error';
import { start } from '../../src/runtime/start';

test.each([
  [3, 'ERR_OP'],
  [5, 'ERR_OP'],
  [8, 'ERR_OUT_OF_MEMORY'],
  [13, 'ERR_OP'],
  [14, 'ERR_FILE_UNREADABLE'],
  [15, 'ERR_FILE_CHANGED'],
])('status %d is %s', (status, code) => {
  const cause = new Error(
    `Invalid TF_Status: ${status}\nMessage: {{function_node __wrapped__SvPack_device_/job:x/device:CPU:0}} /a/b: why [Op:SvPack] name: `,
  );
  const error = opError('SvPack', cause);
  expect(error).toBeInstanceOf(SparseVilaError);
  expect(error.code).toBe(code);
  expect(error.message).toBe(code.startsWith('ERR_FILE') ? '/a/b: why' : 'SvPack: /a/b: why');
  expect(error.cause).toBe(cause);
});

test.each<readonly [unknown, string]>([
  [new RangeError('Array buffer allocation failed'), 'ERR_OUT_OF_MEMORY'],
  [new RangeError('Invalid typed array length: 1e20'), 'ERR_OUT_OF_MEMORY'],
  [new Error('Tensor is disposed.'), 'ERR_DISPOSED'],
  [new TypeError('x is not a function'), 'ERR_OP'],
  [Object.assign(new Error('no'), { code: 'ERR_BAD_ISA' }), 'ERR_BAD_ISA'],
  [Object.assign(new Error('no'), { code: 'ENOENT' }), 'ERR_OP'],
  ['text', 'ERR_OP'],
  [undefined, 'ERR_OP'],
])('%s is %s', (cause, code) => expect(opError('call', cause).code).toBe(code));

test('an error with one of our codes stays the same', () => {
  const error = new SparseVilaError('ERR_BUSY', 'busy');
  expect(opError('call', error)).toBe(error);
  expect(guard('call', () => 7)).toBe(7);
});

test('a guarded module keeps its constants and passes arguments and results', () => {
  const module = guardModule({
    seven: 7,
    add: (a: number, b: number) => a + b,
    fail: () => {
      throw new Error('no');
    },
  });
  expect(module.seven).toBe(7);
  expect(module.add(1, 2)).toBe(3);
  expect(() => module.fail()).toThrow(expect.objectContaining({ code: 'ERR_OP', message: 'fail: no' }));
});

function codeThrown(body: () => unknown): string | undefined {
  try {
    body();
  } catch (error) {
    if (!(error instanceof SparseVilaError)) throw new Error(`no code: ${messageOf(error)}`);
    return codeOf(error);
  }
  return undefined;
}

test('every failing call throws an error with a code', () => {
  const { tf, backend, native } = start();
  const x = float32([1, 2], [2]);
  const one = float32([1], [1]);
  const gone = float32([1], [1]);
  gone.dispose();
  expect(codeThrown(() => run('SvNone', [x]))).toBe('ERR_OP');
  expect(codeThrown(() => run('SvRmsNorm', [x]))).toBe('ERR_OP');
  expect(codeThrown(() => run('SvRmsNorm', [x, x, x]))).toBe('ERR_OP');
  expect(codeThrown(() => run('SvRmsNorm', [gone, x, x]))).toBe('ERR_DISPOSED');
  expect(codeThrown(() => floats(gone))).toBe('ERR_DISPOSED');
  expect(codeThrown(() => float32([1, 2, 3], [2]))).toBe('ERR_OP');
  expect(codeThrown(() => int32({ length: 2 ** 33 } as unknown as number[]))).toBe('ERR_OUT_OF_MEMORY');
  expect(codeThrown(() => backend.binding.executeOp('AddV2', [], [], 1))).toBe('ERR_OP');
  expect(codeThrown(() => backend.binding.deleteTensor(-1))).toBe('ERR_OP');
  expect(codeThrown(() => tf.gather(x, int32([7]) as never).dataSync())).toBe('ERR_OP');
  expect(codeThrown(() => native.openFile('/none/such'))).toBe('ERR_FILE_UNREADABLE');
  expect(codeThrown(() => native.openMemory('text' as unknown as Uint8Array))).toBe('ERR_OP');
  expect(codeThrown(() => native.isa('none'))).toBe('ERR_BAD_ISA');
  expect(codeThrown(() => native.loadDevice('/none/such.so'))).toBe('ERR_OP');
  // No machine has 2^46 bytes, so TensorFlow's allocator fails.
  expect(codeThrown(() => run('Fill', [int32([2 ** 22, 2 ** 22]), tf.reshape(one, [])]))).toBe('ERR_OUT_OF_MEMORY');
  x.dispose();
});
