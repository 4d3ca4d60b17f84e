// Canonical names of tensors, for all key layouts of all families: `decoder.`, `tower.` or `projector.`, followed by the name in the part's
// own transformers class (LlamaForCausalLM, SiglipVisionTransformer). A family lists the rules that it needs, its own first; the first rule
// that matches is applied once.

export type NameRule = readonly [from: RegExp, to: string];

/** `model.language_model.layers`, `language_model.model.layers`, `model.layers`, `llm.model.layers`, … */
export const DECODER_NAMES: readonly NameRule[] = [
  [/^(?:.*\.)?rotary_emb\.inv_freq$/, 'unread.$&'], // of each layer, where old versions saved them
  [
    /^(?:model\.)?(?:language_model\.|text_model\.|llm\.)?(?:model\.)?(embed_tokens|layers|norm)\./,
    'decoder.model.$1.',
  ],
  [/^(?:model\.)?(?:language_model\.|llm\.)?lm_head\./, 'decoder.lm_head.'],
];

/** CLIP and SigLIP, with or without `vision_tower.` and `vision_model.`; the text half of a whole CLIP or SigLIP is not read. */
export const CLIP_NAMES: readonly NameRule[] = prefixed(/^(?:model\.)?(?:vision_tower\.)?(?:vision_model\.)?/, [
  [/(embeddings\.position_ids$)/, 'unread.$1'],
  [/(embeddings|encoder|pre_layrnorm)\./, 'tower.$1.'],
  [/(post_layernorm|head|text_model|text_projection|visual_projection)\./, 'unread.$1.'],
  [/(logit_scale$|logit_bias$)/, 'unread.$1'],
]);

/** Makes rules for the rest of a name after `prefix`. */
export function prefixed(prefix: RegExp, rules: readonly NameRule[]): NameRule[] {
  return rules.map(([from, to]) => [new RegExp(prefix.source + from.source), to]);
}

/** The canonical name of a tensor; `unread.…` for a known tensor that is not needed; undefined if no rule matches. */
export function canonicalName(name: string, rules: readonly NameRule[]): string | undefined {
  const rule = rules.find(([from]) => from.test(name));
  return rule && name.replace(rule[0], rule[1]);
}
