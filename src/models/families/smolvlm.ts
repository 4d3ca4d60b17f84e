// SmolVLM2 and Idefics3 (`smolvlm`, `idefics3`): SigLIP, blocks of patches through one matrix, a Llama decoder; tiles row by row, each
// named in the prompt, and the whole picture last. SmolVLM2 takes videos: each frame is one tile, with its time as text.
// Source: transformers 5.24 `modeling_smolvlm.py`, `processing_smolvlm.py`, `image_processing_pil_smolvlm.py`, `video_processing_smolvlm.py`, and
// the same of Idefics3.

import type { Draw } from '../../image/canvas';
import { type Size, wholePicture } from '../../image/cells';
import { MAX_SIDE, withLongestEdge } from '../../image/longest_edge';
import type { ResampleFilter } from '../../image/resample';
import type { ConfigReader, Json } from '../../json';
import { hours, minutes } from '../../text/clock';
import { numberWords } from '../../text/number_words';
import type { Adapter } from '../adapter';
import type { CheckpointFiles } from '../checkpoint_files';
import { type FrameSampling, samplingSettings } from '../frame_sampling';
import { MARKER, type MediumLayout, type MediumSize, timesOf } from '../media';
import { CLIP_NAMES, DECODER_NAMES } from '../names';
import { type Plan, wholeFolder } from '../plan';
import {
  type ProcessorSpec,
  parseFilter,
  parseNormalization,
  processorSettings,
  requireSamePixels,
} from '../preprocessor';
import { cellsOf, frameSquares, squares } from '../squares';
import { coveringGrid, gridTiles, MOST_TILES } from '../tile_choice';
import { siglipTower, type TowerShape } from '../tower_config';

export const smolvlm: Adapter = { types: ['smolvlm', 'idefics3'], plan };

function plan(files: CheckpointFiles): Plan {
  const { folder, root, part, text } = files;
  const tower = siglipTower(part('vision_config', VISION), TOWERS);
  const { decoder, config: textConfig } = text({ model_type: 'llama' });
  const images = processorSettings(files.images, PROCESSOR);
  const family = root.string('model_type');
  const block = root.size('scale_factor', 2);
  const [e, d, cells] = [tower.hiddenSize, decoder.hiddenSize, cellsOf(tower)];
  if (cells % block !== 0) throw root.wrong('scale_factor', `a divisor of the ${cells} patches per side`);
  const isFilm = family === 'smolvlm';
  const videos = isFilm ? videoSettings(files.videos) : images;
  requireSamePixels(images, videos);
  const picture = shownBy(images, tower, block, images.boolean('do_image_splitting'));
  const frame = shownBy(videos, tower, block, false);
  return {
    folder,
    family,
    decoder,
    tower: { ...tower, depth: tower.layers },
    projector: [
      // The tower's last norm, on each patch of a block.
      { kind: 'norm', name: 'post_layernorm', width: e, bias: true, eps: tower.normEps },
      { kind: 'linear', name: 'proj', rows: d, cols: e * block * block, bias: false, activation: 'none' },
    ],
    sources: wholeFolder(folder),
    names: [
      [/^(?:model\.)?vision_model\.post_layernorm\./, 'projector.post_layernorm.'],
      [/^(?:model\.)?connector\.modality_projection\./, 'projector.'],
      ...DECODER_NAMES,
      ...CLIP_NAMES,
    ],
    pixels: parseNormalization(images),
    root,
    text: { folder, config: textConfig },
    marker: { id: root.number('image_token_id', 128257) },
    videos: isFilm,
    sampling: samplingOf(videos),
    videoPlaceholder: '<video>',
    layout: (size) => (size.kind === 'video' ? film(size, frame) : layout(size, picture)),
  };
}

/** Defaults of Idefics3VisionConfig and SmolVLMVisionConfig. */
const VISION: Json = {
  ...{ hidden_size: 1152, intermediate_size: 3072, num_hidden_layers: 12, num_attention_heads: 16 },
  ...{ image_size: 224, patch_size: 32 },
};

const TOWERS = ['idefics3', 'idefics3_vision', 'smolvlm', 'smolvlm_vision'];

/** Defaults of Idefics3ImageProcessor and SmolVLMImageProcessor. do_pad only pads batches, and frames are already sampled. */
const PROCESSOR: ProcessorSpec = {
  classes: ['Idefics3', 'SmolVLM'],
  defaults: {
    ...{
      size: { longest_edge: 4 * 364 },
      max_image_size: { longest_edge: 364 },
      resample: 1,
      do_image_splitting: true,
    },
    ...{ image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5] },
  },
  steps: ['do_resize', 'do_rescale', 'do_normalize'],
  ignored: ['do_image_splitting', 'do_pad', 'do_sample_frames'],
};

/** The settings of the processor of videos, whose size may be in `video_sampling`; `size` takes precedence. */
function videoSettings(given: ConfigReader): ConfigReader {
  const size = given.object('video_sampling')?.json.video_size;
  const defaults = size === undefined ? PROCESSOR.defaults : { ...PROCESSOR.defaults, size };
  return processorSettings(given, { ...PROCESSOR, defaults });
}

/** How media of one kind are shown. */
interface Shown {
  readonly tower: TowerShape;
  /** Number of patches per side of the block that becomes a token. */
  readonly block: number;
  /** The longest edge after the first resizing, in pixels. */
  readonly longest: number;
  /** Whether a picture is cut into tiles. */
  readonly isSplit: boolean;
  readonly filter: ResampleFilter;
}

/** @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED`, `ERR_CONFIG_INVALID` */
function shownBy(settings: ConfigReader, tower: TowerShape, block: number, isSplit: boolean): Shown {
  const edgeOf = (key: string): number => {
    const given = settings.object(key);
    if (given?.has('longest_edge')) return given.size('longest_edge');
    throw settings.unsupported(key, '{longest_edge}');
  };
  const side = tower.imageSize;
  if (edgeOf('max_image_size') !== side) throw settings.wrong('max_image_size', `the tower's image_size ${side}`);
  const longest = edgeOf('size');
  if (isSplit && Math.ceil(Math.min(longest, MAX_SIDE) / side) ** 2 > MOST_TILES)
    throw settings.wrong('size', `at most ${MOST_TILES} tiles of ${side} pixels`);
  return { tower, block, longest, isSplit, filter: parseFilter(settings) };
}

/** `video_sampling` of published files, or the fields of other processors of videos. */
function samplingOf(videos: ConfigReader): FrameSampling {
  const own = videos.object('video_sampling');
  const given = own && { frames: own.size('max_frames', 64), fps: own.float('fps', 1) };
  return { ...(given ?? samplingSettings(videos, { frames: 64, fps: 1 })), rule: 'smolvlm' };
}

function layout(picture: Size, { longest, isSplit, filter, tower, block }: Shown): MediumLayout {
  const side = tower.imageSize;
  const to = withLongestEdge(picture, longest);
  const grid = isSplit ? coveringGrid(to, side) : { cols: 1, rows: 1 };
  const resize = (size: Size): Draw => ({ step: 'resize', to: size, filter });
  const whole = [resize(to), resize({ width: grid.cols * side, height: grid.rows * side })];
  if (grid.cols * grid.rows === 1)
    return {
      ...squares([wholePicture(picture)], tower, block),
      ...{ kind: 'image', canvases: [{ frame: 0, steps: whole }], text: WHOLE },
    };
  const tiles = gridTiles(picture, side, grid, filter, [resize(to)]);
  const tags = tiles.canvases.map((_, i) => {
    const [row, col] = [Math.floor(i / grid.cols) + 1, (i % grid.cols) + 1];
    return `${FAKE}<row_${row}_col_${col}>${MARKER}${col === grid.cols ? '\n' : ''}`;
  });
  return {
    ...squares([...tiles.regions, wholePicture(picture)], tower, block),
    kind: 'image',
    canvases: [...tiles.canvases, { frame: 0, steps: [...whole, resize({ width: side, height: side })] }],
    text: `${tags.join('')}\n${WHOLE}`,
  };
}

const FAKE = '<fake_token_around_image>';
/** The text of a picture or frame that is one tile. */
const WHOLE = `${FAKE}<global-img>${MARKER}${FAKE}`;

/** Each frame as one tile, with its time before it. */
function film(size: MediumSize, shown: Shown): MediumLayout {
  const times = timesOf(size);
  const steps = layout(size, shown).canvases[0]?.steps ?? [];
  const { duration = times.at(-1) ?? 0 } = size;
  const opening = `You are provided the following series of ${numberWords(size.frames)} frames from a ${hours(duration)} [H:MM:SS] video.\n`;
  return {
    ...frameSquares(size, steps, shown.tower, shown.block),
    kind: 'video',
    text: `${opening}${times.map((time) => `\nFrame from ${minutes(time)}:${WHOLE}`).join('')}\n\n`,
  };
}
