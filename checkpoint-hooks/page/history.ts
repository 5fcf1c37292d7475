/**
 * What a watcher remembers of one group, and what it concludes. Pure: time comes with the data. The
 * dashboard and `sluice top` both show it.
 *
 *     figures ─► samples (held bytes)   ┐
 *     events  ─► epochs, in the order   ├─► phases, alarms, level
 *                in which they opened   ┘
 *
 *     epoch   opened ──── cut ──── committed ──── released        lost: rolled back before its release
 *                open      waiting      releasing
 *
 * Bounds: SAMPLES_MAX samples and EPOCHS_MAX epochs, the oldest go first. Only the events since the
 * watcher came are known; what it did not see is not drawn.
 */
import type { ApiEvent, EventType, Figures, GroupFigures } from '../../proxy/api/contract.ts';
import { bytesText, msText } from '../format.ts';

/** A minute at one sample each five milliseconds. */
const SAMPLES_MAX = 12_000;
const EPOCHS_MAX = 4096;
/** Epochs that the phases are taken from. */
const PHASES_OF = 200;
/** An engine slower than this is never called silent; nor one within so many of its own intervals. */
const SILENT_MS_MIN = 2000;
const SILENT_INTERVALS = 10;
/** An overflow is shown for so long after its last frame. */
const OVERFLOW_SHOWN_MS = 10_000;

/** Every type: `false` = each epoch has it, so it is not in the log. */
export const LOGGED: Readonly<Record<EventType, boolean>> = {
  'cut': false, 'acked': false, 'committed': false, 'released': false, 'output-pending': false,
  'protected': true, 'unprotected': true, 'discarded': true, 'rolled-back': true, 'taken-over': true, 'joined': true, 'left': true,
  'high-water': true, 'overflow': true, 'port-lost': true, 'port-back': true, 'hold-lost': true, 'hold-back': true,
  'leak-blocked': true, 'unvetted': true, 'refused': true, 'gap': true, 'fenced': true,
  'isolated': true, 'rejoined': true, 'peer-late': true, 'peer-lost': true, 'peer-back': true,
};

export interface EpochRow {
  /** Counts on through rollbacks, where epoch numbers come again. */
  readonly n: number;
  readonly epoch: number;
  readonly openedMs: number;
  cutMs?: number;
  committedMs?: number;
  releasedMs?: number;
  lostMs?: number;
}
export interface Alarm {
  readonly level: 'warn' | 'bad';
  readonly text: string;
  /** Acks are missing for longer than they should. */
  readonly isAckLate?: boolean;
}
export interface Phase {
  readonly name: string;
  readonly p50: number;
  readonly p99: number;
  readonly count: number;
}

function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

export class GroupHistory {
  readonly atMs: number[] = [];
  readonly heldBytes: number[] = [];
  readonly epochs: EpochRow[] = [];
  figures: GroupFigures | undefined;
  #overflowAtMs = Number.NEGATIVE_INFINITY;
  #overflowFrames = 0;
  #opened = 0;
  #isLedgerThere = true;
  #seen: { readonly atMs: number; readonly figures: GroupFigures }[] = [];

  /** `isLedgerThere`: what `figures` says of other hosts is known. */
  take(atMs: number, figures: GroupFigures, isLedgerThere = true): void {
    this.#isLedgerThere = isLedgerThere;
    const before = this.figures?.dropped.overflow;
    const rose = figures.dropped.overflow - (before ?? figures.dropped.overflow);
    if (rose > 0) {
      this.#overflowFrames = (atMs - this.#overflowAtMs > OVERFLOW_SHOWN_MS ? 0 : this.#overflowFrames) + rose;
      this.#overflowAtMs = atMs;
    }
    this.figures = figures;
    this.#seen.push({ atMs, figures });
    while ((this.#seen[0]?.atMs ?? atMs) < atMs - 2000) this.#seen.shift();
    const { samples } = figures;
    this.atMs.push(...samples.atMs);
    this.heldBytes.push(...samples.heldBytes);
    const over = this.atMs.length - SAMPLES_MAX;
    if (over > 0) for (const list of [this.atMs, this.heldBytes]) list.splice(0, over);
  }

  /** An event of this group. Events of one member's own cut do not move the group. */
  hear(event: ApiEvent): void {
    const { type, atMs } = event;
    const epoch = event.epoch ?? 0;
    if (type === 'protected' || type === 'gap') this.epochs.length = 0;
    if (type === 'protected') this.#open(1, atMs);
    else if (type === 'cut' && event.member === undefined) this.#cut(epoch, atMs);
    else if (type === 'committed') this.#mark('committedMs', epoch, atMs);
    else if (type === 'released') this.#mark('releasedMs', epoch, atMs);
    else if (type === 'rolled-back' || type === 'taken-over') this.#goBack(epoch, atMs);
    else if (type === 'unprotected') this.#end(atMs);
  }

  #open(epoch: number, atMs: number): void {
    this.epochs.push({ n: this.#opened++, epoch, openedMs: atMs });
    if (this.epochs.length > EPOCHS_MAX) this.epochs.shift();
  }

  #cut(epoch: number, atMs: number): void {
    const open = this.epochs.at(-1);
    if (open?.epoch === epoch) open.cutMs = atMs;
    this.#open(epoch + 1, atMs);
  }

  /** Everything up to the epoch, back to what was marked before. */
  #mark(what: 'committedMs' | 'releasedMs', epoch: number, atMs: number): void {
    for (let i = this.epochs.length - 1; i >= 0; i--) {
      const row = this.epochs[i];
      if (row === undefined || row[what] !== undefined) break;
      if (row.epoch > epoch || row.lostMs !== undefined) continue;
      if (row.cutMs !== undefined) row[what] = atMs;
    }
  }

  #goBack(epoch: number, atMs: number): void {
    for (const row of this.epochs) if (row.epoch > epoch && row.releasedMs === undefined) row.lostMs ??= atMs;
    this.#open(epoch + 1, atMs);
  }

  #end(atMs: number): void {
    const open = this.epochs.at(-1);
    if (open !== undefined) open.cutMs ??= atMs;
    for (const row of this.epochs) row.releasedMs ??= atMs;
  }

  /** Change of a total in a second, over the last two. */
  rate(pick: (figures: GroupFigures) => number): number {
    const [first, last] = [this.#seen[0], this.#seen.at(-1)];
    if (first === undefined || last === undefined || last.atMs <= first.atMs) return 0;
    return Math.max(0, ((pick(last.figures) - pick(first.figures)) * 1000) / (last.atMs - first.atMs));
  }

  phases(): Phase[] {
    const rows = this.epochs.slice(-PHASES_OF);
    const times = (name: string, from: (row: EpochRow) => number | undefined, to: (row: EpochRow) => number | undefined): Phase => {
      const all = rows.flatMap((row) => {
        const [begin, end] = [from(row), to(row)];
        return begin === undefined || end === undefined || row.lostMs !== undefined ? [] : [end - begin];
      }).sort((a, b) => a - b);
      return { name, p50: quantile(all, 0.5), p99: quantile(all, 0.99), count: all.length };
    };
    return [
      times('open', (row) => row.openedMs, (row) => row.cutMs),
      times('sealed to committed', (row) => row.cutMs, (row) => row.committedMs),
      times('committed to released', (row) => row.committedMs, (row) => row.releasedMs),
    ];
  }

  /** Time from cut to cut, or undefined while fewer than two were seen. */
  #intervalMs(): number | undefined {
    const [open] = this.phases();
    return open === undefined || open.count < 2 ? undefined : open.p50;
  }

  /** What an operator should look at, the worst first. */
  alarms(nowMs: number): Alarm[] {
    const { figures } = this;
    if (figures === undefined) return [];
    const alarms: Alarm[] = [];
    if (nowMs - this.#overflowAtMs < OVERFLOW_SHOWN_MS) alarms.push({ level: 'bad', text: `the hold ring was full: ${this.#overflowFrames.toLocaleString('en')} frames dropped; commit sooner, or raise hold.bytes` });
    if (figures.hold.occupancy >= figures.hold.highWater) {
      alarms.push({ level: 'warn', text: `the hold ring is ${(figures.hold.occupancy * 100).toFixed(0)} % full (high water ${(figures.hold.highWater * 100).toFixed(0)} % of ${bytesText(figures.hold.bytesMax)})` });
    }
    return [...alarms, ...this.#late(figures, nowMs)];
  }

  /** Whoever everybody waits for: the engine, or members whose acks are missing. */
  #late({ phase, open, sealed, committed, acked, members, spec, hosts }: GroupFigures, nowMs: number): Alarm[] {
    if (phase !== 'protected') return [];
    const bound = Math.max(SILENT_MS_MIN, SILENT_INTERVALS * (this.#intervalMs() ?? 0));
    const opened = this.epochs.findLast((row) => row.epoch === open)?.openedMs;
    if (opened !== undefined && nowMs - opened > bound && sealed <= committed) return [{ level: 'warn', text: `the engine is silent: epoch ${open} is open for ${msText(nowMs - opened)}` }];
    const waits = this.epochs.find((row) => row.epoch === committed + 1 && row.cutMs !== undefined && row.lostMs === undefined)?.cutMs;
    if (sealed <= committed || waits === undefined || nowMs - waits < bound) return [];
    if (hosts !== undefined && !this.#isLedgerThere) return [{ level: 'warn', text: `epoch ${committed + 1} is not committed since ${msText(nowMs - waits)}: the ledger can't be reached, so nobody knows who acked` }];
    const behind = spec.commit === 'acks' ? members.filter((member) => member.acked <= acked).map(({ name }) => name) : [];
    const elsewhere = (hosts ?? []).filter(({ acked: of }) => of <= committed).map(({ host, alive }) => (alive ? `host ${host}` : `host ${host} (not heard of)`));
    const late = elsewhere.length > 0 ? elsewhere : behind;
    const who = late.length === 0 ? 'the engine' : late.join(', ');
    return [{ level: 'warn', text: `epoch ${committed + 1} waits for ${late.length === 0 ? 'its commit' : 'acks'} since ${msText(nowMs - waits)}: ${who}`, isAckLate: late.length > 0 }];
  }
}

type MemberSpec = GroupFigures['spec']['members'][number];
const portsOf = ({ port, nics }: MemberSpec): string[] => [port, ...(nics ?? []).map((nic) => nic.port)].filter((one) => one !== undefined);

/** Of these ports those that something not in place names. */
function missingAmong({ missing }: Figures, ports: readonly string[]): string[] {
  const words = new Set(missing.flatMap((line) => line.split(/[\s,:;"]+/)));
  return ports.filter((port) => words.has(port));
}
/** What a member's ports keep it from: one is not there, or was closed because this host is cut off. */
export function portTrouble(now: Figures, member: MemberSpec | undefined): string | undefined {
  const ports = member === undefined ? [] : portsOf(member);
  const [missing] = missingAmong(now, ports);
  if (missing !== undefined) return `${missing} is missing`;
  const closed = ports.find((port) => now.across?.isolation?.closedPorts.includes(port));
  return closed === undefined ? undefined : `${closed} is closed`;
}
export const isInTrouble = (now: Figures, group: string): boolean =>
  (now.groups.find((one) => one.group === group)?.spec.members ?? []).some((member) => portTrouble(now, member) !== undefined);

/** Frames that a guard stopped: an attempted leak. Anything but 0 is an incident. */
export const leaksOf = ({ guards }: Figures): number => guards.leakBlocked + guards.releaseRefused;

/** One memory for each group; those that are gone are forgotten. */
export class Histories {
  readonly #all = new Map<string, GroupHistory>();

  of(group: string): GroupHistory {
    const found = this.#all.get(group) ?? new GroupHistory();
    this.#all.set(group, found);
    return found;
  }
  take(figures: Figures): void {
    for (const one of figures.groups) this.of(one.group).take(figures.atMs, one, figures.across?.ledger.ok);
    for (const group of this.#all.keys()) if (!figures.groups.some((one) => one.group === group)) this.#all.delete(group);
  }
  hear(event: ApiEvent): void {
    if (event.group !== undefined) this.of(event.group).hear(event);
    else if (event.type === 'gap') for (const history of this.#all.values()) history.hear(event);
  }
}
