// A limit on the time of synchronous work on files of a checkpoint: regular expressions that backtrack, parsers that are quadratic.
// V8 ends the work wherever it is, inside a regular expression too. It is a backstop: what can be counted is counted elsewhere.
import { createContext, Script } from 'node:vm';
import { codeOf, type ErrorCode, SparseVilaError } from '../errors';

const CALL = new Script('work()');
const CONTEXT: { work: () => void } = { work: () => {} };
createContext(CONTEXT);

/**
 * The result of `work`, which is ended after `ms` milliseconds.
 * @throws SparseVilaError `code` with `message` once the time is over; what `work` throws
 */
export function withinTime<T>(ms: number, work: () => T, code: ErrorCode, message: string): T {
  let result: { readonly value: T } | undefined;
  CONTEXT.work = () => {
    result = { value: work() };
  };
  try {
    CALL.runInContext(CONTEXT, { timeout: Math.ceil(ms) });
  } catch (cause) {
    if (codeOf(cause) !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw cause;
    throw new SparseVilaError(code, `${message} It was ended after ${(ms / 1000).toFixed(1)} s.`);
  }
  if (result === undefined) throw new SparseVilaError('ERR_INTERNAL', 'Work within a time limit gave no result.');
  return result.value;
}
