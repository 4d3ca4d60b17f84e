// Limits the time of synchronous work on files of a checkpoint, such as backtracking regular expressions and quadratic parsers. V8 interrupts
// the work anywhere, even inside a regular expression. This is a last resort: sizes that can be counted are limited elsewhere.
import { createContext, Script } from 'node:vm';
import { codeOf, type ErrorCode, SparseVilaError } from '../errors';

const CALL = new Script('work()');
const CONTEXT: { work: () => void } = { work: () => {} };
createContext(CONTEXT);

/** Maximum number of times that work is restarted because the processor was busy with other processes. */
const TRIES = 3;

/**
 * Runs `work`, and ends it after `ms` milliseconds. If the process got little processor time in that interval, the work is restarted with
 * more time; it must therefore have no side effects.
 * @throws SparseVilaError `code` with `message` if the time is exceeded; errors of `work`
 */
export function withinTime<T>(ms: number, work: () => T, code: ErrorCode, message: string): T {
  let limit = Math.ceil(ms);
  for (let tries = 1; ; tries++) {
    const before = process.cpuUsage();
    const result = attempt(limit, work);
    if (result !== undefined) return result.value;
    const { user, system } = process.cpuUsage(before);
    const used = (user + system) / 1000;
    if (used > ms / 3 || tries === TRIES)
      throw new SparseVilaError(code, `${message} It was ended after ${(used / 1000).toFixed(1)} s.`);
    limit *= 4;
  }
}

/** Runs `work` once; undefined if it took longer than `limit`. */
function attempt<T>(limit: number, work: () => T): { readonly value: T } | undefined {
  let result: { readonly value: T } | undefined;
  CONTEXT.work = () => {
    result = { value: work() };
  };
  try {
    CALL.runInContext(CONTEXT, { timeout: limit });
  } catch (cause) {
    if (codeOf(cause) !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw cause;
    return undefined;
  }
  return result;
}
