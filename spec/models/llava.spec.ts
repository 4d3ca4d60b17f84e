// LLaVA-1.5 against transformers, with a Llama and a Mistral decoder. Fixtures: scripts/fixtures/llava.py.

import { familySuite } from '../support/family_suite';

familySuite('llava/llava-llama');
familySuite('llava/llava-mistral');
