// InternVL against transformers: the LayerNorm tower and the one with RMSNorm and norms of queries and keys; tiles, films; InternVL 3.5's decoder.

import { familySuite } from '../support/family_suite';

for (const name of ['layer', 'rms', 'qwen3']) familySuite(`internvl/${name}`);
