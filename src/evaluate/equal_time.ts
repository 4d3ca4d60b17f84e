// Finds ratios at which methods take equal time on this machine: each method's time is fitted as a line in the share of active visual tokens,
// and the line gives the share at which the method is as fast as the reference.

import type { OnProgress } from '../runtime/progress';
import type { MethodEntry } from '../sparsity/methods';
import { type ConverseOptions, converse, sharedTowerTimes } from './converse';
import type { DataSet } from './data_set';
import { effectiveRatios, methodEntry, type Positions, type Ratios, ratiosForShare, type Setting } from './settings';
import { mean, median } from './summary';

/** SparseVILA's image preset. */
const REFERENCE = { method: 'sparsevila', prefillSparsity: 0.6, decodeSparsity: 0.75 } as const;
const SHARES = [0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1];
const CONVERSATIONS = 8;

export interface EqualTimeOptions extends Omit<ConverseOptions, 'conversation' | 'images' | 'setting'> {
  readonly data: DataSet;
  readonly positions: Positions;
  readonly onProgress?: OnProgress;
}

/** Per method, the ratios whose conversations take as long as SparseVILA's at 0.6/0.75, or the nearest ratios in the method's range. */
export async function equalTimeRatios(
  methods: readonly MethodEntry[],
  options: EqualTimeOptions,
): Promise<Map<string, Ratios>> {
  const reference = methodEntry(REFERENCE.method);
  const candidates = methods
    .filter(({ uses }) => uses.prefill || uses.decode)
    .flatMap((entry) =>
      SHARES.map((share) => ({ entry, share, ratios: ratiosForShare(entry, Math.min(share, 0.999)) })),
    );
  const settings = [{ entry: reference, share: 0, ratios: REFERENCE }, ...candidates].map((candidate) => ({
    ...candidate,
    setting: {
      method: candidate.entry.name,
      ...effectiveRatios(candidate.entry, candidate.ratios),
      positions: options.positions,
    },
  }));
  const times = await measure(
    settings.map(({ setting }) => setting),
    options,
  );
  const target = times[0] as number;
  return new Map(
    methods.map((entry) => {
      if (entry.name === reference.name) return [entry.name, REFERENCE];
      const points = settings
        .map(({ entry: { name }, share }, i) => ({ name, share, ms: times[i] as number }))
        .filter(({ name }, i) => i > 0 && name === entry.name);
      return [entry.name, ratiosForShare(entry, shareAt(points, target))];
    }),
  );
}

/** Median milliseconds of a conversation with each setting; the settings alternate on each conversation. */
async function measure(settings: readonly Setting[], options: EqualTimeOptions): Promise<number[]> {
  const { data, onProgress = () => undefined } = options;
  const conversations = data.conversations.slice(0, CONVERSATIONS);
  const times = settings.map((): number[] => []);
  for (const [i, conversation] of conversations.entries()) {
    onProgress({ step: 'measure times', done: i, total: conversations.length, unit: 'conversations' });
    const images = conversation.images();
    const withTower = sharedTowerTimes();
    for (const [j, setting] of settings.entries()) {
      const results = withTower(setting, await converse({ ...options, conversation, images, setting }));
      // The first conversation only warms up, unless it is the only one.
      if (i > 0 || conversations.length === 1) times[j]?.push(results.reduce((sum, { ms }) => sum + ms.total, 0));
    }
  }
  onProgress({ step: 'measure times', done: 1, total: 1 });
  return times.map(median);
}

/**
 * The share at which the least-squares line through the points equals `target`, clamped to the measured range. If the line does not rise,
 * sparsity saves no time, and the share is 1.
 */
export function shareAt(points: readonly { readonly share: number; readonly ms: number }[], target: number): number {
  if (points.length === 0) return 1;
  const [x, y] = [mean(points.map(({ share }) => share)), mean(points.map(({ ms }) => ms))];
  const covariance = points.reduce((sum, { share, ms }) => sum + (share - x) * (ms - y), 0);
  const slope = covariance / points.reduce((sum, { share }) => sum + (share - x) ** 2, 0);
  const share = slope > 0 ? x + (target - y) / slope : 1;
  return Math.min(0.999, Math.max(SHARES[0] as number, Math.round(share * 100) / 100));
}
