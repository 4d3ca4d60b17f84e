// Paths of the packaged model and the fixtures, and the pictures that specs use.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(__dirname, '../../..');
export const FIXTURES = join(ROOT, 'spec/fixtures');
const CALIBRATION = join(ROOT, 'assets/calibration');

export const TINY = join(ROOT, 'assets/tiny-nvila');
export const TINY_FILM = join(ROOT, 'assets/tiny-nvila-film');
export const STAGES = join(FIXTURES, 'tiny-nvila/stages.safetensors');
export const vilaCase = (name: string): string => join(FIXTURES, 'vila', name);

/** Picture `i` of the 24 that the reference conversations are about. */
export const scene = (i: number): string => join(CALIBRATION, `scene-${String(i).padStart(2, '0')}.png`);
export const imageFixture = (name: string): string => join(FIXTURES, 'image', name);

export interface Conversation {
  readonly image: string;
  readonly turns: readonly { readonly question: string; readonly truth: string; readonly greedy: string }[];
}

/** The reference conversations: a picture, its questions, the truth, and the f32 reference's greedy answers. */
export function conversations(): Conversation[] {
  const lines = readFileSync(join(CALIBRATION, 'conversations.jsonl'), 'utf8').trim().split('\n');
  return lines.map((line) => JSON.parse(line) as Conversation);
}
