// Which frames of a film a family looks at: pure functions of the number of frames and their rate. Each plan names its rule and the settings of
// its config files.
// Source: transformers 5.24 `sample_frames` of the families' video processors and `default_sample_indices_fn` of `video_utils.py`; NVlabs/VILA
// `llava/utils/media.py`.

import { halfEven } from '../image/smart_resize';
import type { ConfigReader } from '../json';

/** A film, or a segment of one, before sampling. */
export interface FilmLength {
  /** Number of frames, at least 1. */
  readonly frames: number;
  /** Frames per second. */
  readonly fps: number;
}

/** The settings of a rule. Where both are given, `frames` is used and `fps` only where a rule says so. */
export interface SamplingSettings {
  /** Number of frames to take. */
  readonly frames?: number | undefined;
  /** Frames to take per second. */
  readonly fps?: number | undefined;
  readonly min?: number | undefined;
  readonly max?: number | undefined;
  /** The number of frames is a multiple of this. Default 1. */
  readonly multiple?: number;
  /** InternVL's shift of the first frame: true for the middle of its share, or a number of frames. Default true. */
  readonly shift?: boolean | number;
}

export interface FrameSampling extends SamplingSettings {
  readonly rule: SamplingRule;
}

/** What a caller asks for instead of the family's defaults. */
export interface SamplingOverrides {
  readonly fps?: number | undefined;
  readonly maxFrames?: number | undefined;
}

/** Maximum number of frames of rules that have no maximum of their own, as in Qwen's processors. */
export const MOST_FRAMES = 768;

type Rule = (film: FilmLength, settings: SamplingSettings) => number[];

/** The rules by family. Each returns indices of frames, ascending. */
const RULES = {
  /** Qwen2-VL and Qwen2.5-VL: the first frame of each of equal shares, their number a multiple of the frames of a patch. */
  qwen2({ frames: total, fps: rate }, { frames, fps, min = 4, max = MOST_FRAMES, multiple = 2 }) {
    const wanted =
      frames === undefined && fps !== undefined
        ? Math.min(Math.max((total / rate) * fps, min), floorTo(Math.min(max, total), multiple))
        : halfEven((frames ?? total) / multiple) * multiple;
    return shares(total, within(floorTo(wanted, multiple), total), 0);
  },

  /** Qwen3-VL: evenly from the first to the last frame. */
  qwen3({ frames: total, fps: rate }, { frames, fps, min = 4, max = MOST_FRAMES }) {
    const wanted = frames ?? Math.max(fps === undefined ? total : Math.trunc((total / rate) * fps), min);
    return spread(0, total - 1, within(Math.min(wanted, max), total)).map(halfEven);
  },

  /** InternVL: the middle of each of equal shares. */
  internvl({ frames: total, fps: rate }, { frames, fps = 1, max = MOST_FRAMES, shift = true }) {
    const wanted = within(Math.min(frames ?? Math.trunc((total / rate) * fps), max), total);
    return shares(total, wanted, shift === true ? total / wanted / 2 : Number(shift));
  },

  /** SmolVLM2: evenly, without the first and last second of films that are longer than the model takes. */
  smolvlm({ frames: total, fps: rate }, { frames = 64, fps = 1, max = MOST_FRAMES }) {
    const [seconds, most] = [total / rate, Math.min(frames, max)];
    const wanted = Math.max(1, Math.min(halfEven(fps * seconds), most));
    const isLong = seconds - 2 * SKIPPED > most * fps;
    const first = isLong ? Math.trunc(SKIPPED * rate) : 0;
    const last = isLong ? Math.min(Math.trunc(total - SKIPPED * rate), total - 1) : total - 1;
    const [from, to] = first < last ? [first, last] : [0, total - 1];
    return [...new Set(spread(from, to, wanted).map(Math.floor))];
  },

  /** VILA: evenly from the first to the last frame; a film of fewer frames repeats them. */
  vila({ frames: total, fps: rate }, { frames, fps, max = MOST_FRAMES, multiple = 1 }) {
    const wanted = frames ?? Math.ceil((total / rate) * (fps ?? 1));
    return spread(0, total - 1, Math.max(multiple, floorTo(Math.min(wanted, max), multiple))).map(halfEven);
  },

  /** Every other family: the first frame of each of equal shares. */
  uniform({ frames: total, fps: rate }, { frames, fps, max = MOST_FRAMES }) {
    const wanted = frames ?? (fps === undefined ? total : Math.trunc((total / rate) * fps));
    const count = within(Math.min(wanted, max), total);
    return Array.from({ length: count }, (_, i) => Math.floor((i * total) / count));
  },
} as const satisfies Readonly<Record<string, Rule>>;

export type SamplingRule = keyof typeof RULES;

/** Seconds that SmolVLM2 leaves out at both ends of a long film. */
const SKIPPED = 1;

/** The frames to look at: the family's rule, with the caller's rate or maximum. */
export function sampleFrames(
  { rule, ...own }: FrameSampling,
  film: FilmLength,
  overrides: SamplingOverrides = {},
): number[] {
  const { fps, maxFrames } = overrides;
  const least = (value: number | undefined): number | undefined =>
    value === undefined || maxFrames === undefined ? (value ?? maxFrames) : Math.min(value, maxFrames);
  const frames = fps === undefined || rule === 'smolvlm' ? own.frames && least(own.frames) : undefined;
  const min = own.min && least(own.min);
  return RULES[rule](film, { ...own, frames, min, fps: fps ?? own.fps, max: least(own.max) });
}

/** `num_frames`, `fps`, `min_frames` and `max_frames` of a video processor, over defaults for those that it does not give. */
export function samplingSettings(videos: ConfigReader, defaults: SamplingSettings): SamplingSettings {
  const frames = videos.has('num_frames') ? videos.size('num_frames') : undefined;
  const fps = videos.has('fps') ? videos.float('fps') : undefined;
  const given =
    frames === undefined && fps === undefined ? { frames: defaults.frames, fps: defaults.fps } : { frames, fps };
  const bound = (key: 'min_frames' | 'max_frames', otherwise: number | undefined) =>
    videos.has(key) ? videos.size(key) : otherwise;
  return {
    ...{ ...defaults, ...given },
    ...{ min: bound('min_frames', defaults.min), max: bound('max_frames', defaults.max) },
  };
}

const floorTo = (count: number, multiple: number): number => Math.floor(count / multiple) * multiple;

/** At least one frame, and no more than there are; transformers refuses more. */
const within = (count: number, total: number): number => Math.max(1, Math.min(count, total));

/** Numpy's linspace: `count` numbers from `first` to `last`. */
function spread(first: number, last: number, count: number): number[] {
  const step = count > 1 ? (last - first) / (count - 1) : 0;
  return Array.from({ length: count }, (_, i) => (i > 0 && i === count - 1 ? last : first + i * step));
}

/** Torch's `arange(shift, total, total / count).int()`, whose numbers are f32. */
function shares(total: number, count: number, shift: number): number[] {
  const step = total / count;
  const indices = Array.from({ length: count }, (_, i) => Math.trunc(Math.fround(shift + i * step)));
  return indices.filter((index) => index < total);
}
