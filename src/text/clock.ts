// Times of films as text in prompts.

const twoDigits = (n: number): string => String(n).padStart(2, '0');

/** Minutes and seconds, whole seconds only: `01:05`, `75:00`. */
export const minutes = (seconds: number): string =>
  `${twoDigits(Math.floor(seconds / 60))}:${twoDigits(Math.floor(seconds % 60))}`;

/** Python's `str(timedelta(seconds=int(seconds)))`: `0:01:05`, `1 day, 0:00:00`. */
export function hours(seconds: number): string {
  const days = Math.floor(seconds / 86400);
  const within = Math.floor(seconds % 86400);
  const time = `${Math.floor(within / 3600)}:${twoDigits(Math.floor(within / 60) % 60)}:${twoDigits(within % 60)}`;
  return days === 0 ? time : `${days} day${days === 1 ? '' : 's'}, ${time}`;
}
