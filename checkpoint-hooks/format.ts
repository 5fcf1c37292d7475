/**
 * What a person reads: numbers with units, aligned columns. Pure; nothing here writes.
 */

export const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

export function bytesText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < BYTE_UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${value} B` : `${value < 10 ? value.toFixed(2) : value.toFixed(1)} ${BYTE_UNITS[unit] ?? ''}`;
}

/** Three figures are enough for a person; microseconds below one millisecond, seconds above a thousand. */
export function msText(ms: number): string {
  if (!Number.isFinite(ms)) return '-';
  const size = Math.abs(ms);
  if (size >= 10_000) return `${(ms / 1000).toFixed(1)} s`;
  if (size >= 100) return `${ms.toFixed(0)} ms`;
  if (size >= 1) return `${ms.toFixed(2)} ms`;
  return size === 0 ? '0 ms' : `${(ms * 1000).toFixed(0)} us`;
}

const DURATION = /^(\d+(?:\.\d+)?)(us|ms|s|m)?$/;
const DURATION_MS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000, m: 60_000 };

/** "25ms", "1.5s", "800us", "2m"; a bare number is milliseconds. undefined = not a duration. */
export function maybeDurationMs(text: string): number | undefined {
  const match = DURATION.exec(text.trim());
  if (match === null) return undefined;
  return Number(match[1]) * (DURATION_MS[match[2] ?? 'ms'] ?? 1);
}

export type Align = 'left' | 'right';

/** Columns two spaces apart, no rules, no trailing blanks. Columns of numbers stand right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[], align: readonly Align[] = []): string {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)));
  return all
    .map((row) =>
      widths
        .map((width, column) => {
          const cell = row[column] ?? '';
          return align[column] === 'right' ? cell.padStart(width) : cell.padEnd(width);
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Lines of `name  value`, names padded to one width. */
export function pairs(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`.trimEnd()).join('\n');
}
