/** One group on the page: what is known of it, shown. Called a few times a second. */
import type { Figures, GroupFigures } from '../../proxy/api/contract.ts';
import { bytesText, msText } from '../format.ts';
import { drawEpochs, HeldChart, HoldTimeChart } from './charts.ts';
import { leaksOf, portTrouble } from './history.ts';
import type { GroupHistory } from './history.ts';
import { count, part, showLines, showTable, showTiles } from './parts.ts';
import type { Cell } from './parts.ts';

const number = (value: number): Cell => ({ text: count(value) });
const NONE: Cell = { text: '-' };

export class GroupPart {
  readonly #held = new HeldChart(part('held', HTMLDivElement));
  readonly #histogram = new HoldTimeChart(part('histogram', HTMLDivElement));
  readonly #tiles = part('tiles', HTMLElement);
  readonly #alarms = part('alarms', HTMLUListElement);
  readonly #epochs = part('epochs', HTMLCanvasElement);
  readonly #phases = part('phases', HTMLDivElement);
  readonly #members = part('members', HTMLDivElement);
  readonly #hosts = part('hosts', HTMLDivElement);
  readonly #hostsPart = part('hostspart', HTMLElement);
  readonly #frames = part('frames', HTMLDivElement);
  readonly #note = part('holdnote', HTMLSpanElement);

  /** `nowMs` in the daemon's clock; the charts end `behindMs` before it. */
  show(figures: Figures, history: GroupHistory, nowMs: number, behindMs: number, windowMs: number): void {
    const group = history.figures;
    if (group === undefined) return;
    const alarms = history.alarms(nowMs);
    showLines(this.#alarms, alarms.map(({ text }) => text), alarms.some(({ level }) => level === 'bad') ? 'banner bad' : 'banner');
    this.#showTiles(figures, history, group);
    this.#held.show(history, nowMs - behindMs, windowMs);
    drawEpochs(this.#epochs, history.epochs, nowMs - behindMs, windowMs);
    this.#showPhases(history);
    this.#histogram.show(group.holdTime);
    const released = group.holdTime.counts.reduce((sum, one) => sum + one, 0);
    this.#note.textContent = released === 0 ? 'nothing released yet' : `mean ${msText(group.holdTime.sumMs / released)} over ${count(released)} frames`;
    this.#showMembers(figures, group, alarms.some(({ isAckLate }) => isAckLate === true));
    this.#showHosts(group, figures.across?.ledger.ok ?? true);
    this.#showFrames(history, group);
  }

  #showTiles(figures: Figures, history: GroupHistory, group: GroupFigures): void {
    const { dropped, held } = group;
    const leaks = leaksOf(figures);
    const lost = dropped.overflow + dropped.refused;
    const isFull = group.hold.occupancy >= group.hold.highWater;
    showTiles(this.#tiles, [
      { id: 'phase', value: group.phase, label: group.phase === 'idle' ? 'not protected: nothing is held' : `generation ${group.generation}`, ...(group.phase === 'idle' ? {} : { level: group.phase === 'protected' ? 'good' : 'warn' }) },
      group.phase === 'idle'
        ? { id: 'open', value: '-', label: 'no epoch is open' }
        : { id: 'open', value: count(group.open), label: `open epoch, ${history.rate((of) => of.sealed).toFixed(1)} a second` },
      { id: 'flight', value: count(group.sealed - group.released), label: 'epochs in flight' },
      { id: 'held', value: bytesText(held.bytes), label: `held now, ${count(held.frames)} frames`, ...(isFull ? { level: 'warn' } : {}) },
      { id: 'oldest', value: held.frames === 0 ? '-' : msText(held.oldestMs), label: 'oldest held frame' },
      { id: 'released', value: `${count(history.rate((of) => of.hold.releasedFrames))}/s`, label: `released, ${count(group.hold.releasedFrames)} in all` },
      { id: 'dropped', value: count(lost), label: 'frames dropped', ...(lost > 0 ? { level: 'warn' } : {}) },
      { id: 'leaks', value: count(leaks), label: leaks === 0 ? 'leaks' : 'leaks stopped by a guard', level: leaks === 0 ? 'good' : 'bad' },
    ]);
  }

  #showPhases(history: GroupHistory): void {
    const rows = history.phases().map(({ name, p50, p99, count: of }) => [{ text: name }, { text: msText(p50) }, { text: msText(p99) }, number(of)]);
    showTable(this.#phases, [{ name: 'phase' }, { name: 'p50', isNumber: true }, { name: 'p99', isNumber: true }, { name: 'epochs', isNumber: true }], rows);
  }

  /** An ack under way is nothing to say: only one that the group waits for too long. */
  #showMembers(figures: Figures, { members, spec, committed, phase }: GroupFigures, isAckLate: boolean): void {
    const rows = members.map((member): Cell[] => {
      const nics = spec.members.find(({ name }) => name === member.name);
      const ports = nics?.port ?? nics?.nics?.map(({ port }) => port).join(', ') ?? '';
      const isLate = isAckLate && spec.commit === 'acks' && member.acked <= committed;
      const trouble = portTrouble(figures, nics);
      const state = trouble !== undefined ? { text: trouble, level: 'bad' } : phase === 'idle' ? { text: 'not held' } : !member.ready ? { text: 'joining', level: 'warn' } : isLate ? { text: `waiting for ack ${committed + 1}`, level: 'warn' } : { text: 'ready', level: 'good' };
      const reached = phase === 'idle' ? [NONE, NONE] : [number(member.open), number(member.acked)];
      return [{ text: member.name }, { text: ports }, ...reached, state];
    });
    showTable(this.#members, [{ name: 'member' }, { name: 'port' }, { name: 'open', isNumber: true }, { name: 'acked', isNumber: true }, { name: 'state', isState: true }], rows);
  }

  /** Of a group across hosts: how far each is, and who is late. */
  #showHosts({ hosts }: GroupFigures, isLedgerThere: boolean): void {
    this.#hostsPart.hidden = hosts === undefined;
    const rows = (hosts ?? []).map(({ host, acked, behind, late, alive }): Cell[] =>
      [{ text: host }, number(acked), number(behind), !isLedgerThere ? { text: 'not known: no ledger', level: 'warn' } : !alive ? { text: 'not heard of', level: 'bad' } : late ? { text: 'late', level: 'warn' } : { text: 'there', level: 'good' }]);
    showTable(this.#hosts, [{ name: 'host' }, { name: 'acked', isNumber: true }, { name: 'behind', isNumber: true }, { name: 'state', isState: true }], rows);
  }

  #showFrames(history: GroupHistory, { hold, dropped }: GroupFigures): void {
    const row = (name: string, total: number, rate: string, level?: string): Cell[] => [{ text: name }, { ...number(total), ...(level !== undefined && total > 0 ? { level } : {}) }, { text: rate }];
    const perSecond = (pick: (of: GroupFigures) => number): string => `${count(history.rate(pick))}/s`;
    showTable(this.#frames, [{ name: 'frames' }, { name: 'in all', isNumber: true }, { name: 'now', isNumber: true }], [
      row('reached the hold ring', hold.arrivedFrames, perSecond((of) => of.hold.arrivedFrames)),
      row('released', hold.releasedFrames, perSecond((of) => of.hold.releasedFrames)),
      row('discarded (rollback, takeover)', dropped.discarded, perSecond((of) => of.dropped.discarded)),
      row('dropped, ring full', dropped.overflow, perSecond((of) => of.dropped.overflow), 'bad'),
      row('dropped, refused by the kernel', dropped.refused, perSecond((of) => of.dropped.refused), 'bad'),
      row('inside, waited for a receiver', hold.earlyFrames, perSecond((of) => of.hold.earlyFrames)),
      row('inside, recorded in transit', hold.lateRecorded, perSecond((of) => of.hold.lateRecorded)),
    ]);
  }
}
