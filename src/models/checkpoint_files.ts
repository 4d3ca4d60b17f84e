// The config files of a checkpoint folder, every generation of them read alike: class defaults below, the file's values on top.
// Source: transformers 5.24 `configuration_utils.py`, `image_processing_utils.py`; `processor_config.json` is what transformers 5 writes.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type ConfigReader, configReader, type Json, readJson } from '../json';
import { type DecoderConfig, parseDecoderConfig } from './config';

export interface CheckpointFiles {
  readonly folder: string;
  /** config.json */
  readonly root: ConfigReader;
  /** An object of the root config over `defaults`: those of its class, and what the class around it puts in its place. */
  part(key: string, defaults?: Json): ConfigReader;
  /** The decoder: `text_config`, or the root where its fields lie flat. */
  text(defaults?: Json): { readonly decoder: DecoderConfig; readonly config: ConfigReader };
  /** preprocessor_config.json over the `image_processor` of processor_config.json. */
  readonly images: ConfigReader;
}

/** @throws SparseVilaError `ERR_CONFIG_MISSING`, `ERR_CONFIG_INVALID` */
export function checkpointFiles(folder: string): CheckpointFiles {
  const file = join(folder, 'config.json');
  const root = configReader(readJson(file), file);
  return {
    folder,
    root,
    part: (key, defaults = {}) => configReader({ ...defaults, ...root.object(key)?.json }, file, `${key}.`),
    text: (defaults = {}) => {
      const json = { ...defaults, ...(root.object('text_config')?.json ?? root.json) };
      // Composite configs say at the root whether embedding and head are one matrix.
      if (root.has('tie_word_embeddings')) json.tie_word_embeddings = root.json.tie_word_embeddings;
      return { decoder: parseDecoderConfig(json, file), config: configReader(json, file, 'text_config.') };
    },
    get images() {
      return imageProcessor(folder);
    },
  };
}

function imageProcessor(folder: string): ConfigReader {
  const own = join(folder, 'preprocessor_config.json');
  const shared = join(folder, 'processor_config.json');
  const nested = existsSync(shared) ? configReader(readJson(shared), shared).object('image_processor') : undefined;
  if (nested !== undefined && !existsSync(own)) return nested;
  return configReader({ ...nested?.json, ...readJson(own) }, own);
}
