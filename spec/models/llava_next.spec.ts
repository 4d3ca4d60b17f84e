// LLaVA-NeXT against transformers: Vicuna's and Mistral's decoders and templates, tiles that patches do not fill, wide and tall pictures.

import { familySuite } from '../support/family_suite';

for (const name of ['vicuna', 'mistral']) familySuite(`llava_next/${name}`);
