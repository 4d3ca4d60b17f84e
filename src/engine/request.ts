// A request checked and taken apart: its messages, its method, and the options of its answer.

import { received, SparseVilaError } from '../errors';
import type { VisionLanguageModel } from '../models/model';
import { checkSystem } from '../models/transcript';
import { ANYTHING, BOOLEAN, type Checks, checkOptions, invalidOption, NAME, oneOf } from '../options';
import { type CheckedMessage, checkDialogue } from '../session/history';
import { type AskOptions, checkAskOptions, checkSessionOptions, checkVerified, samplingOf } from '../session/options';
import type { Question } from '../session/turn';
import { dense } from '../sparsity/dense';
import type { SparsityMethod, TowerView } from '../sparsity/method';
import { keptOf } from '../sparsity/method_entry';
import { METHODS } from '../sparsity/methods';
import { refreshed } from '../sparsity/refreshed';
import { SPARSE_VILA_PRESETS } from '../sparsity/sparse_vila';
import { createSampler } from '../text/sampling';
import type { CountRequest, EngineRequest, SparsityRequest } from './types';

export interface CheckedRequest {
  /** The messages before the question. */
  readonly history: readonly CheckedMessage[];
  readonly question: Question;
  /** The method with validation around it. */
  readonly method: SparsityMethod;
  /** A text that is equal for requests whose methods are equal. */
  readonly methodKey: string;
  /** Number of tokens that the method keeps of a grid after the tower. */
  readonly keeps: (grid: TowerView['grid']) => number;
  readonly ask: AskOptions;
  /** Whether the end comes with the cells of the pictures. */
  readonly cells: boolean;
}

const REQUEST = Object.fromEntries(
  [
    ...['messages', 'sparsity', 'maxTokens', 'stop', 'logprobs', 'logitBias', 'format', 'cells'],
    ...['temperature', 'topK', 'topP', 'repetitionPenalty', 'seed'],
  ].map((name) => [name, name === 'cells' ? BOOLEAN : ANYTHING]),
) as Checks<EngineRequest>;

const SPARSITY: Checks<SparsityRequest> = {
  method: { ...NAME, required: true },
  verify: oneOf('dense', 'none'),
  refresh: ANYTHING,
  ...{ prefillSparsity: ANYTHING, decodeSparsity: ANYTHING, positions: ANYTHING, seed: ANYTHING },
};

/**
 * The method that a request names; ratios that it does not give are those of SparseVILA's preset for images.
 * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_OPTION_MISSING`
 */
export function requestedMethod(
  sparsity: SparsityRequest | undefined,
): Pick<CheckedRequest, 'method' | 'methodKey' | 'keeps'> & Pick<AskOptions, 'verify'> {
  if (sparsity === undefined) return { method: dense(), methodKey: 'dense', keeps: tokensIn };
  const { method: name, verify = 'none', refresh, ...ratios } = checkOptions('sparsity', sparsity, SPARSITY);
  const entry = METHODS.find((row) => row.name === name);
  if (entry === undefined)
    throw invalidOption('sparsity', `one of ${METHODS.map((row) => row.name).join(', ')} for method`, received(name));
  if (entry.frameScores)
    throw invalidOption('sparsity', 'a method that asks the model nothing before the request', received(name));
  const all = { ...SPARSE_VILA_PRESETS.image, ...ratios };
  const created = entry.create(all);
  const method = refresh === undefined ? created : refreshed(created, refresh);
  const verified = verify === 'none' ? {} : { verify };
  checkVerified('sparsity', method, verified);
  return {
    ...{ method, ...verified },
    methodKey: JSON.stringify([name, all, refresh]),
    keeps: method.prune === undefined ? tokensIn : (grid) => keptOf(entry, grid, all.prefillSparsity),
  };
}

const tokensIn = ({ t, h, w }: TowerView['grid']): number => t * h * w;

/** A copy of a request, whose messages are checked and whose options are not. @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_QUESTION` */
export function checkFields(request: CountRequest): object {
  const { messages, ...options } = checkOptions('run', request as EngineRequest, REQUEST);
  const dialogue = checkDialogue('run', messages);
  return { messages: dialogue.map(({ role, parts }) => ({ role, content: parts })), ...options };
}

/**
 * Checks a request and copies what it holds.
 * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_OPTION_MISSING`, `ERR_QUESTION`, `ERR_METHOD`
 */
export function checkRequest(
  model: VisionLanguageModel,
  request: CountRequest & Partial<EngineRequest>,
  byDefault: SparsityRequest | undefined,
): CheckedRequest {
  const { messages, sparsity, cells = false, ...answer } = checkOptions('run', request, REQUEST);
  const dialogue = checkDialogue('run', messages);
  const last = dialogue.at(-1);
  if (last?.role !== 'user')
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `run: expected messages that end with a question of the user, received ${last === undefined ? 'none' : `one that ends with ${last.role}`}.`,
    );
  const [first] = dialogue;
  if (first?.role === 'system') checkSystem(model, first.parts.join(''));
  const { method, methodKey, keeps, ...verified } = requestedMethod(sparsity ?? byDefault);
  const { checked } = checkSessionOptions({ method }, model.decoder.config);
  const ask = checkAskOptions({ ...(answer as AskOptions), ...verified }, model.decoder.config);
  createSampler(samplingOf(ask), model.sampling);
  const { parts } = last;
  return {
    history: dialogue.slice(0, -1),
    question: { parts, media: parts.filter((part) => typeof part !== 'string') },
    ...{ method: checked, methodKey, keeps, ask, cells },
  };
}
