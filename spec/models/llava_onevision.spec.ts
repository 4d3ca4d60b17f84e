// LLaVA-OneVision against transformers: maps that are made smaller after the projector, several pictures in a turn, films; tied embeddings.

import { familySuite } from '../support/family_suite';

for (const name of ['large', 'tied']) familySuite(`llava_onevision/${name}`);
