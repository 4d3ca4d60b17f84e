// LLaVA-OneVision against transformers: maps that are reduced after the projector, several pictures in a turn, videos; tied embeddings.

import { familySuite } from '../support/family_suite';

for (const name of ['large', 'tied']) familySuite(`llava_onevision/${name}`);
