// SmolVLM2 and Idefics3 against transformers. Fixtures: scripts/fixtures/smolvlm.py.

import { familySuite } from '../support/family_suite';

familySuite('smolvlm/smolvlm');
familySuite('smolvlm/idefics3');
