// A plan: everything that is specific to a family and a checkpoint, made from config files alone. `load`, `inspect`, `quantize` and `convert`
// read plans.

import type { QuantizationConfig } from '../checkpoint/quantized_config';
import type { Normalization } from '../image/preprocessor_config';
import type { ConfigReader } from '../json';
import type { DecoderConfig } from './config';
import type { FrameSampling } from './frame_sampling';
import type { MediumLayout, MediumSize, TurnMedia } from './media';
import type { NameRule } from './names';
import type { ProjectorStep } from './projector';
import type { TowerConfig } from './tower';

/** The parts of a model; the canonical names of a part's tensors begin with its name and a dot. */
export const PARTS = ['decoder', 'tower', 'projector'] as const;
export type PartName = (typeof PARTS)[number];

/** The folder and names of a part's tensors. */
export interface PartSource {
  readonly folder: string;
  /** Prefix that is added to each name in the folder's files before the name rules apply. */
  readonly prefix: string;
  /** The quantization config to use if the part's own config has none. */
  readonly quantization?: QuantizationConfig | undefined;
}

/** The sources of a checkpoint that has all parts in its folder. */
export function wholeFolder(folder: string): Readonly<Record<PartName, PartSource>> {
  const source = { folder, prefix: '' };
  return { decoder: source, tower: source, projector: source };
}

/** The sources of tokenizer, chat template and generation config. */
export interface TextSource {
  readonly folder: string;
  /** The config that holds the decoder's fields, such as `eos_token_id`. */
  readonly config: ConfigReader;
  /** Tokens that the model's code adds to a tokenizer that lacks them. */
  readonly added?: readonly string[];
  /** A chat template that the root config names, and the file that names it. */
  readonly template?: { readonly name: string; readonly file: string } | undefined;
  /** Whether prompts begin as the tokenizer begins a text (with BOS), unless the template does; default true. */
  readonly startsTexts?: boolean;
  /** Whether the model's code strips a message before it is templated. */
  readonly strips?: boolean;
}

export interface Plan {
  /** The checkpoint's folder. */
  readonly folder: string;
  /** `model_type` of the checkpoint. */
  readonly family: string;
  readonly decoder: DecoderConfig;
  readonly tower: TowerConfig;
  /** The steps from a token's features to a row for the decoder. */
  readonly projector: readonly ProjectorStep[];
  /**
   * The same for each of the tower's `deepstack` states: rows that are added to the visual rows that leave the first decoder layers, one
   * list for each layer.
   */
  readonly deepstack?: readonly (readonly ProjectorStep[])[];
  /** Name of a learned row of the decoder's width among the projector's tensors, which runs may be followed by (`image_newline`). */
  readonly newline?: string;
  readonly sources: Readonly<Record<PartName, PartSource>>;
  readonly names: readonly NameRule[];
  readonly pixels: Normalization;
  /** The root config. */
  readonly root: ConfigReader;
  readonly text: TextSource;
  /** The marker of one run of visual rows: its id, or its text if the config has no id. */
  readonly marker: { readonly id: number } | { readonly text: string };
  /** What the chat template prints for an image; absent: the marker. */
  readonly imagePlaceholder?: string;
  /** What the chat template prints for a video; absent: videos are shown to it as images. */
  readonly videoPlaceholder?: string;
  /** Whether videos are taken. */
  readonly videos: boolean;
  /** Which frames of a film are looked at. Absent: eight, evenly. */
  readonly sampling?: FrameSampling;
  /** The layout of one of the media of a turn: some families show one picture differently from several. */
  layout(size: MediumSize, turn: TurnMedia): MediumLayout;
}
