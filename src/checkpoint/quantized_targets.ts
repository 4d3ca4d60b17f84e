// Finds the one of compressed-tensors' `config_groups`, or of GPTQModel's `dynamic` rules, that applies to a module. The tensors decide the form of a module; this tells what they
// do not show, above all whether it has zero points.
// Source: compressed-tensors 0.10 `utils/match.py`: full names and regular expressions come before names of classes; GPTQModel 4
// `quantization/config.py` `dynamic_get`: the first expression that matches.

import { type Context, createContext, runInContext } from 'node:vm';
import { codeOf, SparseVilaError } from '../errors';
import type { QuantizationConfig, QuantizationGroup } from './quantized_config';

/** A time limit for regular expressions that backtrack; normal ones need microseconds. */
const MATCH_MS = 2000;
/** Where expressions run under the time limit; making a context takes longer than a match. */
let sandbox: Context | undefined;

/**
 * `config` restricted to the group of a module; unchanged if no single group applies.
 * @param module its name in the files, without ".weight"; targets may name it as any generation of transformers does
 */
export function settingsOf(config: QuantizationConfig, module: string): QuantizationConfig {
  const { groups = [] } = config;
  const found = groups.length === 1 ? groups[0] : groupOf(groups, namesOf(module), config);
  if (found === undefined || found.layout === 'int-quantized') return config;
  const { groupSize, symmetric, activationOrder, block } = found;
  return { ...config, groupSizes: groupSize === undefined ? [] : [groupSize], symmetric, activationOrder, block };
}

/** The names of a module in the files and in the classes of transformers since 4.4x: targets hold whichever was current. */
function namesOf(module: string): string[] {
  const [, layer] =
    /^(?:model\.)?(?:language_model\.|text_model\.|llm\.)?(?:model\.)?(layers\..*|lm_head)$/.exec(module) ?? [];
  if (layer !== undefined) return [module, ...DECODERS.map((prefix) => prefix + layer)];
  const bare = module.replace(/^model\./, '').replace(/^(vision_tower\.)vision_model\./, '$1');
  const inner = bare.replace(/^vision_tower\./, '$&vision_model.');
  return [module, ...[bare, inner].flatMap((name) => [name, `model.${name}`])];
}

const DECODERS = [
  ...['', 'model.', 'language_model.', 'language_model.model.', 'model.language_model.', 'model.language_model.model.'],
  ...['model.text_model.', 'llm.', 'llm.model.', 'model.llm.'],
];

function groupOf(
  groups: readonly QuantizationGroup[],
  names: readonly string[],
  { file, method }: QuantizationConfig,
): QuantizationGroup | undefined {
  const named = groups.filter(({ targets }) => targets.some((target) => isMatch(target, names, file)));
  if (named.length > 0) return named.length === 1 || method === 'gptq' ? named[0] : undefined;
  const classes = groups.filter(({ targets }) => targets.includes('Linear'));
  return classes.length === 1 ? classes[0] : undefined;
}

/** Python's `re.match`: at the start of one of the names. An expression that JavaScript does not read matches nothing. */
function isMatch(target: string, names: readonly string[], file: string): boolean {
  if (!target.startsWith('re:')) return names.includes(target);
  sandbox ??= createContext({});
  Object.assign(sandbox, { source: `^(?:${target.slice(3)})`, names });
  try {
    const script = 'names.some((name) => new RegExp(source).test(name))';
    return runInContext(script, sandbox, { timeout: MATCH_MS }) === true;
  } catch (error) {
    if (codeOf(error) === 'ERR_SCRIPT_EXECUTION_TIMEOUT') {
      throw new SparseVilaError(
        'ERR_CONFIG_INVALID',
        `${file}: expected regular expressions that end within ${MATCH_MS / 1000} s for the modules of quantization_config (config_groups, ignore, dynamic), received ` +
          `${JSON.stringify(target.slice(0, 100))} for the module "${names[0]}".`,
        { cause: error },
      );
    }
    return false;
  }
}
