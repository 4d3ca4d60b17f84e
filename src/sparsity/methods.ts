// The table of methods, which evaluation, the command line and the specs read. A new method is one file and one entry here;
// an entry has nine lines, which is why this file is long.

import { COUNT, checkOptions, SEED } from '../options';
import { BASELINE_ROWS } from './baseline_methods';
import { cdPruner } from './cd_pruner';
import { dart } from './dart';
import { dense } from './dense';
import { divPrune } from './div_prune';
import { fastV } from './fast_v';
import { FILM_ROWS } from './film_methods';
import { hiPrune } from './hi_prune';
import { holoV } from './holo_v';
import { type MethodEntry, type MethodOption, tower } from './method_entry';
import { mmTok } from './mm_tok';
import { POSITIONS, SHARE } from './options';
import { pixelPrune } from './pixel_prune';
import { pruMerge, pruMergePlus } from './pru_merge';
import { pyramidDrop } from './pyramid_drop';
import { quest } from './quest';
import { reKv } from './re_kv';
import { snapKv } from './snap_kv';
import { sparseVila } from './sparse_vila';
import { sparseVlm, sparseVlmPlus } from './sparse_vlm';
import { stcCacher } from './stc_cacher';
import { vScan } from './v_scan';
import { visionZip } from './vision_zip';

export type { MethodEntry, MethodOption, MethodRatios } from './method_entry';

const ROWS: readonly MethodEntry[] = [
  {
    name: 'dense',
    title: 'Dense',
    stage: 'none',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'baseline',
    uses: { prefill: false, decode: false },
    create: () => dense(),
  },
  {
    name: 'sparsevila',
    title: 'SparseVILA',
    stage: 'tower + decode',
    queryAware: true,
    safeForLaterTurns: true,
    source: 'Khaki et al., arXiv 2510.17777',
    uses: { prefill: true, decode: true },
    options: ['salienceLayer', 'budget'],
    create: ({ seed: _, ...ratios }) => sparseVila(ratios),
  },
  {
    name: 'sparsevila+',
    title: 'SparseVILA, half spread, first layer dense',
    stage: 'tower + decode',
    queryAware: true,
    safeForLaterTurns: true,
    source: 'options of ours on arXiv 2510.17777',
    uses: { prefill: true, decode: true },
    denseLayers: 1,
    create: ({ seed: _, ...ratios }) => ({
      ...sparseVila({ ...ratios, spread: 0.5, denseLayers: 1 }),
      name: 'sparsevila+',
    }),
  },
  {
    name: 'pixelprune',
    title: 'PixelPrune',
    stage: 'before tower',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'arXiv 2604.00886',
    uses: { prefill: false, decode: false },
    create: ({ positions }) => pixelPrune(positions === undefined ? {} : { positions }),
  },
  {
    name: 'stc',
    title: 'STC-Cacher',
    stage: 'inside encoder',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'arXiv 2512.00891',
    uses: { prefill: false, decode: false },
    create: () => stcCacher(),
  },
  {
    name: 'visionzip',
    title: 'VisionZip',
    stage: 'tower',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'Yang et al., arXiv 2412.04467',
    uses: { prefill: true, decode: false },
    create: tower(visionZip),
  },
  {
    name: 'prumerge',
    title: 'PruMerge',
    stage: 'tower',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'Shang et al., arXiv 2403.15388',
    uses: { prefill: true, decode: false },
    create: tower(pruMerge),
  },
  {
    name: 'prumerge+',
    title: 'PruMerge+',
    stage: 'tower',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'Shang et al., arXiv 2403.15388',
    uses: { prefill: true, decode: false },
    create: tower(pruMergePlus),
  },
  {
    name: 'divprune',
    title: 'DivPrune',
    stage: 'tower',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'Alvar et al., arXiv 2503.02175',
    uses: { prefill: true, decode: false },
    create: tower(divPrune),
  },
  {
    name: 'hiprune',
    title: 'HiPrune',
    stage: 'tower',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'Liu et al., arXiv 2508.00553',
    uses: { prefill: true, decode: false },
    create: tower(hiPrune),
  },
  {
    name: 'dart',
    title: 'DART',
    stage: 'tower',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'Wen et al., arXiv 2502.11494',
    uses: { prefill: true, decode: false },
    create: tower(dart),
  },
  {
    name: 'holov',
    title: 'HoloV',
    stage: 'tower',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'Zou et al., arXiv 2510.02912',
    uses: { prefill: true, decode: false },
    create: tower(holoV),
  },
  {
    name: 'mmtok',
    title: 'MMTok, vision term',
    stage: 'tower',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'Dong et al., arXiv 2508.18264',
    uses: { prefill: true, decode: false },
    create: tower(mmTok),
  },
  {
    name: 'cdpruner',
    title: 'CDPruner',
    stage: 'tower',
    queryAware: true,
    safeForLaterTurns: false,
    source: 'Zhang et al., arXiv 2506.10967',
    uses: { prefill: true, decode: false },
    create: tower(cdPruner),
  },
  {
    name: 'fastv',
    title: 'FastV',
    stage: 'prefill',
    queryAware: true,
    safeForLaterTurns: false,
    source: 'Chen et al., arXiv 2403.06764',
    uses: { prefill: true, decode: false },
    create: ({ prefillSparsity }) => fastV({ prefillSparsity }),
  },
  {
    name: 'pyramiddrop',
    title: 'PyramidDrop',
    stage: 'prefill',
    queryAware: true,
    safeForLaterTurns: false,
    source: 'Xing et al., arXiv 2410.17247',
    uses: { prefill: true, decode: false },
    create: ({ prefillSparsity }) => pyramidDrop({ prefillSparsity }),
  },
  {
    name: 'sparsevlm',
    title: 'SparseVLM',
    stage: 'prefill',
    queryAware: true,
    safeForLaterTurns: false,
    source: 'Zhang et al., arXiv 2410.04417',
    uses: { prefill: true, decode: false },
    create: ({ prefillSparsity }) => sparseVlm({ prefillSparsity }),
  },
  {
    name: 'sparsevlm+',
    title: 'SparseVLM+',
    stage: 'prefill',
    queryAware: true,
    safeForLaterTurns: false,
    source: 'Zhang et al., arXiv 2410.04417',
    uses: { prefill: true, decode: false },
    create: ({ prefillSparsity }) => sparseVlmPlus({ prefillSparsity }),
  },
  {
    name: 'vscan',
    title: 'VScan',
    stage: 'tower + prefill',
    queryAware: true,
    safeForLaterTurns: false,
    source: 'Zhang et al., arXiv 2505.22654',
    uses: { prefill: true, decode: false },
    create: tower(vScan),
  },
  {
    name: 'snapkv',
    title: 'SnapKV',
    stage: 'decode',
    queryAware: true,
    safeForLaterTurns: false,
    source: 'Li et al., arXiv 2404.14469',
    uses: { prefill: false, decode: true },
    create: ({ decodeSparsity }) => snapKv({ decodeSparsity }),
  },
  {
    name: 'quest',
    title: 'Quest-style pages',
    stage: 'decode',
    queryAware: true,
    safeForLaterTurns: true,
    source: 'after Tang et al., arXiv 2406.10774',
    uses: { prefill: false, decode: true },
    create: ({ decodeSparsity }) => quest({ decodeSparsity }),
  },
  {
    name: 'rekv',
    title: 'ReKV-style frames, then rows',
    stage: 'decode',
    queryAware: true,
    safeForLaterTurns: true,
    source: 'after Di et al., arXiv 2503.00540',
    uses: { prefill: false, decode: true },
    options: ['localFrames'],
    // Each level leaves out the same share.
    create: ({ decodeSparsity, localFrames }) =>
      reKv({
        ...(localFrames && { localFrames }),
        ...(decodeSparsity && { decodeSparsity, frameSparsity: 1 - Math.sqrt(1 - decodeSparsity) }),
      }),
  },
  ...FILM_ROWS,
  ...BASELINE_ROWS,
];

const RATIOS = { prefillSparsity: SHARE, decodeSparsity: SHARE, positions: POSITIONS, seed: SEED, localFrames: COUNT };

/** Whether a method takes an option of the command line. */
export function takesOption(entry: MethodEntry, option: MethodOption): boolean {
  if (option === 'prefillSparsity') return entry.uses.prefill;
  if (option === 'decodeSparsity') return entry.uses.decode;
  if (option === 'positions') return entry.stage.includes('tower');
  return entry.options?.includes(option) ?? false;
}

export const METHODS: readonly MethodEntry[] = ROWS.map((row) => ({
  ...row,
  create: (ratios) => row.create(checkOptions(row.name, ratios, RATIOS)),
}));
