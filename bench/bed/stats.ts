/** Order statistics of small samples. */

const sorted = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b);

/** The value that share `q` (0..1) of the sample does not exceed; NaN of an empty sample. */
export function quantile(values: readonly number[], q: number): number {
  const order = sorted(values);
  return order[Math.min(order.length - 1, Math.floor(q * order.length))] ?? Number.NaN;
}

export function median(values: readonly number[]): number {
  const order = sorted(values);
  const upper = order[order.length >> 1] ?? Number.NaN;
  const lower = order[(order.length - 1) >> 1] ?? Number.NaN;
  return (upper + lower) / 2;
}
