// SmolVLM2 and Idefics3 (`smolvlm`, `idefics3`): SigLIP, blocks of patches through one matrix, a Llama decoder; tiles row by row, each
// named in the prompt, and the whole picture last. SmolVLM2 takes videos: each frame is one tile, with its time as text.
// Source: transformers 5.24 `modeling_smolvlm.py`, `processing_smolvlm.py`, `image_processing_pil_smolvlm.py`, `video_processing_smolvlm.py`, and
// the same of Idefics3.

import type { Draw } from '../../image/canvas';
import { cellsOfRegion, type Region, type Size, wholePicture } from '../../image/cells';
import type { ResampleFilter } from '../../image/resample';
import { type ConfigReader, configReader, type Json } from '../../json';
import { numberWords } from '../../text/number_words';
import type { Adapter } from '../adapter';
import type { CheckpointFiles } from '../checkpoint_files';
import { type FrameSampling, samplingSettings } from '../frame_sampling';
import { type Canvas, type Grid, MARKER, type MediumLayout, type MediumSize, timesOf } from '../media';
import { CLIP_NAMES, DECODER_NAMES } from '../names';
import { squarePatches } from '../patches';
import type { Plan } from '../plan';
import { parseFilter, parseNormalization, requireSamePixels } from '../preprocessor';
import { blockRows, joinMaps } from '../row_maps';
import { MOST_TILES, type TileGrid } from '../tile_choice';
import { siglipTower, type TowerShape } from '../tower_config';

export const smolvlm: Adapter = { types: ['smolvlm', 'idefics3'], plan };

function plan(files: CheckpointFiles): Plan {
  const { folder, root, part, text } = files;
  const tower = visionTower(part('vision_config', VISION));
  const { decoder, config: textConfig } = text({ model_type: 'llama' });
  const images = settingsOf(files.images);
  const family = root.string('model_type');
  const block = root.size('scale_factor', 2);
  const [e, d, cells] = [tower.hiddenSize, decoder.hiddenSize, Math.floor(tower.imageSize / tower.patchSize)];
  if (cells % block !== 0) throw root.wrong('scale_factor', `a divisor of the ${cells} patches per side`);
  const shape = { ...splitting(images, tower.imageSize), patch: tower.patchSize, block };
  const isFilm = family === 'smolvlm';
  const videos = isFilm ? videoSettings(files.videos) : images;
  const frames = { ...shape, ...frameSplitting(videos, images, tower) };
  const source = { folder, prefix: '' };
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
    sources: { decoder: source, tower: source, projector: source },
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
    layout: (size) => (size.kind === 'video' ? film(size, frames) : layout(size, shape)),
  };
}

/** Defaults of Idefics3VisionConfig and SmolVLMVisionConfig. */
const VISION: Json = {
  ...{ hidden_size: 1152, intermediate_size: 3072, num_hidden_layers: 12, num_attention_heads: 16 },
  ...{ image_size: 224, patch_size: 32 },
};

function visionTower(vision: ConfigReader): TowerShape {
  const types = ['idefics3', 'idefics3_vision', 'smolvlm', 'smolvlm_vision'];
  if (vision.has('model_type') && !types.includes(vision.string('model_type')))
    throw vision.unsupported('model_type', `one of ${types.join(', ')}`);
  return siglipTower(
    configReader({ ...vision.json, model_type: 'siglip_vision_model' }, vision.file, 'vision_config.'),
  );
}

/** Defaults of Idefics3ImageProcessor and SmolVLMImageProcessor. */
const IMAGES: Json = {
  ...{ size: { longest_edge: 4 * 364 }, max_image_size: { longest_edge: 364 }, resample: 1, do_image_splitting: true },
  ...{ image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5] },
};

/** The settings of a processor over the defaults of its class. */
function settingsOf({ json, file }: ConfigReader, defaults: Json = IMAGES): ConfigReader {
  const given = Object.entries(json).filter(([, value]) => value !== null);
  return configReader({ ...defaults, ...Object.fromEntries(given) }, file);
}

/** The same of the processor of videos, whose size may be in `video_sampling`; `size` takes precedence. */
function videoSettings(given: ConfigReader): ConfigReader {
  const size = given.object('video_sampling')?.json.video_size;
  return settingsOf(given, size === undefined ? IMAGES : { ...IMAGES, size });
}

/** The splitting of a picture; lengths are pixels. */
interface Splitting {
  /** The longest edge after the first resizing. */
  readonly longest: number;
  /** The side of a tile and of the tower's input. */
  readonly side: number;
  readonly isSplit: boolean;
  readonly filter: ResampleFilter;
}

/** Reads the processor's settings. @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` for a step that is turned off, `ERR_CONFIG_INVALID` */
function splitting(images: ConfigReader, imageSize: number): Splitting {
  for (const type of ['image_processor_type', 'video_processor_type'])
    if (images.has(type) && !/^(Idefics3|SmolVLM)(Image|Video)Processor(Fast|Pil)?$/.test(images.string(type)))
      throw images.unsupported(type, 'Idefics3ImageProcessor, SmolVLMImageProcessor or SmolVLMVideoProcessor');
  for (const key of ['do_resize', 'do_rescale', 'do_normalize'])
    if (!images.boolean(key, true)) throw images.unsupported(key, 'true');
  const edgeOf = (key: string): number => {
    const given = images.object(key);
    if (given?.has('longest_edge')) return given.size('longest_edge');
    throw images.unsupported(key, '{longest_edge}');
  };
  const side = edgeOf('max_image_size');
  if (side !== imageSize) throw images.wrong('max_image_size', `the tower's image_size ${imageSize}`);
  const isSplit = images.boolean('do_image_splitting');
  const longest = edgeOf('size');
  if (isSplit && Math.ceil(Math.min(longest, MAX_SIDE) / side) ** 2 > MOST_TILES)
    throw images.wrong('size', `at most ${MOST_TILES} tiles of ${side} pixels`);
  return { longest, side, isSplit, filter: parseFilter(images) };
}

/** How frames are shown: each as one tile. @throws as `splitting`, and for other pixels than those of pictures */
function frameSplitting(videos: ConfigReader, images: ConfigReader, { imageSize }: TowerShape): Splitting {
  requireSamePixels(images, videos);
  return splitting(configReader({ ...videos.json, do_image_splitting: false }, videos.file), imageSize);
}

/** `video_sampling` of published files, or the fields of other processors of videos. */
function samplingOf(videos: ConfigReader): FrameSampling {
  const own = videos.object('video_sampling');
  const given = own && { frames: own.size('max_frames', 64), fps: own.float('fps', 1) };
  return { ...(given ?? samplingSettings(videos, { frames: 64, fps: 1 })), rule: 'smolvlm' };
}

/** Maximum side of a resized picture. */
const MAX_SIDE = 4096;

/** The size with the given longest edge; the other side is truncated and made even. Both are then at most MAX_SIDE. */
function withLongestEdge({ width, height }: Size, longest: number): Size {
  const ratio = width / height;
  const even = (side: number): number => Math.max(1, side + (side % 2));
  const size =
    width >= height
      ? { width: longest, height: even(Math.trunc(longest / ratio)) }
      : { width: even(Math.trunc(longest * ratio)), height: longest };
  if (Math.max(size.width, size.height) <= MAX_SIDE) return size;
  const again = size.width / size.height;
  return size.width >= size.height
    ? { width: MAX_SIDE, height: Math.max(1, Math.trunc(MAX_SIDE / again)) }
    : { width: Math.max(1, Math.trunc(MAX_SIDE * again)), height: MAX_SIDE };
}

/** The grid of tiles of a resized picture: its longer side rounded up to whole tiles, then the other side. */
function gridOf({ width, height }: Size, side: number): TileGrid {
  const ratio = width / height;
  const tiles = (pixels: number): number => Math.ceil(pixels / side);
  if (width >= height) {
    const cols = tiles(width);
    return { cols, rows: tiles(Math.trunc((cols * side) / ratio)) };
  }
  const rows = tiles(height);
  return { cols: tiles(Math.trunc(rows * side * ratio)), rows };
}

interface Shape extends Splitting {
  readonly patch: number;
  readonly block: number;
}

function layout(picture: Size, shape: Shape): MediumLayout {
  const { longest, side, isSplit } = shape;
  const square = { width: side, height: side };
  const resize = (to: Size): Draw => ({ step: 'resize', to, filter: shape.filter });
  const to = withLongestEdge(picture, longest);
  const { cols, rows } = isSplit ? gridOf(to, side) : { cols: 1, rows: 1 };
  const isOne = cols * rows === 1;
  const steps = [resize(to), resize({ width: cols * side, height: rows * side })];
  const tiles = isOne
    ? []
    : Array.from({ length: rows * cols }, (_, i) => ({ col: i % cols, row: Math.floor(i / cols) }));
  const [width, height] = [picture.width / cols, picture.height / rows];
  const canvases: Canvas[] = tiles.map(({ col, row }) => {
    return { frame: 0, steps: [...steps, { step: 'crop', to: square, left: col * side, top: row * side }] };
  });
  const regions: Region[] = tiles.map(({ col, row }) => ({ left: col * width, top: row * height, width, height }));
  canvases.push({ frame: 0, steps: isOne ? steps : [...steps, resize(square)] });
  regions.push(wholePicture(picture));
  const tags = tiles.map(({ col, row }) => {
    return `${FAKE}<row_${row + 1}_col_${col + 1}>${MARKER}${col + 1 === cols ? '\n' : ''}`;
  });
  return {
    ...squares(canvases, regions, shape),
    kind: 'image',
    text: `${tags.join('')}${isOne ? '' : '\n'}${WHOLE}`,
  };
}

const FAKE = '<fake_token_around_image>';
/** The text of a picture or frame that is one tile. */
const WHOLE = `${FAKE}<global-img>${MARKER}${FAKE}`;

/** Each frame as one tile, with its time before it. */
function film(size: MediumSize, shape: Shape): MediumLayout {
  const times = timesOf(size);
  const [steps] = layout(size, shape).canvases.map((canvas) => canvas.steps);
  const canvases = times.map((_, frame) => ({ frame, steps: steps ?? [] }));
  const { grids, runs, ...rest } = squares(
    canvases,
    canvases.map(() => wholePicture(size)),
    shape,
  );
  const { duration = times.at(-1) ?? 0 } = size;
  const opening = `You are provided the following series of ${numberWords(size.frames)} frames from a ${clock(duration)} [H:MM:SS] video.\n`;
  return {
    ...{ ...rest, kind: 'video' },
    grids: [{ ...(grids[0] as Grid), t: size.frames, frames: canvases.map(({ frame }) => frame) }],
    runs: runs.map((run) => ({ ...run, grid: 0 })),
    text: `${opening}${times.map((time) => `\nFrame from ${minutes(time)}:${WHOLE}`).join('')}\n\n`,
  };
}

const twoDigits = (n: number): string => String(n).padStart(2, '0');
const minutes = (time: number): string => `${twoDigits(Math.floor(time / 60))}:${twoDigits(Math.floor(time % 60))}`;

/** Python's `str(timedelta(seconds=int(duration)))`: `0:01:05`, `1 day, 0:00:00`. */
function clock(duration: number): string {
  const days = Math.floor(duration / 86400);
  const within = Math.floor(duration % 86400);
  const hours = `${Math.floor(within / 3600)}:${twoDigits(Math.floor(within / 60) % 60)}:${twoDigits(within % 60)}`;
  return days === 0 ? hours : `${days} day${days === 1 ? '' : 's'}, ${hours}`;
}

/** Square canvases, each with a grid and a run; `regions` are the parts of the picture that they show. */
function squares(
  canvases: readonly Canvas[],
  regions: readonly Region[],
  { side, patch, block }: Shape,
): Pick<MediumLayout, 'canvases' | 'patches' | 'merge' | 'grids' | 'runs'> {
  const cells = Math.floor(side / patch);
  const [across, tokens] = [cells / block, (cells / block) ** 2];
  const blocks = blockRows(cells, cells, block);
  return {
    canvases,
    patches: squarePatches(canvases.length, cells, patch),
    merge: joinMaps(
      canvases.map(() => blocks),
      canvases.map((_, i) => i * cells * cells),
    ),
    grids: regions.map((region) => {
      return { t: 1, h: across, w: across, frames: [0], cells: cellsOfRegion(region, { size: side, patch, block }) };
    }),
    runs: regions.map((_, grid) => ({ grid, from: grid * tokens, to: (grid + 1) * tokens })),
  };
}
