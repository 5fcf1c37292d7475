/**
 * Numbered frames of a group across hosts, of each of its lives, and what became of them.
 *
 *   life = one generation: which tap each member speaks at. Each member sends to the outside and to
 *   the next member, so some flows stay on a host and most cross the switch.
 *
 *   tick (2 ms): each flow of each speaking life one frame; every tap and the outsider's end are read
 *
 * Three judgements, none of which can accuse wrongly:
 *   leaked   by the oracle (oracle.ts): outside before every host was asked to ack its epoch
 *   orphans  a frame sent after cut(e) had returned at its sender's host, read at a member whose
 *            host had not yet been asked to cut e: its receiver would know what its sender doesn't
 *   old      a frame of an earlier life, sent after cut(R) had returned at its host, at a member of a later
 *            life that began from R; or any frame sent after its life had ended (a ghost's), outside
 *            or at a member of a later one; or any frame of an earlier traffic, `firstFlow` tells
 *
 * A frame for a member of an earlier life that may be of an epoch <= R is channel state of that cut:
 * the new life is given it once more (I3). Those are counted, `again`, and are no fault.
 */
import type { FramePort } from '../bed/frame-port.ts';
import { nowUs } from '../bed/libc.ts';
import type { Oracle } from '../bed/oracle.ts';
import { parseProbe, probeFlow, type ProbeAddress } from '../bed/probe.ts';

const TICK_MS = 2;
const OLDS_KEPT_MAX = 8;

export interface Speaker {
  readonly name: string;
  readonly host: number;
  readonly address: ProbeAddress;
  readonly tap: () => FramePort;
}
export interface TrafficOptions {
  /** Number of the first flow; frames of lower ones are left over from an earlier traffic. */
  readonly firstFlow?: number;
}
interface Flow {
  readonly life: Life;
  readonly from: Speaker;
  readonly isOutward: boolean;
  readonly frame: (seq: number) => Uint8Array;
  /** Of each frame: the epoch its sender's host was in at least. */
  readonly floors: number[];
  /** From this number on it is a ghost's. */
  ghostFrom: number;
  delivered: number;
}
/** One generation's members at their taps. */
export interface Life {
  readonly generation: number;
  readonly speakers: readonly Speaker[];
  /** Some hosts' members may be silent: their VMs are dead or stopped. */
  readonly silent: Set<number>;
  /** Its VMs go on, but the group is elsewhere: what they send may reach nobody. */
  isGhost: boolean;
  /** The epoch that the next life began from. */
  endedAt?: number;
}
/** What is sure of a host's open epoch: at least, at most. */
export interface Bounds {
  floor: number;
  ceiling: number;
}

export class HostsTraffic {
  readonly #oracle: Oracle;
  readonly #outside: FramePort;
  readonly #outsider: ProbeAddress;
  readonly #bounds: readonly Bounds[];
  readonly #flows: Flow[] = [];
  /** Each tap is read as the member of the newest life there. */
  readonly #ends = new Map<FramePort, { readonly life: Life; readonly at: Speaker }>();
  #timer: NodeJS.Timeout | undefined;
  orphans = 0;
  oldDelivered = 0;
  /** Of the life before, in transit at its last cut, delivered to the new one. */
  again = 0;
  /** The first of them, in words. */
  readonly olds: string[] = [];
  ghosts = 0;
  /** Frames seen outside, ever; when the last one was seen, and the longest time between two. */
  outsideSeen = 0;
  #outsideAtUs = nowUs();
  #outsideGapUs = 0;
  readonly firstOutsideUs = new Map<number, number>();
  readonly #firstFlow: number;

  constructor(oracle: Oracle, outside: FramePort, outsider: ProbeAddress, bounds: readonly Bounds[], { firstFlow = 0 }: TrafficOptions = {}) {
    this.#firstFlow = firstFlow;
    this.#oracle = oracle;
    this.#outside = outside;
    this.#outsider = outsider;
    this.#bounds = bounds;
  }

  /** Number of the first flow of a traffic after this one. */
  get nextFlow(): number {
    return this.#firstFlow + this.#flows.length;
  }
  /** A life is over, the group goes on from epoch `at`: those of its VMs that still speak are ghosts. */
  end(life: Life, at: number): void {
    life.isGhost = true;
    life.endedAt = at;
  }

  /** A new generation's members begin to speak. */
  begin(generation: number, speakers: readonly Speaker[]): Life {
    const life = this.expect(generation, speakers);
    for (const host of life.silent) this.arrive(life, host);
    life.silent.clear();
    return life;
  }
  /** A host has opened the generation: what is read at its taps from now on is judged as this life's. */
  arrive(life: Life, host: number): void {
    this.drain();
    for (const at of life.speakers) if (at.host === host) this.#ends.set(at.tap(), { life, at });
  }
  /** A generation that is about to begin: silent on all its hosts, and nowhere yet. */
  expect(generation: number, speakers: readonly Speaker[]): Life {
    const life: Life = { generation, speakers, silent: new Set(speakers.map(({ host }) => host)), isGhost: false };
    for (const [i, from] of speakers.entries()) {
      const next = speakers[(i + 1) % speakers.length] ?? from;
      for (const to of [undefined, next]) {
        const id = this.nextFlow;
        this.#flows.push({ life, from, isOutward: to === undefined, frame: probeFlow(from.address, to?.address ?? this.#outsider, id), floors: [], ghostFrom: Number.POSITIVE_INFINITY, delivered: 0 });
      }
    }
    return life;
  }

  run(): void {
    this.#timer ??= setInterval(() => this.tick(), TICK_MS);
  }
  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  tick(): void {
    for (const [i, flow] of this.#flows.entries()) if (!flow.life.silent.has(flow.from.host)) this.#send(this.#firstFlow + i, flow);
    this.drain();
  }

  drain(): void {
    this.#outside.drain((frame, atUs) => this.#seenOutside(frame, atUs));
    for (const [tap, { life, at }] of this.#ends) tap.drain((frame) => this.#seenInside(frame, life, at));
  }

  /** The longest time without a frame outside since it was last asked, milliseconds. */
  gapMs(): number {
    const gapUs = Math.max(this.#outsideGapUs, nowUs() - this.#outsideAtUs);
    this.#outsideGapUs = 0;
    return gapUs / 1e3;
  }
  inside(): { sent: number; delivered: number } {
    const flows = this.#flows.filter(({ isOutward }) => !isOutward);
    return { sent: sum(flows.map(({ floors, ghostFrom }) => Math.min(floors.length, ghostFrom))), delivered: sum(flows.map(({ delivered }) => delivered)) };
  }
  /** Frames to the outside that were never seen there, by the host they were sent at; ghosts' not counted. */
  unseen(host: number): number {
    const flows = this.#flows.filter(({ isOutward, from }) => isOutward && from.host === host);
    return sum(flows.map(({ floors, ghostFrom, delivered }) => Math.min(floors.length, ghostFrom) - delivered));
  }
  missed(): number {
    return this.#outside.missed();
  }

  #send(id: number, flow: Flow): void {
    const { life, from, isOutward, frame, floors } = flow;
    const seq = floors.length;
    const key = `${id}:${seq}`;
    const tap = from.tap();
    if (life.isGhost) {
      this.ghosts++;
      flow.ghostFrom = Math.min(flow.ghostFrom, seq);
    } else if (isOutward) this.#oracle.sent(key, from.name, nowUs());
    else this.#oracle.sentInside(key, from.name, nowUs());
    floors.push(this.#bounds[from.host]?.floor ?? 0);
    if (!tap.send(frame(seq)) && isOutward && !life.isGhost) this.#oracle.notSent(key);
  }

  /** Whose frame it is; undefined = none of ours, or accused already. */
  #flowOf(frame: Uint8Array, where: string): { readonly flow: Flow; readonly id: number; readonly seq: number } | undefined {
    const probe = parseProbe(frame);
    if (probe === undefined) return undefined;
    const flow = this.#flows[probe.flow - this.#firstFlow];
    if (flow !== undefined) return { flow, id: probe.flow, seq: probe.seq };
    if (probe.flow < this.#firstFlow) this.#accuse(`frame ${probe.seq} of flow ${probe.flow}, of an earlier traffic, at ${where}`);
    return undefined;
  }

  #seenOutside(frame: Uint8Array, atUs: number): void {
    const of = this.#flowOf(frame, 'outside');
    if (of === undefined) return;
    const { flow, id, seq } = of;
    if (seq >= flow.ghostFrom) return this.#old('outside', flow, seq);
    const key = `${id}:${seq}`;
    if (!flow.isOutward) return this.#oracle.seenInside(key, atUs);
    if (this.#oracle.seen(key, atUs) === undefined) return;
    flow.delivered++;
    this.outsideSeen++;
    this.#outsideGapUs = Math.max(this.#outsideGapUs, atUs - this.#outsideAtUs);
    this.#outsideAtUs = atUs;
    if (!this.firstOutsideUs.has(flow.life.generation)) this.firstOutsideUs.set(flow.life.generation, atUs);
  }

  #seenInside(frame: Uint8Array, life: Life, at: Speaker): void {
    const of = this.#flowOf(frame, at.name);
    if (of === undefined) return;
    const { flow, seq } = of;
    const floor = flow.floors[seq] ?? 0;
    const isEarlier = flow.life.generation < life.generation;
    if (isEarlier && (seq >= flow.ghostFrom || floor > (flow.life.endedAt ?? 0))) return this.#old(at.name, flow, seq);
    if (flow.isOutward) return; // committed, and the bridges flood it: nobody has heard the outsider
    if (isEarlier) this.again++;
    else if (seq < flow.ghostFrom) flow.delivered++;
    if (!isEarlier && !life.isGhost && floor > (this.#bounds[at.host]?.ceiling ?? 0)) this.orphans++;
  }

  #old(where: string, { life, from, floors, ghostFrom, isOutward }: Flow, seq: number): void {
    this.#accuse(`frame ${seq} (ghost from ${ghostFrom}) of ${from.name}, generation ${life.generation}, epoch ${floors[seq]} or later, ${isOutward ? 'outward' : 'inside'}, at ${where}; its life ended at ${life.endedAt}`);
  }
  #accuse(what: string): void {
    this.oldDelivered++;
    if (this.olds.length < OLDS_KEPT_MAX) this.olds.push(what);
  }
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
