// The Levenshtein distance between two texts, in characters (code points). Used by the ANLS score and by "did you mean".

/** The fewest insertions, deletions and substitutions of one character that turn `a` into `b`. O(|a| |b|) time, O(|b|) memory. */
export function editDistance(a: string, b: string): number {
  const [from, to] = [[...a], [...b]];
  // Row i holds the distances of the first i characters of `a` to every prefix of `b`.
  let row = Array.from({ length: to.length + 1 }, (_, j) => j);
  for (const [i, character] of from.entries()) {
    const next = [i + 1];
    for (const [j, other] of to.entries()) {
      const substituted = (row[j] ?? 0) + Number(character !== other);
      next.push(Math.min(substituted, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}
