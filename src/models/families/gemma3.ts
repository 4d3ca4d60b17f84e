// Gemma 3 (`gemma3`): SigLIP on one square, whose tokens are means of blocks of patches; a decoder with sliding windows in most layers, in which
// the tokens of a picture attend each other. Pan and scan shows crops of a wide or tall picture beside it.
// Source: transformers 5.24 `modeling_gemma3.py`, `processing_gemma3.py`, `image_processing_pil_gemma3.py`.

import type { Draw } from '../../image/canvas';
import { type Region, type Size, wholePicture } from '../../image/cells';
import type { ResampleFilter } from '../../image/resample';
import type { ConfigReader } from '../../json';
import type { Adapter } from '../adapter';
import type { CheckpointFiles } from '../checkpoint_files';
import { MARKER, type MediumLayout } from '../media';
import { CLIP_NAMES, DECODER_NAMES } from '../names';
import { type Plan, wholeFolder } from '../plan';
import { type ProcessorSpec, parseFilter, parseNormalization, processorSettings, requireSquare } from '../preprocessor';
import { meanRows } from '../row_maps';
import { cellsOf, type SquareTower, squares } from '../squares';
import { siglipTower } from '../tower_config';

export const gemma3: Adapter = { types: ['gemma3'], plan };

/** Defaults of Gemma3ImageProcessor, and those of Gemma3Processor for pan and scan. */
const PROCESSOR: ProcessorSpec = {
  classes: ['Gemma3'],
  defaults: {
    ...{ size: { height: 224, width: 224 }, resample: 2, image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5] },
    ...{ do_pan_and_scan: false, pan_and_scan_min_crop_size: 256, pan_and_scan_max_num_crops: 4 },
    pan_and_scan_min_ratio_to_activate: 1.2,
  },
  steps: ['do_resize', 'do_rescale', 'do_normalize'],
  ignored: ['do_pan_and_scan'],
};

function plan(files: CheckpointFiles): Plan {
  const { folder, root, part, text } = files;
  const tower = { ...siglipTower(part('vision_config')), postNorm: true };
  const { decoder, config } = text({ model_type: 'gemma3_text' });
  const images = processorSettings(files.images, PROCESSOR);
  requireSquare(images, 'size', tower.imageSize);
  const [e, d] = [tower.hiddenSize, decoder.hiddenSize];
  const cells = cellsOf(tower);
  const side = Math.sqrt(root.size('mm_tokens_per_image', 256));
  if (!Number.isInteger(side) || cells % side !== 0)
    throw root.wrong('mm_tokens_per_image', `the square of a divisor of the ${cells} patches per side`);
  const shown: Shown = {
    ...{ tower, block: cells / side, side, filter: parseFilter(images) },
    scan: panAndScan(images),
  };
  return {
    folder,
    family: 'gemma3',
    decoder: { ...decoder, bidirectional: 'media' },
    tower: { ...tower, depth: tower.layers },
    projector: [
      { kind: 'norm', name: 'mm_soft_emb_norm', width: e, bias: false, eps: tower.normEps, plus: 1 },
      {
        kind: 'linear',
        name: 'mm_input_projection',
        rows: d,
        cols: e,
        bias: false,
        activation: 'none',
        transposed: true,
      },
    ],
    sources: wholeFolder(folder),
    names: [
      [/^(?:model\.)?multi_modal_projector\.mm_input_projection_weight$/, 'projector.mm_input_projection.weight'],
      [/^(?:model\.)?multi_modal_projector\./, 'projector.'],
      [/^(?:model\.)?vision_tower\.(?:vision_model\.)?post_layernorm\./, 'tower.post_layernorm.'],
      ...DECODER_NAMES,
      ...CLIP_NAMES,
    ],
    pixels: parseNormalization(images),
    root,
    text: { folder, config },
    marker: { id: root.number(root.has('image_token_id') ? 'image_token_id' : 'image_token_index', 262144) },
    imagePlaceholder: BEGIN,
    videos: false,
    layout: (size) => layout(size, shown),
  };
}

/** `boi_token` and `eoi_token` of Gemma's tokenizer. */
const [BEGIN, END] = ['<start_of_image>', '<end_of_image>'] as const;
const SEQUENCE = `\n\n${BEGIN}${MARKER}${END}\n\n`;

/** When pan and scan makes how many crops; undefined: never. */
interface PanAndScan {
  readonly ratio: number;
  readonly most: number;
  /** Minimum length of a crop's sides, in pixels. */
  readonly smallest: number;
}

function panAndScan(images: ConfigReader): PanAndScan | undefined {
  if (!images.boolean('do_pan_and_scan')) return undefined;
  return {
    ratio: images.float('pan_and_scan_min_ratio_to_activate'),
    most: images.size('pan_and_scan_max_num_crops', undefined, 64),
    smallest: images.size('pan_and_scan_min_crop_size'),
  };
}

/** How pictures are shown: on squares, side × side tokens of block × block patches each. */
interface Shown {
  readonly tower: SquareTower;
  readonly block: number;
  readonly side: number;
  readonly filter: ResampleFilter;
  readonly scan: PanAndScan | undefined;
}

function layout(picture: Size, { tower, block, side, filter, scan }: Shown): MediumLayout {
  const crops = scan === undefined ? [] : cropsOf(picture, scan);
  const regions = [wholePicture(picture), ...crops];
  const resize: Draw = { step: 'resize', to: { width: tower.imageSize, height: tower.imageSize }, filter };
  const text =
    crops.length === 0
      ? SEQUENCE
      : `Here is the original image ${SEQUENCE} and here are some crops to help you see better ${crops.map(() => SEQUENCE).join(' ')}`;
  return {
    ...squares(regions, tower, block),
    kind: 'image',
    canvases: regions.map(({ left, top, ...to }, i) => ({
      frame: 0,
      steps: i === 0 ? [resize] : [{ step: 'crop', to, left, top }, resize],
    })),
    merge: meanRows(regions.length, side * block, side * block, block),
    text,
  };
}

/** The crops of pan and scan, along the longer side of a picture; the last may be smaller. */
function cropsOf({ width, height }: Size, { ratio, most, smallest }: PanAndScan): Region[] {
  const [long, short] = [Math.max(width, height), Math.min(width, height)];
  if (long / short < ratio) return [];
  const wanted = Math.min(Math.floor(long / smallest), Math.floor(long / short + 0.5));
  const count = Math.min(most, Math.max(2, wanted));
  const each = Math.ceil(long / count);
  if (Math.min(each, short) < smallest) return [];
  return Array.from({ length: count }, (_, i) => {
    const own = Math.min(each, long - i * each);
    return width >= height
      ? { left: i * each, top: 0, width: own, height }
      : { left: 0, top: i * each, width, height: own };
  });
}
