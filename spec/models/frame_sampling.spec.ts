// The frames that each family looks at, against transformers' video processors. Fixture: scripts/fixtures/sampling.py.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readJson } from '../../src/json';
import { type FrameSampling, type SamplingRule, sampleFrames } from '../../src/models/frame_sampling';
import { planOf } from '../../src/models/load';
import { FIXTURES } from '../support/assets';
import { withCopy } from '../support/checkpoint';

type Facts = readonly [count: number, sum: number, first: number, middle: number, last: number];
interface Settings {
  readonly num_frames?: number;
  readonly fps?: number;
  readonly min_frames?: number;
  readonly max_frames?: number;
  readonly initial_shift?: boolean;
}

const { settings, rows } = readJson(join(FIXTURES, 'sampling.json')) as unknown as {
  readonly settings: readonly Settings[];
  readonly rows: readonly (readonly [SamplingRule, number, number, number, Facts | null])[];
};

/** Settings of transformers, with the defaults of the class that the fixture's rows were made with. */
function samplingOf(rule: SamplingRule, given: Settings): FrameSampling {
  const isQwen3Default = rule === 'qwen3' && given.num_frames === undefined && given.fps === undefined;
  return {
    rule,
    frames: given.num_frames,
    fps: isQwen3Default ? 2 : given.fps,
    min: given.min_frames,
    // The other classes have no maximum.
    max: given.max_frames ?? (rule.startsWith('qwen') ? undefined : Number.MAX_SAFE_INTEGER),
    ...(given.initial_shift !== undefined && { shift: given.initial_shift }),
  };
}

function factsOf(indices: readonly number[]): Facts {
  const at = (i: number): number => indices[i] ?? Number.NaN;
  const sum = indices.reduce((all, index, i) => (all + (i + 1) * index) % (2 ** 31 - 1), 0);
  return [indices.length, sum, at(0), at(Math.floor(indices.length / 2)), at(indices.length - 1)];
}

describe('frame sampling', () => {
  const rules = [...new Set(rows.map(([rule]) => rule))];

  it.each(rules)('%s takes the frames that transformers takes', (rule) => {
    const own = rows.filter(([name, , , , facts]) => name === rule && facts !== null);
    expect(own.length).toBeGreaterThan(100);
    const wrong = own.filter(([, which, frames, fps, facts]) => {
      const indices = sampleFrames(samplingOf(rule, settings[which] ?? {}), { frames, fps });
      return JSON.stringify(factsOf(indices)) !== JSON.stringify(facts);
    });
    expect(wrong.slice(0, 20)).toEqual([]);
  });

  it('takes at least one frame and no frame twice where transformers refuses its settings or repeats frames', () => {
    const own = rows.filter(([, , , , facts]) => facts === null);
    expect(own.length).toBeGreaterThan(100);
    for (const [rule, which, frames, fps] of own) {
      const indices = sampleFrames(samplingOf(rule, settings[which] ?? {}), { frames, fps });
      expect(indices.length).toBeGreaterThan(0);
      expect(indices.every((index, i) => index < frames && index > (indices[i - 1] ?? -1))).toBe(true);
    }
  });

  it.each(rules)('%s follows the rate and the maximum of the caller', (rule) => {
    const film = { frames: 3000, fps: 30 };
    const sampling: FrameSampling = { rule, fps: 1, ...(rule === 'smolvlm' && { frames: 64 }) };
    const count = (overrides: Parameters<typeof sampleFrames>[2]): number =>
      sampleFrames(sampling, film, overrides).length;
    expect(count({ maxFrames: 10 })).toBe(10);
    expect(count({ fps: 0.5 })).toBe(50);
    expect(count({ fps: 1, maxFrames: 2 })).toBe(2);
    expect(count({ fps: 1e6 })).toBeLessThanOrEqual(768);
  });
});

describe('sampling of plans', () => {
  const samplingIn = (family: string): unknown => planOf(join(FIXTURES, family)).sampling;
  it.each([
    ['qwen_vl/qwen2-vl', { rule: 'qwen2', fps: 2, min: 4, max: 768, multiple: 2 }],
    ['qwen_vl/qwen3-vl', { rule: 'qwen3', fps: 2, min: 4, max: 768 }],
    ['internvl/layer', { rule: 'internvl', frames: 8, shift: true }],
    ['llava_onevision/large', { rule: 'uniform', frames: 32 }],
    ['smolvlm/smolvlm', { rule: 'smolvlm', frames: 64, fps: 1 }],
    ['nvila/film', { rule: 'vila', frames: 8 }],
  ])('%s', (family, sampling) => expect(samplingIn(family)).toMatchObject(sampling));

  it('comes from the files of the processor', () =>
    withCopy(join(FIXTURES, 'smolvlm', 'smolvlm'), async (folder) => {
      const sampling = { fps: 2, max_frames: 10, video_size: { longest_edge: 126 } };
      const file = join(folder, 'video_preprocessor_config.json');
      writeFileSync(file, JSON.stringify({ video_sampling: sampling, max_image_size: { longest_edge: 42 } }));
      expect(planOf(folder).sampling).toEqual({ rule: 'smolvlm', fps: 2, frames: 10 });
      const size = { kind: 'video', width: 60, height: 40, frames: 1 } as const;
      expect(planOf(folder).layout(size, { media: 1 }).canvases[0]?.steps[0]?.to.width).toBe(126);
    }));
});
