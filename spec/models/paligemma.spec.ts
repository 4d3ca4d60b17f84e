// PaliGemma 1 and 2 against transformers: prompts that attend to themselves, softcaps, sliding windows shorter than the prompt, and no chat
// template. Fixtures: scripts/fixtures/paligemma.py.

import { familySuite } from '../support/family_suite';

familySuite('paligemma/two');
familySuite('paligemma/one');
