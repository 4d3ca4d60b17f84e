// The table of model families, one entry each.

import type { Adapter } from './adapter';
import { gemma3 } from './families/gemma3';
import { internvl } from './families/internvl';
import { internvlChat } from './families/internvl_chat';
import { llava } from './families/llava';
import { llavaNext } from './families/llava_next';
import { llavaOnevision } from './families/llava_onevision';
import { paligemma } from './families/paligemma';
import { qwen2Vl } from './families/qwen2_vl';
import { qwen3_5 } from './families/qwen3_5';
import { qwen3Vl } from './families/qwen3_vl';
import { smolvlm } from './families/smolvlm';
import { vila } from './families/vila';

export const ADAPTERS: readonly Adapter[] = [
  vila,
  llava,
  llavaNext,
  llavaOnevision,
  internvl,
  internvlChat,
  qwen2Vl,
  qwen3Vl,
  qwen3_5,
  smolvlm,
  gemma3,
  paligemma,
];
