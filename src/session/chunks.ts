// The chunks in which the rows of a prefill run through the decoder.

/** Maximum number of rows per op call: bounds scratch memory and the time between calls of `pace`. */
export const CHUNK = 512;

/** Splits 0 .. n - 1 into chunks such that no chunk contains one of `cuts` in its inside, and none ends before `ends` of its rows. */
export function chunks(n: number, cuts: readonly number[], ends?: Int32Array): { begin: number; end: number }[] {
  const borders = [...new Set([...cuts, n])].filter((row) => row > 0 && row <= n).sort((a, b) => a - b);
  const made: { begin: number; end: number }[] = [];
  for (const border of borders)
    for (let begin = made.at(-1)?.end ?? 0; begin < border; begin = made.at(-1)?.end ?? n) {
      const end = Math.min(border, begin + CHUNK);
      made.push({ begin, end: ends?.[end - 1] ?? end });
    }
  return made;
}
