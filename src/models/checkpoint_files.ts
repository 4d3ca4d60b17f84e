// Reads the config files of a checkpoint folder, of any generation of transformers: class defaults, overridden by the file's values.
// Source: transformers 5.24 `configuration_utils.py`, `image_processing_utils.py`; transformers 5 writes `processor_config.json`.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type ConfigReader, configReader, type Json, readJson } from '../json';
import { type DecoderConfig, parseDecoderConfig } from './config';

export interface CheckpointFiles {
  readonly folder: string;
  /** config.json */
  readonly root: ConfigReader;
  /** An object of the root config over `defaults`, which are those of its class and of the class that contains it. */
  part(key: string, defaults?: Json): ConfigReader;
  /** The decoder's config: `text_config`, or the root if its fields are there. */
  text(defaults?: Json): { readonly decoder: DecoderConfig; readonly config: ConfigReader };
  /** preprocessor_config.json over the `image_processor` of processor_config.json. */
  readonly images: ConfigReader;
  /** The same of videos: video_preprocessor_config.json over the `video_processor` of processor_config.json; where neither is, `images`. */
  readonly videos: ConfigReader;
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
      // In composite configs the root says whether embedding and head are one matrix.
      if (root.has('tie_word_embeddings')) json.tie_word_embeddings = root.json.tie_word_embeddings;
      return { decoder: parseDecoderConfig(json, file), config: configReader(json, file, 'text_config.') };
    },
    get images() {
      return processor(folder, 'preprocessor_config.json', 'image_processor');
    },
    get videos() {
      return processor(folder, 'video_preprocessor_config.json', 'video_processor', () => this.images);
    },
  };
}

/** A processor's own file over its object in processor_config.json. `otherwise` gives one where neither is there. */
function processor(folder: string, name: string, key: string, otherwise?: () => ConfigReader): ConfigReader {
  const [own, shared] = [join(folder, name), join(folder, 'processor_config.json')];
  const nested = existsSync(shared) ? configReader(readJson(shared), shared).object(key) : undefined;
  if (existsSync(own)) return configReader({ ...nested?.json, ...readJson(own) }, own);
  return nested ?? otherwise?.() ?? configReader(readJson(own), own);
}
