// The number of rows that methods which drop between layers keep in each stage, for a given mean over all layers.

import type { DropView } from './method';
import { budget } from './top_k';

/**
 * Number of rows to keep in a stage. `bases` are the shares that the method's authors keep in its stages. Stage i keeps bases[i]^g of the
 * initial rows, at least one, with the single g >= 0 for which the mean over all layers (all rows before the first stage) is `keep`.
 * Therefore keep = 1 keeps all rows, and the authors' own mean gives their shares. If the layers before the first stage alone exceed
 * `keep`, every stage keeps one row.
 */
export function stageBudget(
  { stage, starts, layers, total }: DropView,
  bases: readonly number[],
  keep: number,
): number {
  const mean = (g: number): number =>
    starts.reduce(
      (sum, start, i) => sum + ((starts[i + 1] ?? layers) - start) * (bases[i] as number) ** g,
      starts[0] ?? 0,
    ) / layers;
  let [low, high] = [0, 256];
  for (let i = 0; i < 64; i++) {
    const middle = (low + high) / 2;
    if (mean(middle) > keep) low = middle;
    else high = middle;
  }
  return budget(total, 1 - (bases[stage] as number) ** (keep === 1 ? 0 : high));
}
