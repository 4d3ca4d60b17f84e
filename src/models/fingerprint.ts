// A fingerprint of a checkpoint: of its configs, its tokenizer and template, and of its weights by their headers and by samples of their bytes.
// It tells apart checkpoints that differ, wherever they lie, without reading all weights.

import { createHash } from 'node:crypto';
import { openCheckpoint, readBytes } from '../checkpoint/safetensors';
import type { VisionLanguageModel } from './model';
import { PARTS } from './plan';
import { transcript } from './transcript';

/** Number of bytes that are read of each sampled tensor, and every how many-th tensor is sampled. */
const SAMPLE_BYTES = 4096;
const SAMPLED = 7;

const known = new WeakMap<object, string>();

/** SHA-256 in hex. @throws SparseVilaError as loading, for weights that are no longer there */
export function fingerprintOf(model: VisionLanguageModel): string {
  const made = known.get(model.plan) ?? fingerprint(model);
  known.set(model.plan, made);
  return made;
}

function fingerprint(model: VisionLanguageModel): string {
  const { plan, tokenizer, stopIds } = model;
  const rendered = transcript(model, [{ role: 'user', parts: [PROBE] }], () => '').text;
  const hash = createHash('sha256').update(JSON.stringify([plan.family, plan.root.json, plan.decoder, plan.tower]));
  hash.update(JSON.stringify([rendered, stopIds, tokenizer.prefixIds, tokenizer.encode(PROBE)]));
  for (const folder of new Set(PARTS.map((part) => plan.sources[part].folder)))
    for (const [i, entry] of [...openCheckpoint(folder).values()].entries()) {
      hash.update(JSON.stringify([entry.name, entry.dtype, entry.shape]));
      if (i % SAMPLED === 0) hash.update(readBytes(entry, 0, Math.min(entry.bytes, SAMPLE_BYTES)));
    }
  return hash.digest('hex');
}

/** A text that tokenizers split differently. */
const PROBE = 'Fingerprint 0123: “naïve” code(x) == 漢字 …\n';
