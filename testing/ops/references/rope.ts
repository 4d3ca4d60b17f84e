// The definition of `rope`, in double precision.

/** The definition of `rope`; table laid out as `ropeTable`'s. */
export function ropeReference(x: ArrayLike<number>, table: ArrayLike<number>, heads: number, c: number): Float64Array {
  const half = c / 2;
  const t = x.length / (heads * c);
  const y = new Float64Array(x.length);
  for (let i = 0; i < t; i++)
    for (let h = 0; h < heads; h++)
      for (let j = 0; j < half; j++) {
        const at = (i * heads + h) * c + j;
        const [a, b] = [x[at] as number, x[at + half] as number];
        const [cos, sin] = [table[i * half + j] as number, table[(t + i) * half + j] as number];
        y[at] = a * cos - b * sin;
        y[at + half] = b * cos + a * sin;
      }
  return y;
}
