// The rows of methods on films, whose frames share one budget.

import { evs, evsBudget } from './evs';
import { type MethodEntry, tower } from './method_entry';
import { quota, quotaRows } from './quota';
import { filmBudget } from './shares';
import { storm, stormBudget } from './storm';
import { vCast } from './v_cast';
import { vidCom2 } from './vid_com2';
import { videoScan, videoScanBudget } from './video_scan';

export const FILM_ROWS: readonly MethodEntry[] = [
  {
    name: 'evs',
    title: 'EVS, efficient video sampling',
    stage: 'tower',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'Bagrov et al., arXiv 2510.14624',
    uses: { prefill: true, decode: false },
    keeps: evsBudget,
    create: tower(evs),
  },
  {
    name: 'vidcom2',
    title: 'VidCom2',
    stage: 'tower',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'Liu et al., arXiv 2505.14454',
    uses: { prefill: true, decode: false },
    keeps: filmBudget,
    create: tower(vidCom2),
  },
  {
    name: 'vcast',
    title: 'V-CAST',
    stage: 'tower',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'Lin et al., arXiv 2603.27650',
    uses: { prefill: true, decode: false },
    keeps: filmBudget,
    create: tower(vCast),
  },
  {
    name: 'storm',
    title: 'STORM, temporal sampling',
    stage: 'tower',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'Jiang et al., arXiv 2503.04130',
    uses: { prefill: true, decode: false },
    keeps: stormBudget,
    create: tower(storm),
  },
  {
    name: 'quota',
    title: 'QuoTA',
    stage: 'tower',
    queryAware: true,
    safeForLaterTurns: false,
    source: 'Luo et al., arXiv 2503.08689',
    uses: { prefill: true, decode: false },
    keeps: quotaRows,
    frameScores: true,
    create: tower(quota),
  },
  {
    name: 'videoscan',
    title: 'VideoScan, carriers and their bank',
    stage: 'tower',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'Li et al., arXiv 2503.09387',
    uses: { prefill: true, decode: false },
    keeps: videoScanBudget,
    create: tower(videoScan),
  },
];
