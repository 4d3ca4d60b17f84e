// Settings of an evaluation: turns names and ratios given by a user into a list of settings. Knows no model.

import { SparseVilaError } from '../errors';
import type { SparsityMethod } from '../sparsity/method';
import { METHODS, type MethodEntry } from '../sparsity/methods';
import { canRefresh, refreshed } from '../sparsity/refreshed';
import { type Schedule, scheduled } from '../sparsity/schedule';

export const POSITION_MODES = ['original', 'compact'] as const;
export type Positions = (typeof POSITION_MODES)[number];

export interface Ratios {
  readonly prefillSparsity: number;
  readonly decodeSparsity: number;
}

/** A method with its ratios: a row of the table. */
export interface Setting extends Ratios {
  readonly method: string;
  readonly positions: Positions;
  /** Of the decoder layers while an answer is written; default: all attend what the method retrieves. */
  readonly schedule?: Schedule | undefined;
  /** For methods that retrieve frames; the same in all settings of an evaluation. */
  readonly localFrames?: number;
  /** Number of an answer's tokens after which what it attends is selected again; default: never. */
  readonly refresh?: number | undefined;
}

export const DENSE: Setting = { method: 'dense', prefillSparsity: 0, decodeSparsity: 0, positions: 'original' };

/** 0.4, the share that SparseVILA's image preset (0.6/0.75) keeps at prefill, is this power of 0.1, the share that it attends at decode. */
const PREFILL_POWER = Math.log(0.4) / Math.log(0.1);

/** Checks a name. @throws SparseVilaError `ERR_OPTION_INVALID` for a name that is not in METHODS */
export function methodEntry(name: string): MethodEntry {
  const entry = METHODS.find((method) => method.name === name);
  if (entry !== undefined) return entry;
  const names = METHODS.map((method) => method.name).join(', ');
  throw new SparseVilaError('ERR_OPTION_INVALID', `Expected methods among ${names}, received ${name}.`);
}

/** The methods of a comma-separated list, or all. */
export function parseMethods(list: string): MethodEntry[] {
  if (list === 'all') return [...METHODS];
  return [...new Set(list.split(',').map((name) => name.trim()))].map(methodEntry);
}

/** `0.6/0.75,0.75/0.9`. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function parseRatios(list: string): Ratios[] {
  return list.split(',').map((pair) => {
    const [prefill, decode, ...more] = pair.split('/').map((text) => (text.trim() === '' ? Number.NaN : Number(text)));
    const fits = (value: number | undefined): value is number => value !== undefined && value >= 0 && value < 1;
    if (fits(prefill) && fits(decode) && more.length === 0) return { prefillSparsity: prefill, decodeSparsity: decode };
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected ratios PREFILL/DECODE as shares, each at least 0 and below 1, such as 0.6/0.75, received ${pair}.${inPercent(pair)}`,
    );
  });
}

/** A hint for ratios given in percent. */
function inPercent(pair: string): string {
  const [prefill = -1, decode = -1, ...more] = pair.split('/').map(Number);
  const isPercent = more.length === 0 && [prefill, decode].every((value) => value >= 0 && value < 100);
  return isPercent ? ` Did you mean ${prefill / 100}/${decode / 100}?` : '';
}

/**
 * Ratios at which `share` of the visual tokens is active at decode. A method with one stage drops all there; one with two keeps share^0.398
 * at prefill and drops the rest at decode, which gives SparseVILA's 0.6/0.75 at 0.1.
 */
export function ratiosForShare({ uses }: MethodEntry, share: number): Ratios {
  const rounded = (x: number): number => Math.round(x * 1000) / 1000;
  const kept = uses.prefill ? (uses.decode ? share ** PREFILL_POWER : share) : 1;
  const prefillSparsity = rounded(1 - kept);
  return { prefillSparsity, decodeSparsity: uses.decode ? rounded(1 - share / (1 - prefillSparsity)) : 0 };
}

/** The ratios that a method uses: those of stages that it does not have are 0. */
export function effectiveRatios({ uses }: MethodEntry, { prefillSparsity, decodeSparsity }: Ratios): Ratios {
  return {
    prefillSparsity: uses.prefill ? prefillSparsity : 0,
    decodeSparsity: uses.decode ? decodeSparsity : 0,
  };
}

/** Dense first, then every method with its ratios and position modes, each once. */
export function settingsOf(
  methods: readonly MethodEntry[],
  pointsOf: (entry: MethodEntry) => readonly Ratios[],
  positions: readonly Positions[],
): Setting[] {
  const settings = methods.flatMap((entry) =>
    pointsOf(entry).flatMap((ratios) =>
      positions.map((mode) => {
        const effective = effectiveRatios(entry, ratios);
        // Renumbering has no effect if nothing is dropped.
        return { method: entry.name, ...effective, positions: effective.prefillSparsity === 0 ? 'original' : mode };
      }),
    ),
  );
  return [...new Map([DENSE, ...settings].map((setting) => [nameOf(setting), setting])).values()] as Setting[];
}

/** The sparsity method of a setting. */
export function createMethod({ method, schedule, refresh, ...ratios }: Setting, seed: number): SparsityMethod {
  return answering(methodEntry(method).create({ ...ratios, seed }), { schedule, refresh });
}

/** The method with what a setting says about the writing of answers. */
export function answering(
  method: SparsityMethod,
  { schedule, refresh }: Pick<Setting, 'schedule' | 'refresh'>,
): SparsityMethod {
  const own = schedule === undefined ? method : scheduled(method, schedule);
  return refresh === undefined ? own : refreshed(own, { every: refresh });
}

/** The settings, and again those whose answers can select what they attend again. */
export function withRefresh(settings: readonly Setting[], refresh: number | undefined): readonly Setting[] {
  if (refresh === undefined) return settings;
  return settings.flatMap((setting) =>
    canRefresh(createMethod(setting, 0)) ? [setting, { ...setting, refresh }] : [setting],
  );
}

/** Identifies a setting in one line: `sparsevila 0.6/0.75 original`, or `… refresh 4`. */
export function nameOf(setting: Setting): string {
  const refresh = setting.refresh === undefined ? '' : ` refresh ${setting.refresh}`;
  return `${setting.method} ${ratiosText(setting)} ${setting.positions}${refresh}`;
}

/** `0.6/0.75`: shares with at most three digits after the point. */
export function ratiosText({ prefillSparsity, decodeSparsity }: Ratios): string {
  return [prefillSparsity, decodeSparsity].map((share) => String(Math.round(share * 1000) / 1000)).join('/');
}
