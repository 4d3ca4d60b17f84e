// Describes a checkpoint folder from its config files and safetensors headers; reads no tensor and needs no engine. Uses the plan that loading
// uses; the builders of tower, projector and decoder request the tensors that they need.

import type { Size } from '../image/cells';
import type { KvType } from '../ops/kv_cache';
import { type Check, checkOptions, checkValue, listOf, NAME, OBJECT } from '../options';
import { buildParts, indexOptions, textSide } from './assemble';
import type { DecoderConfig } from './config';
import {
  attempt,
  type Count,
  countedWeights,
  emptyCount,
  NO_WEIGHTS,
  type Problem,
  type Storage,
} from './counted_weights';
import { decoder } from './decoder';
import { allStateBytes, rowBytes } from './kv_cache';
import { planOf } from './load';
import { tokensOf } from './media';
import { PARTS, type PartName, type Plan } from './plan';
import type { ProjectorStep } from './projector';
import type { TowerConfig } from './tower';
import { extraWeights, isOptionalBias, type WeightIndex, weightIndex } from './weight_index';

export type { Problem, Storage } from './counted_weights';

export interface InspectOptions {
  /** Sizes of pictures whose visual tokens are counted, in pixels; default 448x448 and 1920x1080. */
  readonly images?: readonly Size[];
}

export interface PartInspection {
  readonly parameters: number;
  /** Number of bytes in the files. */
  readonly bytes: number;
  /** Number of parameters per form, such as `bf16` or `4 bits (awq-gemm), groups of 128`. */
  readonly formats: Readonly<Record<string, number>>;
}

export interface Inspection {
  readonly folder: string;
  /** `model_type` of the checkpoint. */
  readonly family: string;
  readonly config: {
    readonly decoder: DecoderConfig;
    readonly tower: TowerConfig;
    readonly projector: readonly ProjectorStep[];
  };
  readonly parts: Readonly<Record<PartName, PartInspection>>;
  /** Maximum number of tokens of a conversation. */
  readonly contextLength: number;
  /** For one picture in a turn: its visual tokens, and the canvases that the tower sees. */
  readonly images: readonly (Size & { readonly tokens: number; readonly tiles: number })[];
  /** Bytes of the loaded weights, per value of the load option `weights`. */
  readonly memory: Readonly<Record<Storage, number>>;
  /** Bytes of KV cache per token, per value of the session option `kv`. */
  readonly kvBytesPerToken: Readonly<Record<KvType, number>>;
  /** Bytes of the states of a conversation, however long it is; a mark takes as many. 0 unless layers keep states. */
  readonly stateBytes: number;
  /** The errors that `load` would throw, in order; empty if it would load, provided that its tensors are finite. */
  readonly problems: readonly Problem[];
  /** Biases that the model does not have. They must be zeros, which only loading can check. */
  readonly zeroBiases: readonly string[];
  /** Features of the model that are not supported here, with reasons. */
  readonly unsupported: readonly { readonly what: string; readonly why: string }[];
}

const DEFAULT_IMAGES: readonly Size[] = [
  { width: 448, height: 448 },
  { width: 1920, height: 1080 },
];

const isSide = (side: unknown): boolean => Number.isSafeInteger(side) && (side as number) > 0;
const IMAGE: Check = {
  expected: 'a size in pixels',
  accepts: (value) => OBJECT.accepts(value) && isSide((value as Size).width) && isSide((value as Size).height),
};

/**
 * Describes the checkpoint folder `path`.
 * @throws SparseVilaError `ERR_OPTION_INVALID`; `ERR_MODEL_…` and `ERR_CONFIG_…` for unsupported models, as `load`. Errors of weights, tokenizer
 *   and template are in `problems`.
 */
export async function inspect(path: string, options?: InspectOptions): Promise<Inspection> {
  const { images = DEFAULT_IMAGES } = checkInspect(path, options);
  const plan = planOf(path);
  const problems: Problem[] = [];
  attempt(problems, [], () => textSide(plan, {}));
  const counts = await countWeights(plan, problems);
  const { maxPositions } = plan.decoder;
  const sum = (storage: Storage): number => PARTS.reduce((all, part) => all + counts[part].memory[storage], 0);
  return {
    folder: plan.folder,
    family: plan.family,
    config: { decoder: plan.decoder, tower: plan.tower, projector: plan.projector },
    parts: perPart((part) => {
      const { parameters, bytes, formats } = counts[part];
      return { parameters, bytes, formats: Object.fromEntries(formats) };
    }),
    contextLength: maxPositions,
    images: images.map(({ width, height }) => {
      const layout = plan.layout({ kind: 'image', width, height, frames: 1 }, { media: 1 });
      return { width, height, tokens: tokensOf(layout), tiles: layout.patches.segments.length - 1 };
    }),
    memory: { stored: sum('stored'), f32: sum('f32'), f16: sum('f16'), bf16: sum('bf16') },
    kvBytesPerToken: { bf16: rowBytes(plan.decoder, 'bf16'), f32: rowBytes(plan.decoder, 'f32') },
    stateBytes: allStateBytes(plan.decoder),
    problems,
    zeroBiases: PARTS.flatMap((part) => counts[part].zeroBiases),
    unsupported: plan.videos ? [] : [{ what: 'videos', why: `models of type ${plan.family} take images only` }],
  };
}

/** Checks the arguments of `inspect`. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function checkInspect(path: string, options: InspectOptions | undefined): InspectOptions {
  checkValue('inspect', 'path', path, NAME);
  return checkOptions<InspectOptions>('inspect', options, {
    images: listOf('sizes { width, height } in pixels', IMAGE),
  });
}

const perPart = <T>(make: (part: PartName) => T): Record<PartName, T> => ({
  decoder: make('decoder'),
  tower: make('tower'),
  projector: make('projector'),
});

/** Lets the model's own builders request its tensors, and counts them. */
async function countWeights(plan: Plan, problems: Problem[]): Promise<Record<PartName, Count>> {
  const counts = perPart(emptyCount);
  const opened = new Map<PartName, WeightIndex>();
  // In the order of `assemble`, so that the first problem is the one at which loading fails.
  for (const part of ['tower', 'projector', 'decoder'] as const) {
    const index = attempt(problems, [], () => weightIndex(plan.sources[part].folder, indexOptions(plan, part)));
    if (index !== undefined) opened.set(part, index);
  }
  const weights = perPart((part) => {
    const index = opened.get(part);
    return index === undefined ? NO_WEIGHTS : countedWeights(index, counts[part], problems);
  });
  await buildParts(plan, weights, decoder, async () => undefined);
  for (const [part, index] of opened) {
    const rest = index.rest().filter(([{ bytes }]) => bytes > 0);
    // A bias of a layer that exists is allowed if it is zero.
    const layers = new Set(rest.filter(([, name]) => !name.endsWith('.bias')).map(([, name]) => layerOf(name)));
    const mayBe = ([entry, name]: (typeof rest)[number]): boolean =>
      isOptionalBias(entry, name) && !layers.has(layerOf(name));
    for (const [, name] of rest.filter(mayBe)) counts[part].zeroBiases.push(name);
    const names = rest.filter((one) => !mayBe(one)).map(([, name]) => name);
    if (names.length > 0)
      attempt(problems, names, () => {
        throw extraWeights(plan.sources[part].folder, names, plan.family);
      });
  }
  return counts;
}

/** A tensor's name without its last part. */
const layerOf = (name: string): string => name.slice(0, name.lastIndexOf('.'));
