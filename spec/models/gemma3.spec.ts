// Gemma 3 against transformers: sliding windows shorter than the prompt, pan and scan, both layouts of names. Fixtures: scripts/fixtures/gemma.py.

import { familySuite } from '../support/family_suite';

familySuite('gemma3/scan');
familySuite('gemma3/plain');
