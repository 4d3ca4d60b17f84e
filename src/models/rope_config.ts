// Rotary embedding in a decoder's config: base, scaling, and the axes of positions.
// Source: transformers 5.24 `modeling_rope_utils.py`.

import type { ConfigReader } from '../json';

export type RopeScaling =
  | { readonly type: 'default' }
  | { readonly type: 'linear'; readonly factor: number }
  | { readonly type: 'dynamic'; readonly factor: number }
  | {
      readonly type: 'llama3';
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPositions: number;
    };

/** How the frequencies are shared by the axes time, row and column; false: positions have one axis. */
export type RopeSections = false | 'in order' | 'interleaved';

/** What a decoder's config says elsewhere, or its class. */
interface RopeFacts {
  readonly headDim: number;
  readonly maxPositions: number;
  /** Default of `rope_theta`. */
  readonly theta: number;
  readonly sections: RopeSections;
  /** Default of `partial_rotary_factor`; absent: 1, and no other value is known. */
  readonly rotaryShare?: number;
  /** Default of `mrope_section` of interleaved axes. */
  readonly sectionCounts?: readonly number[];
}

/** @throws SparseVilaError `ERR_CONFIG_INVALID`, `ERR_CONFIG_UNSUPPORTED` */
export function parseRope(
  config: ConfigReader,
  { headDim, maxPositions, theta, sections, rotaryShare, sectionCounts = [24, 20, 20] }: RopeFacts,
): { ropeTheta: number; ropeScaling: RopeScaling; rotaryDim?: number; ropeAxes?: Uint8Array } {
  const [current, older] = [config.object('rope_parameters'), config.object('rope_scaling')];
  const rope = current ?? older;
  const ropeTheta = rope?.has('rope_theta') ? rope.float('rope_theta') : config.float('rope_theta', theta);
  const rotaryDim = rotaryDimOf(config, rope, headDim, rotaryShare);
  const fastest = Math.fround(ropeTheta ** (2 / rotaryDim - 1));
  if (ropeTheta === 0 || !Number.isFinite(fastest)) throw config.wrong('rope_theta', 'a number above 0 that f32 holds');
  const ropeScaling = rope === undefined ? ({ type: 'default' } as const) : parseScaling(rope, maxPositions, sections);
  const isOlder = (key: string): boolean => older?.has(key) === true;
  if (current !== undefined && (isOlder('type') || isOlder('rope_type') || isOlder('factor'))) {
    const other = parseScaling(older as ConfigReader, maxPositions, sections);
    if (JSON.stringify(other) !== JSON.stringify(ropeScaling))
      throw config.wrong('rope_scaling', 'what "rope_parameters" says');
  }
  return {
    ...{ ropeTheta, ropeScaling },
    ...(rotaryDim !== headDim && { rotaryDim }),
    ...(sections && { ropeAxes: sectionAxes(rope ?? config, rotaryDim / 2, sections, sectionCounts) }),
  };
}

/** Numbers of a head that are rotated: `partial_rotary_factor` of it. */
function rotaryDimOf(
  config: ConfigReader,
  rope: ConfigReader | undefined,
  headDim: number,
  share: number | undefined,
): number {
  const holder = [rope, config].find((part) => part?.has('partial_rotary_factor'));
  if (share === undefined) {
    for (const part of [config, rope])
      if (part && part.float('partial_rotary_factor', 1) !== 1) throw part.unsupported('partial_rotary_factor', '1');
    return headDim;
  }
  const width = Math.trunc(headDim * (holder?.float('partial_rotary_factor') ?? share));
  if (width >= 2 && width <= headDim && width % 2 === 0) return width;
  throw (holder ?? config).wrong('partial_rotary_factor', `a share of head_dim ${headDim} that is an even number`);
}

/**
 * The axis of each frequency. In order: the first `mrope_section[0]` turn with time, the next with rows, the last with columns. Interleaved:
 * time, row, column, time, row, … as long as rows and columns have some left, and then time.
 * Source: transformers 5.24 `apply_multimodal_rotary_pos_emb` (Qwen2-VL), `recomposition_frequencies` (Qwen3-VL).
 */
function sectionAxes(
  rope: ConfigReader,
  half: number,
  sections: 'in order' | 'interleaved',
  interleaved: readonly number[],
): Uint8Array {
  const given: unknown = rope.json.mrope_section ?? (sections === 'interleaved' ? interleaved : undefined);
  const isSection = (value: unknown): value is number => Number.isInteger(value) && Number(value) >= 0;
  const counts = Array.isArray(given) && given.length === 3 && given.every(isSection) ? given : [];
  if (counts.reduce((sum, count) => sum + count, 0) !== half)
    throw rope.wrong('mrope_section', `three counts of the ${half} frequencies, for time, rows and columns`);
  const isInterleaved = sections === 'interleaved';
  if (rope.boolean('mrope_interleaved', isInterleaved) !== isInterleaved)
    throw rope.unsupported('mrope_interleaved', `${isInterleaved}`);
  if (!isInterleaved) return Uint8Array.from(counts.flatMap((count, axis) => new Array<number>(count).fill(axis)));
  return Uint8Array.from({ length: half }, (_, j) => (Math.floor(j / 3) < (counts[j % 3] as number) ? j % 3 : 0));
}

function parseScaling(rope: ConfigReader, maxPositions: number, sections: RopeSections): RopeScaling {
  for (const key of ['full_attention', 'sliding_attention', ...(sections ? [] : ['mrope_section'])])
    if (rope.has(key)) throw rope.unsupported(key, 'nothing');
  const typeOf = (key: string): unknown => (sections && rope.json[key] === 'mrope' ? 'default' : rope.json[key]);
  const key = rope.has('rope_type') ? 'rope_type' : 'type';
  if (!rope.has(key) && rope.has('factor')) throw rope.wrong('rope_type', 'a type beside "factor"');
  if (key === 'rope_type' && rope.has('type') && typeOf('type') !== typeOf('rope_type'))
    throw rope.wrong('type', `what "rope_type" says (${rope.string('rope_type')})`);
  const type = typeOf(key) === 'default' ? 'default' : rope.string(key, 'default');
  if (type === 'default') return { type };
  if (type !== 'linear' && type !== 'dynamic' && type !== 'llama3')
    throw rope.unsupported(key, 'one of default, linear, dynamic, llama3');
  const factor = rope.float('factor');
  if (factor < 1) throw rope.wrong('factor', 'a number of at least 1');
  if (type !== 'llama3') return { type, factor };
  const lowFreqFactor = rope.float('low_freq_factor');
  const highFreqFactor = rope.float('high_freq_factor');
  if (lowFreqFactor === 0) throw rope.wrong('low_freq_factor', 'a number above 0');
  if (highFreqFactor <= lowFreqFactor)
    throw rope.wrong('high_freq_factor', `more than low_freq_factor (${lowFreqFactor})`);
  const originalMaxPositions = rope.size('original_max_position_embeddings', maxPositions);
  return { type, factor, lowFreqFactor, highFreqFactor, originalMaxPositions };
}
