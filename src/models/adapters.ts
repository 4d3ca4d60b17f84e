// The families that are read: one row each.

import type { Adapter } from './adapter';
import { llava } from './families/llava';
import { vila } from './families/vila';

export const ADAPTERS: readonly Adapter[] = [vila, llava];
