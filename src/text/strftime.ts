// Python's `datetime.strftime` in the C locale, which chat templates call as `strftime_now`: the directives for dates and times.
// Source: Python's documentation of strftime() format codes.

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'] as const;
const MONTHS = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
] as const;

const two = (value: number): string => String(value).padStart(2, '0');

const DIRECTIVES: Readonly<Record<string, (date: Date) => string>> = {
  Y: (date) => String(date.getFullYear()),
  y: (date) => two(date.getFullYear() % 100),
  m: (date) => two(date.getMonth() + 1),
  d: (date) => two(date.getDate()),
  e: (date) => String(date.getDate()).padStart(2, ' '),
  B: (date) => MONTHS[date.getMonth()] ?? '',
  b: (date) => (MONTHS[date.getMonth()] ?? '').slice(0, 3),
  A: (date) => DAYS[date.getDay()] ?? '',
  a: (date) => (DAYS[date.getDay()] ?? '').slice(0, 3),
  H: (date) => two(date.getHours()),
  I: (date) => two(date.getHours() % 12 || 12),
  M: (date) => two(date.getMinutes()),
  S: (date) => two(date.getSeconds()),
  p: (date) => (date.getHours() < 12 ? 'AM' : 'PM'),
  '%': () => '%',
};

/**
 * Formats `date` in the local time zone; `%-d` is `%d` without leading zeros.
 * @throws Error for a format that is not text or has an unknown directive
 */
export function strftime(date: Date, format: unknown): string {
  if (typeof format !== 'string') throw new Error('strftime_now() expects a format');
  return format.replace(/%(-?)([a-zA-Z%])/g, (text, bare: string, name: string) => {
    const directive = Object.hasOwn(DIRECTIVES, name) ? DIRECTIVES[name] : undefined;
    if (directive === undefined) throw new Error(`strftime_now() does not know ${text}`);
    return bare === '' ? directive(date) : directive(date).replace(/^[0 ](?=.)/, '');
  });
}
