// Settings of NVILA's tiles, scales and videos that contradict themselves or would take all memory are refused from the config alone;
// those of a mode that is not on do not count. Source of the defaults: NVlabs/VILA `configuration_llava.py`.

import { join } from 'node:path';
import type { Json } from '../../src/json';
import { planOf } from '../../src/models/load';
import { type MediumLayout, tokensOf } from '../../src/models/media';
import { errorOf } from '../image/fixtures';
import { FIXTURES } from '../support/assets';
import { changeJson, withCopy } from '../support/checkpoint';

const layoutWith = (name: string, changes: Json, width: number, height: number): Promise<MediumLayout> =>
  withCopy(join(FIXTURES, 'nvila', name), async (folder) => {
    changeJson(join(folder, 'config.json'), changes);
    return planOf(folder).layout({ kind: 'image', width, height, frames: 1 }, { media: 1 });
  });

const pools = (sizes: unknown): Json => ({
  video_encoder: { _target_: 'llava.model.encoders.TSPVideoEncoder', pool_sizes: sizes },
});

describe('settings of tiles, scales and videos', () => {
  it.each([
    ['scales', { s2_scales: '28000000,28' }, 's2_scales'],
    ['scales', { s2_scales: '28,280000,28' }, 's2_scales'],
    ['scales', { s2_scales: '84,56,28' }, 's2_scales'],
    ['scales', { s2_scales: '56,84' }, 's2_scales'],
    ['scales', { s2_scales: '28,56,' }, 's2_scales'],
    ['scales', { s2_scales: '28,56,28000000' }, 'max_tiles'],
    ['scales', { max_tiles: 8 }, 'max_tiles'],
    ['scales', { max_tiles: 2 ** 30 }, 'max_tiles'],
    ['scales', { s2_resize_output_to_scale_idx: 3 }, 's2_resize_output_to_scale_idx'],
    ['tiles', { min_tiles: 13, max_tiles: 12 }, 'max_tiles'],
    ['tiles', { max_tiles: 2 ** 30 }, 'max_tiles'],
    ['film', pools([[1, 3, 1]]), 'pool_sizes'],
    ['film', pools(Array.from({ length: 17 }, () => [1, 1, 1])), 'pool_sizes'],
  ])('%s with %j is refused, naming %s', async (name, changes, key) => {
    const error = await errorOf(() => layoutWith(name, changes, 40, 40));
    expect(error.code).toBe('ERR_CONFIG_INVALID');
    expect(error.message).toContain(`"${key === 'pool_sizes' ? 'video_encoder.' : ''}${key}"`);
  });

  it('the output scale is by default the first one', async () => {
    const [named, unnamed] = await Promise.all(
      [0, undefined].map((index) => layoutWith('scales', { s2_resize_output_to_scale_idx: index }, 60, 40)),
    );
    expect(tokensOf(unnamed as MediumLayout)).toBe(4);
    expect(unnamed?.merge).toEqual(named?.merge);
  });

  it('tile settings are ignored if pictures are not cut', async () => {
    const { canvases } = await layoutWith(
      'tiles',
      { image_aspect_ratio: 'resize', min_tiles: 0, max_tiles: null },
      60,
      40,
    );
    expect(canvases).toHaveLength(1);
  });

  it.each([
    [1, 20_000],
    [20_000, 1],
  ])('a picture of %i x %i is cut into the most tiles', async (width, height) => {
    expect((await layoutWith('tiles', {}, width, height)).canvases).toHaveLength(13);
  });
});
