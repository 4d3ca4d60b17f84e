// InternVL against transformers: the LayerNorm tower and the one with RMSNorm and norms of queries and keys; tiles, videos.

import { familySuite } from '../support/family_suite';

for (const name of ['layer', 'rms']) familySuite(`internvl/${name}`);
