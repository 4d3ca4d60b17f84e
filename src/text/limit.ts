// A limit on the time of synchronous work on files of a checkpoint: regular expressions that backtrack, parsers that are quadratic.
// V8 ends the work wherever it is, inside a regular expression too. It is a backstop: what can be counted is counted elsewhere.
import { createContext, Script } from 'node:vm';
import { codeOf, type ErrorCode, SparseVilaError } from '../errors';

const CALL = new Script('work()');
const CONTEXT: { work: () => void } = { work: () => {} };
createContext(CONTEXT);

/** How often work is begun again that had little of the processor's time. */
const TRIES = 3;

/**
 * The result of `work`, which is ended after `ms` milliseconds of processor time. The clock ends it; where the processor was busy with
 * other processes, it is begun again with more time. So `work` must not change anything.
 * @throws SparseVilaError `code` with `message` once the time is over; what `work` throws
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

/** The result of `work`; undefined when it took longer than `limit`. */
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
