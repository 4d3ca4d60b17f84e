// Turns errors of TensorFlow, its binding and the native module into SparseVilaErrors: every native call goes through `guardModule`, so that
// every error of an op has a code.

import { types } from 'node:util';
import { codeOf, ERROR_CODES, type ErrorCode, messageOf, SparseVilaError } from '../errors';

/** TF_Code (tensorflow/c/tf_status.h) to our code; all others are ERR_OP. */
const STATUS_CODES: Readonly<Record<number, ErrorCode>> = {
  8: 'ERR_OUT_OF_MEMORY', // TF_RESOURCE_EXHAUSTED
  14: 'ERR_FILE_UNREADABLE', // TF_UNAVAILABLE: native/ops/source.cc
  15: 'ERR_FILE_CHANGED', // TF_DATA_LOSS: native/ops/source.cc
};

/** How the binding reports the status of an op. */
const STATUS = /^Invalid TF_Status: (\d+)\s+Message: (.*)$/s;

/** The coded error for an error that `call`, the name of an op or native function, threw; an error with one of our codes stays unchanged. */
export function opError(call: string, cause: unknown): SparseVilaError {
  if (cause instanceof SparseVilaError) return cause;
  const text = messageOf(cause);
  const [, status, reason = text] = STATUS.exec(text) ?? [];
  const code = status === undefined ? undefined : (STATUS_CODES[Number(status)] ?? 'ERR_OP');
  const plain = withoutPlacement(reason);
  if (code?.startsWith('ERR_FILE')) return new SparseVilaError(code, plain, { cause }); // it begins with the file's path
  const message = `${call}: ${plain}`;
  if (code !== undefined) return new SparseVilaError(code, message, { cause });
  const own = codeOf(cause);
  if (own !== undefined && own in ERROR_CODES) return new SparseVilaError(own as ErrorCode, text, { cause });
  if (text === 'Tensor is disposed.') return new SparseVilaError('ERR_DISPOSED', message, { cause });
  if ((types.isNativeError(cause) && cause.name === 'RangeError') || /allocation failed|out of memory/i.test(text))
    return new SparseVilaError('ERR_OUT_OF_MEMORY', message, { cause });
  return new SparseVilaError('ERR_OP', message, { cause });
}

/** TensorFlow's message without the location of the op, which is useless to a reader: `{{function_node …}} … [Op:SvPack] name: `. */
function withoutPlacement(message: string): string {
  return message
    .replace(/^\{\{function_node .*?\}\}\s*/s, '')
    .replace(/\s*\[Op:\w+\](\s+name:\s*\S*)?\s*$/, '')
    .trim();
}

/** Runs `body`, a native call. Throws only SparseVilaErrors. */
export function guard<T>(call: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw opError(call, error);
  }
}

type Function = (...args: readonly unknown[]) => unknown;

/**
 * A native module whose functions throw coded errors only; its constants are copied.
 * @param nameOf the name of a function in errors; default the function's own name
 */
export function guardModule<T extends object>(
  module: T,
  nameOf: (name: string, args: readonly unknown[]) => string = (name) => name,
): T {
  const guarded: Record<string, unknown> = {};
  for (const name of Object.getOwnPropertyNames(module)) {
    const value = (module as Record<string, unknown>)[name];
    guarded[name] = typeof value === 'function' ? guardFunction(name, value as Function, nameOf) : value;
  }
  return guarded as T;
}

function guardFunction(
  name: string,
  call: Function,
  nameOf: (name: string, args: readonly unknown[]) => string,
): Function {
  return (...args) => {
    try {
      return call(...args);
    } catch (error) {
      throw opError(nameOf(name, args), error);
    }
  };
}
