// Shows progress: a bar on a terminal, a few plain lines elsewhere (logs, CI). Writes to stderr, because stdout is for results. Does not know
// what progresses.

export interface Progress {
  /** The name of the step; a new name starts a new line or bar. */
  readonly step: string;
  readonly done: number;
  readonly total: number;
  /** `B` is shown as kB, MB or GB; others unchanged. Without a unit only the percentage is shown. */
  readonly unit?: string;
}

export type OnProgress = (progress: Progress) => void;

/** Receives progress; `stop()` cleans up the terminal and may be called more than once. */
export type ProgressReporter = OnProgress & { stop(): void };

/** What a reporter needs of a stream; `process.stderr` has it. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

/** A reporter for `stream` (stderr): bars when it is a terminal and `CI` is not set, else lines. */
export function progressReporter(stream: NodeJS.WriteStream = process.stderr): ProgressReporter {
  if (!stream.isTTY || process.env.CI) return lineReporter(stream);
  try {
    return barReporter(stream);
  } catch {
    return lineReporter(stream); // cli-progress is missing, which doctor reports.
  }
}

const LINE_INTERVAL_MS = 2000;

/**
 * Writes a line when a step starts, one when it ends, and between them at most one per 10 % and 2 s.
 * `now` is the clock, in milliseconds.
 */
export function lineReporter(stream: ProgressStream, now: () => number = Date.now): ProgressReporter {
  let step: string | undefined;
  let lastTenth = 0;
  let lastTime = 0;
  const report = (p: Progress) => {
    const tenth = Math.floor((10 * p.done) / p.total);
    const isNew = p.step !== step;
    const isEnd = p.done >= p.total && lastTenth < 10;
    if (!isNew && !isEnd && (tenth <= lastTenth || now() - lastTime < LINE_INTERVAL_MS)) return;
    step = p.step;
    lastTenth = tenth;
    lastTime = now();
    stream.write(`${p.step}: ${Math.floor((100 * p.done) / p.total)} %${p.unit ? ` (${amount(p)})` : ''}\n`);
  };
  return Object.assign(report, { stop: () => undefined });
}

function barReporter(stream: NodeJS.WriteStream): ProgressReporter {
  // Loaded here, because most runs show no progress.
  const { SingleBar, Presets } = require('cli-progress') as typeof import('cli-progress');
  let step: string | undefined;
  let bar: InstanceType<typeof SingleBar> | undefined;
  const stop = () => {
    bar?.stop();
    bar = undefined;
    step = undefined;
  };
  const report = (p: Progress) => {
    if (p.step !== step) {
      stop();
      step = p.step;
      const format = '{step} {bar} {percentage} %  {amount}  {eta_formatted} left';
      const barsize = barSize(p, stream.columns || 80);
      const options = { stream, format, formatTime, hideCursor: true, etaBuffer: 50, barsize };
      bar = new SingleBar(options, Presets.shades_classic);
      bar.start(p.total, p.done, { step: p.step, amount: amount(p) });
    }
    bar?.update(p.done, { amount: amount(p) });
    // A finished step's bar stays on its line.
    if (p.done >= p.total) bar?.stop();
  };
  return Object.assign(report, { stop });
}

/** The width of the bar, so that its line fits `columns` with the step, ` 100 %  `, the amount and ` 59 min 59 s left`. */
export function barSize(progress: Progress, columns: number): number {
  const rest = progress.step.length + amount({ ...progress, done: progress.total }).length + 28;
  return Math.min(40, Math.max(1, columns - rest));
}

/** `75 s` as `1 min 15 s`. cli-progress passes a word while the time is unknown. */
function formatTime(seconds: number | string): string {
  if (typeof seconds !== 'number' || !Number.isFinite(seconds)) return '…';
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** `12 of 34 MB`, `3 of 9 files`; nothing without a unit. */
export function amount({ done, total, unit }: Progress): string {
  if (unit === undefined) return '';
  if (unit !== 'B') return `${done} of ${total} ${unit}`;
  const [scale, name] = total >= 1e9 ? [1e9, 'GB'] : total >= 1e6 ? [1e6, 'MB'] : [1e3, 'kB'];
  const digits = scale === 1e9 ? 2 : 0;
  return `${(done / scale).toFixed(digits)} of ${(total / scale).toFixed(digits)} ${name}`;
}
