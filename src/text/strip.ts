// Python's `str.strip`, which templates and VILA's code apply to messages. JavaScript's `trim` strips U+FEFF, which Python does not, and does
// not strip U+001C to U+001F and U+0085, which Python does.

const SPACES = new Set(
  '\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000',
);

/** `text` without white space at its end. */
export function stripEnd(text: string): string {
  let end = text.length;
  while (end > 0 && SPACES.has(text.charAt(end - 1))) end--;
  return text.slice(0, end);
}

/** `text` without white space at both ends. */
export function strip(text: string): string {
  let start = 0;
  while (start < text.length && SPACES.has(text.charAt(start))) start++;
  return stripEnd(text.slice(start));
}
