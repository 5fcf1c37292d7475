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
 *   old      a frame for a member, of an earlier life, at a member of a later one; or any frame sent after
 *            its life had ended (a ghost's), outside or at a member of a later one
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
  /** The first of them, in words. */
  readonly olds: string[] = [];
  ghosts = 0;
  /** Frames seen outside, ever; when the last one was seen, and the longest time between two. */
  outsideSeen = 0;
  #outsideAtUs = nowUs();
  #outsideGapUs = 0;
  readonly firstOutsideUs = new Map<number, number>();

  constructor(oracle: Oracle, outside: FramePort, outsider: ProbeAddress, bounds: readonly Bounds[]) {
    this.#oracle = oracle;
    this.#outside = outside;
    this.#outsider = outsider;
    this.#bounds = bounds;
  }

  /** A new generation's members begin to speak; what earlier ones send is old from now on. */
  begin(generation: number, speakers: readonly Speaker[]): Life {
    const life: Life = { generation, speakers, silent: new Set(), isGhost: false };
    for (const at of speakers) this.#ends.set(at.tap(), { life, at });
    for (const [i, from] of speakers.entries()) {
      const next = speakers[(i + 1) % speakers.length] ?? from;
      for (const to of [undefined, next]) {
        const id = this.#flows.length;
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
    for (const [id, flow] of this.#flows.entries()) if (!flow.life.silent.has(flow.from.host)) this.#send(id, flow);
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

  #seenOutside(frame: Uint8Array, atUs: number): void {
    const probe = parseProbe(frame);
    const flow = probe === undefined ? undefined : this.#flows[probe.flow];
    if (probe === undefined || flow === undefined) return;
    if (probe.seq >= flow.ghostFrom) return this.#old('outside', flow, probe.seq);
    const key = `${probe.flow}:${probe.seq}`;
    if (!flow.isOutward) return this.#oracle.seenInside(key, atUs);
    if (this.#oracle.seen(key, atUs) === undefined) return;
    flow.delivered++;
    this.outsideSeen++;
    this.#outsideGapUs = Math.max(this.#outsideGapUs, atUs - this.#outsideAtUs);
    this.#outsideAtUs = atUs;
    if (!this.firstOutsideUs.has(flow.life.generation)) this.firstOutsideUs.set(flow.life.generation, atUs);
  }

  #seenInside(frame: Uint8Array, life: Life, at: Speaker): void {
    const probe = parseProbe(frame);
    const flow = probe === undefined ? undefined : this.#flows[probe.flow];
    if (probe === undefined || flow === undefined) return;
    const isGhosts = probe.seq >= flow.ghostFrom;
    if (flow.isOutward && !isGhosts) return; // committed, and the bridges flood it: nobody has heard the outsider
    if (flow.life.generation < life.generation) return this.#old(at.name, flow, probe.seq);
    if (!isGhosts) flow.delivered++;
    if (!life.isGhost && (flow.floors[probe.seq] ?? 0) > (this.#bounds[at.host]?.ceiling ?? 0)) this.orphans++;
  }

  #old(where: string, { life, from, ghostFrom, isOutward }: Flow, seq: number): void {
    this.oldDelivered++;
    if (this.olds.length < OLDS_KEPT_MAX) this.olds.push(`frame ${seq} (ghost from ${ghostFrom}) of ${from.name}, generation ${life.generation}, ${isOutward ? 'outward' : 'inside'}, at ${where}`);
  }
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
