/**
 * The bridge of the portable plane: the kernel plane's path, run by the twin of its programs.
 *
 *   port ─► classify ─┬─ next ───────► bridge: learn, look up or flood ─► guard ─► port
 *                     ├─ intra, late, split ──────────────────────────► guard ─► port
 *                     └─ held, early, records ─► queue of the group (hold ifindex)
 *   queue ─► release ─┬─ held: marked, back in at its port ─► classify ─► next …
 *                     └─ early, late ─────────────────────────────────► guard ─► port
 *
 * Every verdict is made by classifier/rules.ts over the shared cells, so both planes decide alike;
 * here is only what a Linux bridge does besides: it forwards neither to the port a frame came from,
 * nor link-local multicast (but BPDUs, having no STP), nor a frame with a source that can be none. No VLAN filtering, no STP,
 * no host behind it. One thread, one frame at a time: a copy is made only where a frame waits.
 */
import { MARK } from '../../classifier/abi.ts';
import { FrameCursor, macParse } from '../../classifier/frame.ts';
import type { Hook } from '../../classifier/plan.ts';
import { classify, guard, release } from '../../classifier/rules.ts';
import type { Decision, Sent } from '../../classifier/rules.ts';
import type { SoftQueue } from '../plane/soft-queue.ts';
import { ForwardingTable } from './fdb.ts';
import type { Loss } from './layout.ts';
import { complete, segment } from './offload.ts';
import type { SharedTables } from './tables.ts';

/** The only link-local address that a bridge without STP forwards. */
const BRIDGE_GROUP = 0x0180_c200_0000;
/** Ethernet header and two tags: longer than this above the MTU is a super-frame. */
const FRAMING_BYTES_MAX = 22;

export interface Outlet {
  mtu: number;
  inject(frame: Uint8Array): boolean;
}

export class Switch {
  readonly ports = new Map<number, Outlet>();
  /** By hold ifindex. */
  readonly queues = new Map<number, SoftQueue>();
  readonly fdb = new ForwardingTable();
  readonly #guards = new Set<number>();
  readonly #cursor = new FrameCursor();
  readonly #tables: SharedTables;
  readonly #lose: (why: Loss) => void;
  /** Arrival of the frame under way; the clock of the table too. */
  #nowMs = 0;

  constructor(tables: SharedTables, lose: (why: Loss) => void) {
    this.#tables = tables;
    this.#lose = lose;
  }

  /** Classify runs wherever a port is a nic's, the programs of a hold pair where its queue is. */
  hook({ ifindex, program }: Hook): void {
    if (program === 'guard') this.#guards.add(ifindex);
  }
  unhook({ ifindex, program }: Hook): void {
    if (program === 'guard') this.#guards.delete(ifindex);
  }
  fix(mac: string, ifindex: number): void {
    this.fdb.fix(macParse(mac), ifindex);
  }
  unfix(mac: string, ifindex: number): void {
    this.fdb.unfix(macParse(mac), ifindex);
  }

  /** `frame` may be changed (a missing sum is put in) and is not kept. */
  arrive(ifindex: number, frame: Buffer, wireBytes: number, arrivedMs: number): void {
    if (frame.length < wireBytes) {
      this.#lose('cutOff');
      return;
    }
    complete(frame);
    this.#nowMs = arrivedMs;
    this.#enter(ifindex, frame, 0, 0);
  }

  /** A frame that leaves the queue of a group. */
  release(holdIfindex: number, stamp: number, frame: Buffer, nowMs: number): void {
    this.#nowMs = nowMs;
    const decision = release(this.#tables, { ifindex: holdIfindex, ingressIfindex: 0, mark: stamp });
    this.#tables.count(decision, holdIfindex, frame.length);
    this.#carry(decision, frame, holdIfindex);
  }

  announce(frame: Uint8Array, except: number): void {
    // As a released multicast that the group's members have had: their guards drop it.
    const mark = (MARK.releasedSplit << this.#tables.markShift) >>> 0;
    for (const to of this.ports.keys()) if (to !== except) this.#leave(to, 0, frame, mark);
  }

  #enter(ifindex: number, frame: Buffer, mark: number, hash: number): void {
    const decision = classify(this.#tables, frame, { ifindex, ingressIfindex: ifindex, mark, hash });
    this.#tables.count(decision, ifindex, frame.length);
    this.#carry(decision, frame, ifindex);
    if (decision.answer === 'next') this.#bridge(ifindex, frame, decision.mark);
  }

  #carry(decision: Decision, frame: Buffer, from: number): void {
    for (const clone of decision.clones) this.#send(clone, frame, from);
    if (decision.redirect !== undefined) this.#send(decision.redirect, frame, from);
  }
  #send({ to, ingress, mark }: Sent, frame: Buffer, from: number): void {
    const queue = this.queues.get(to);
    if (queue !== undefined && ingress) this.release(to, mark, frame, this.#nowMs);
    else if (queue !== undefined) queue.push(mark, frame, this.#nowMs);
    else if (!ingress) this.#leave(to, from, frame, mark);
    else if (this.ports.has(to)) this.#enter(to, frame, mark, this.#tables.releaseHash);
  }

  #bridge(from: number, frame: Buffer, mark: number): void {
    const cursor = this.#cursor.set(frame);
    const { src, dst } = cursor;
    if (!cursor.hasHeader || src === 0 || (frame[6]! & 1) === 1) return;
    this.fdb.heard(src, from, this.#nowMs);
    if (cursor.isLinkLocal && dst !== BRIDGE_GROUP) return;
    const to = cursor.isMulticast ? undefined : this.fdb.find(dst, this.#nowMs);
    if (to !== undefined && this.ports.has(to)) {
      if (to !== from) this.#leave(to, from, frame, mark);
      return;
    }
    for (const each of this.ports.keys()) if (each !== from) this.#leave(each, from, frame, mark);
  }

  #leave(to: number, from: number, frame: Uint8Array, mark: number): void {
    const port = this.ports.get(to);
    if (port === undefined) return;
    if (this.#guards.has(to)) {
      const decision = guard(this.#tables, frame, { ifindex: to, ingressIfindex: from, mark });
      this.#tables.count(decision, to, frame.length);
      if (decision.answer === 'drop') return;
    }
    if (frame.length <= port.mtu + FRAMING_BYTES_MAX) {
      if (!port.inject(frame)) this.#lose('notSent');
      return;
    }
    const segments = segment(frame, port.mtu);
    if (segments === undefined) this.#lose('tooLong');
    else for (const one of segments) if (!port.inject(one)) this.#lose('notSent');
  }
}
