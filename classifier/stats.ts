/**
 * The kernel's counters, by device. Each CPU counts for itself; here they are added up, and what a
 * device had counted before it went (a tap deleted, a bridge no longer guarded) stays in the sum
 * of its name, so that no counter ever falls.
 *
 * Bound: one entry a device name that was ever counted, at most NAMES_MAX; beyond, the counts of
 * devices that are gone are given up.
 */
import { endianness } from 'node:os';
import { DEVICES_MAX, STATS, VERDICTS } from './abi.ts';
import type { Verdict } from './abi.ts';

const LITTLE = endianness() === 'LE';
const NAMES_MAX = DEVICES_MAX;

export interface Count {
  readonly frames: number;
  readonly bytes: number;
}
const SINGLE = ['splitCopies', 'leakBlocked', 'unvetted', 'confined', 'duplicate', 'refused', 'redelivered',
  'remote', 'stale', 'unknown', 'foreign', 'elsewhere', 'skewed', 'forged'] as const;
export type SingleCount = (typeof SINGLE)[number];
export interface DeviceStats {
  readonly device: string;
  readonly in: Count;
  readonly verdicts: Readonly<Record<Verdict, Count>>;
  readonly counts: Readonly<Record<SingleCount, number>>;
}
export interface Alarm {
  readonly kind: 'leak-blocked' | 'unvetted' | 'refused';
  readonly device: string;
  readonly frames: number;
}

/** The words of one `struct sluice_stats`, summed over CPUs. */
type Words = number[];
const WORDS = STATS.size / 8;

function sum(bytes: Uint8Array): Words {
  const total: Words = new Array<number>(WORDS).fill(0);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + STATS.size <= bytes.length; at += STATS.size) {
    for (let i = 0; i < WORDS; i += 1) total[i] = (total[i] ?? 0) + Number(view.getBigUint64(at + i * 8, LITTLE));
  }
  return total;
}
/** One of them. */
function summed(bytes: Uint8Array, offset: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let total = 0;
  for (let at = offset; at < bytes.length; at += STATS.size) total += Number(view.getBigUint64(at, LITTLE));
  return total;
}
const ALARMING = [['leak-blocked', STATS.leakBlocked], ['unvetted', STATS.unvetted], ['refused', STATS.refused]] as const;
const added = (a: Words, b: Words): Words => a.map((value, i) => value + (b[i] ?? 0));

function shaped(device: string, words: Words): DeviceStats {
  const at = (offset: number): number => words[offset / 8] ?? 0;
  const count = (offset: number): Count => ({ frames: at(offset), bytes: at(offset + 8) });
  const entries = VERDICTS.map((name, i): [Verdict, Count] => [name, count(STATS.verdict + i * STATS.countSize)]);
  const singles = SINGLE.map((name): [SingleCount, number] => [name, at(STATS[name])]);
  return {
    device,
    in: count(STATS.in),
    verdicts: Object.fromEntries(entries) as Record<Verdict, Count>,
    counts: Object.fromEntries(singles) as Record<SingleCount, number>,
  };
}

export class Ledger {
  readonly #counters: (ifindex: number) => Uint8Array;
  readonly #retired = new Map<string, Words>();
  /** By device, as ALARMING has them. */
  readonly #alarmed = new Map<string, readonly number[]>();
  #names = new Map<number, string>();

  constructor(counters: (ifindex: number) => Uint8Array) {
    this.#counters = counters;
  }
  /** The devices as they are now. Names of those gone are kept while their counters are. */
  name(ports: readonly { readonly ifindex: number; readonly name: string }[]): void {
    for (const { ifindex, name } of ports) this.#names.set(ifindex, name);
    if (this.#names.size > 2 * NAMES_MAX) this.#names = new Map(ports.map(({ ifindex, name }) => [ifindex, name]));
  }
  /** To be called before a device's counters are removed. */
  retire(ifindex: number): void {
    const name = this.#names.get(ifindex);
    if (name === undefined) return;
    const words = sum(this.#counters(ifindex));
    const before = this.#retired.get(name);
    if (before !== undefined || this.#retired.size < NAMES_MAX) this.#retired.set(name, before === undefined ? words : added(before, words));
    this.#names.delete(ifindex);
  }
  read(): DeviceStats[] {
    const totals = new Map(this.#retired);
    for (const [ifindex, name] of this.#names) {
      const bytes = this.#counters(ifindex);
      if (bytes.length === 0) continue;
      const before = totals.get(name);
      totals.set(name, before === undefined ? sum(bytes) : added(before, sum(bytes)));
    }
    return [...totals].map(([device, words]) => shaped(device, words));
  }
  /** What rose since the last call among the counters that should not move. Asked often, so it adds up these alone. */
  alarms(): Alarm[] {
    const totals = new Map([...this.#retired].map(([device, words]) => [device, ALARMING.map(([, offset]) => words[offset / 8] ?? 0)]));
    for (const [ifindex, device] of this.#names) {
      const bytes = this.#counters(ifindex);
      if (bytes.length === 0) continue;
      const before = totals.get(device);
      totals.set(device, ALARMING.map(([, offset], i) => summed(bytes, offset) + (before?.[i] ?? 0)));
    }
    return [...totals].flatMap(([device, values]) => this.#risen(device, values));
  }
  #risen(device: string, values: readonly number[]): Alarm[] {
    const before = this.#alarmed.get(device);
    this.#alarmed.set(device, values);
    return ALARMING.flatMap(([kind], i) => {
      const frames = (values[i] ?? 0) - (before?.[i] ?? 0);
      return frames > 0 ? [{ kind, device, frames }] : [];
    });
  }
}
