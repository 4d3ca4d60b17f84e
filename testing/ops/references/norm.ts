// The definitions of `rmsNorm` and `layerNorm`, in double precision.

/** Rows of x [t, d] by weights w [d]: y [t, d]. */
export function rmsNormReference(x: ArrayLike<number>, w: ArrayLike<number>, eps: number): Float64Array {
  const d = w.length;
  const y = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += d) {
    let sum = 0;
    for (let c = 0; c < d; c++) sum += (x[row + c] as number) ** 2;
    const inverse = 1 / Math.sqrt(sum / d + eps);
    for (let c = 0; c < d; c++) y[row + c] = (x[row + c] as number) * inverse * (w[c] as number);
  }
  return y;
}

/** Rows of x [t, d] by weights w and biases b [d]: y [t, d]. */
export function layerNormReference(
  x: ArrayLike<number>,
  w: ArrayLike<number>,
  b: ArrayLike<number>,
  eps: number,
): Float64Array {
  const d = w.length;
  const y = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += d) {
    let mean = 0;
    for (let c = 0; c < d; c++) mean += (x[row + c] as number) / d;
    let variance = 0;
    for (let c = 0; c < d; c++) variance += ((x[row + c] as number) - mean) ** 2 / d;
    const inverse = 1 / Math.sqrt(variance + eps);
    for (let c = 0; c < d; c++)
      y[row + c] = ((x[row + c] as number) - mean) * inverse * (w[c] as number) + (b[c] as number);
  }
  return y;
}
