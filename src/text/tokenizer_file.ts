// The files of a tokenizer: tokenizer.json, or a SentencePiece tokenizer.model from which its content is made; tokenizer_config.json.
import { join } from 'node:path';
import { isPresent } from '../files';
import { type Json, readJson } from '../json';
import { sentencePieceTokenizer } from './sentencepiece';

/** @throws SparseVilaError `ERR_CONFIG_MISSING`, `ERR_CONFIG_INVALID`, naming the file */
export function readTokenizer(folder: string): { json: Json; file: string; config: Json } {
  const configFile = join(folder, 'tokenizer_config.json');
  const config = isPresent(configFile) ? readJson(configFile) : {};
  const file = join(folder, 'tokenizer.json');
  const model = join(folder, 'tokenizer.model');
  if (isPresent(file) || !isPresent(model)) return { json: withConfigTokens(readJson(file), config), file, config };
  return { json: withConfigTokens(sentencePieceTokenizer(model, config), config), file: model, config };
}

/** Added tokens that only tokenizer_config.json names: transformers adds them when it loads. */
function withConfigTokens(json: Json, config: Json): Json {
  const listed: unknown = json.added_tokens ?? [];
  if (!Array.isArray(listed)) return json;
  const known = new Set(listed.map((token) => Object(token).content));
  const more = Object.entries(Object(config.added_tokens_decoder) as Json).flatMap(([id, token]) =>
    typeof Object(token).content === 'string' && !known.has(Object(token).content)
      ? [{ ...Object(token), id: Number(id) }]
      : [],
  );
  return more.length === 0 ? json : { ...json, added_tokens: [...listed, ...more] };
}
