// The packaged model on a stand-in of the Hub, among files that no loader needs, and a cache of its own, for specs about downloads.

import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { filesBelow } from '../../src/files';
import { partialOf } from '../../src/hub/blob';
import { blobFile, repositoryFolder } from '../../src/hub/cache';
import type { HubSettings } from '../../src/hub/settings';
import { type Snapshot, snapshot } from '../../src/hub/snapshot';
import { NEEDS } from '../../src/models/by_name';
import { TINY } from './assets';
import { filesOfFolder, type Hub, type Seen, sha256, startHub } from './hub';

export const NAME = 'lab/tiny-nvila';
const OTHERS = {
  'README.md': '# A model',
  '.gitattributes': '*.safetensors filter=lfs',
  'pytorch_model.bin': 'the weights once more',
  'llm/consolidated.safetensors': 'and again',
  'llm/model.fp16.safetensors': 'and again',
  'llm/trainer_state.json': '{}',
  'onnx/config.json': '{}',
  'onnx/model.onnx': 'and again',
};
export const FILES = filesOfFolder(TINY, OTHERS);
/** The files that are needed. */
export const OWN = filesBelow(TINY).sort();
/** Their bytes. */
export const BYTES = OWN.reduce((sum, path) => sum + statSync(join(TINY, path)).size, 0);
export const WEIGHTS = 'llm/model.safetensors';
export const weights = FILES[WEIGHTS] as Buffer;

export interface Given extends Partial<HubSettings> {
  readonly name?: string;
  readonly revision?: string;
  readonly update?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { done: number; total: number; step: string }) => void;
}

export interface Scratch {
  readonly hub: Hub;
  readonly cache: string;
  readonly repository: string;
  /** Where the decoder's weights are while they are downloaded. */
  readonly partial: string;
  fetchModel(given?: Given): Promise<Snapshot>;
  remove(): Promise<void>;
}

export async function scratchHub(): Promise<Scratch> {
  const cache = join(mkdtempSync(join(tmpdir(), 'hub-')), 'hub');
  const hub = await startHub(NAME, FILES, ['main', 'v1', 'refs/pr/3']);
  const repository = repositoryFolder(cache, NAME);
  return {
    ...{ hub, cache, repository },
    partial: partialOf(blobFile(repository, sha256(weights))),
    fetchModel: ({ name = NAME, revision, update = false, signal, onProgress, ...settings } = {}) => {
      const wanted = revision === undefined ? { name } : { name, revision };
      return snapshot(wanted, { needs: NEEDS, update, settings: hub.settings(cache, settings), signal, onProgress });
    },
    remove: async () => {
      await hub.close();
      rmSync(dirname(cache), { recursive: true, force: true });
    },
  };
}

/** Whether a request is one for the decoder's weights. */
export const isWeights = ({ path }: Seen): boolean => path.includes(sha256(weights));

export const failure = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

/** The files that are needed, and no others, with the bytes of the model's own folder. */
export function expectWhole(folder: string): void {
  expect(filesBelow(folder).sort()).toEqual(OWN);
  for (const path of OWN) expect(readFileSync(join(folder, path)).equals(FILES[path] as Buffer)).toBe(true);
}
