// Timing for benchmarks: a warm-up, then the median of several runs, because other programs can only slow a run down.
// Does not know what runs.

/** Microseconds now. */
export function microseconds(): number {
  return Number(process.hrtime.bigint()) / 1e3;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  const [low = Number.NaN, high = Number.NaN] = [sorted[half - 1 + (sorted.length % 2)], sorted[half]];
  return (low + high) / 2;
}

/** Microseconds of one call of `body`. */
export function time(body: () => void): number {
  const begin = microseconds();
  body();
  return microseconds() - begin;
}

export interface TimeOptions {
  /** Stops after about this long, but not before `least` runs. */
  readonly milliseconds?: number;
  readonly least?: number;
}

/** The median time of a call, in microseconds, after as many warm-up calls as fit into a tenth of the time. */
export function medianTime(body: () => void, { milliseconds = 600, least = 7 }: TimeOptions = {}): number {
  const warm = microseconds() + milliseconds * 100;
  do body();
  while (microseconds() < warm);
  const times: number[] = [];
  const end = microseconds() + milliseconds * 1e3;
  while (times.length < least || microseconds() < end) times.push(time(body));
  return median(times);
}
