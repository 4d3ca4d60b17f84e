// Divides a budget among parts by their weights.

/**
 * Whole numbers that add up to `total`, in proportion to `weights` (at least 0, not all 0), each at most its cap: floors, then one more for
 * the parts of the largest weights. What a full part cannot take goes to the others in the same way.
 * @param total at most the sum of the caps
 */
export function allocate(weights: readonly number[], caps: readonly number[], total: number): number[] {
  const counts = caps.map(() => 0);
  const room = (part: number): number => (caps[part] as number) - (counts[part] as number);
  for (let left = total; left > 0; ) {
    const open = [...caps.keys()].filter((part) => room(part) > 0);
    const sum = open.reduce((all, part) => all + (weights[part] as number), 0);
    const shares = open.map((part) =>
      sum > 0 ? Math.floor((left * (weights[part] as number)) / sum) : Math.floor(left / open.length),
    );
    const before = left;
    for (const [i, part] of open.entries()) {
      const given = Math.min(shares[i] as number, room(part));
      counts[part] = (counts[part] as number) + given;
      left -= given;
    }
    // The floors gave all that they can: the rest, fewer than there are parts, one by one.
    const isEven = open.every((part) => room(part) > 0) || before === left;
    if (!isEven) continue;
    for (const part of open.sort((a, b) => (weights[b] as number) - (weights[a] as number) || a - b)) {
      if (left === 0 || room(part) === 0) continue;
      counts[part] = (counts[part] as number) + 1;
      left--;
    }
  }
  return counts;
}
