// Finds the one of compressed-tensors' `config_groups` that applies to a module. The tensors decide the form of a module; this tells what they
// do not show, above all whether it has zero points.
// Source: compressed-tensors 0.10 `utils/match.py`: full names and regular expressions come before names of classes.

import { runInNewContext } from 'node:vm';
import { codeOf, SparseVilaError } from '../errors';
import type { QuantizationConfig, QuantizationGroup } from './quantized_config';

/** A time limit for regular expressions that backtrack; normal ones need microseconds. */
const MATCH_MS = 2000;

/** `config` restricted to the group of `module`; unchanged if no single group applies. */
export function settingsOf(config: QuantizationConfig, module: string): QuantizationConfig {
  const { groups = [] } = config;
  const found = groups.length === 1 ? groups[0] : groupOf(groups, module, config.file);
  if (found === undefined || found.layout === 'int-quantized') return config;
  const { groupSize, symmetric, activationOrder } = found;
  return { ...config, groupSizes: [groupSize], symmetric, activationOrder };
}

function groupOf(groups: readonly QuantizationGroup[], module: string, file: string): QuantizationGroup | undefined {
  const named = groups.filter(({ targets }) => targets.some((target) => isMatch(target, module, file)));
  if (named.length > 0) return named.length === 1 ? named[0] : undefined;
  const classes = groups.filter(({ targets }) => targets.includes('Linear'));
  return classes.length === 1 ? classes[0] : undefined;
}

/** Python's `re.match`: at the start of the name. An expression that JavaScript does not read matches nothing. */
function isMatch(target: string, module: string, file: string): boolean {
  if (!target.startsWith('re:')) return target === module;
  const source = `^(?:${target.slice(3)})`;
  try {
    return runInNewContext('new RegExp(source).test(module)', { source, module }, { timeout: MATCH_MS }) === true;
  } catch (error) {
    if (codeOf(error) === 'ERR_SCRIPT_EXECUTION_TIMEOUT') {
      throw new SparseVilaError(
        'ERR_CONFIG_INVALID',
        `${file}: expected regular expressions that end within ${MATCH_MS / 1000} s for "config_groups", received ` +
          `${JSON.stringify(target.slice(0, 100))} for the module "${module}".`,
        { cause: error },
      );
    }
    return false;
  }
}
