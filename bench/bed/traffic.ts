/**
 * Probe traffic of a bed: flows of numbered frames from members, inside the group and to the
 * outside, and the reading of every end, with the oracle told of both.
 *
 *   tick (1 ms):  each flow: `perTick` frames, written down before they are sent
 *                 each end:  drained; probes go to the oracle (outside) or the flow's log (inside)
 *
 * Order is judged per flow at the receiver: a number lower than one already seen is a reorder, the
 * same one again a repeat. A burst of one tick is what spreads frames around every cut.
 */
import type { Bed, Place } from './bed.ts';
import type { FramePort } from './frame-port.ts';
import { nowUs } from './libc.ts';
import type { Oracle } from './oracle.ts';
import { parseProbe, probeFlow } from './probe.ts';

export interface Flow {
  readonly id: number;
  readonly kind: 'external' | 'intra';
  readonly from: Place;
  sent: number;
  /** Refused by the kernel when sent: never on the wire. */
  unsent: number;
  seen: number;
  reorders: number;
  repeats: number;
  /** Highest number seen. */
  last: number;
}

interface FlowInside extends Flow {
  readonly port: () => FramePort;
  readonly perTick: number;
  readonly frame: (seq: number) => Uint8Array;
}

export const flowKey = (flow: number, seq: number): string => `${flow}:${seq}`;

export class Traffic {
  readonly #bed: Bed;
  readonly #oracle: Oracle;
  readonly #flows = new Map<number, FlowInside>();
  readonly #inside: (() => FramePort)[] = [];
  readonly #outside: FramePort;
  #timer: NodeJS.Timeout | undefined;
  /** Told of each external probe's time from sender to outsider. */
  onUnderWay: ((us: number) => void) | undefined;
  #watch: ((frame: Uint8Array, atUs: number) => void) | undefined;

  constructor(bed: Bed, oracle: Oracle) {
    this.#bed = bed;
    this.#oracle = oracle;
    this.#outside = bed.outside();
  }

  /** A flow from `from`'s end to another place. The port is asked for anew each tick: taps change. */
  flow(from: number, to: Place, port: () => FramePort, perTick = 1, bytes = 60): Flow {
    const source = this.#bed.member(from);
    const id = this.#flows.size + 1;
    const flow: FlowInside = {
      id, from: source, port, perTick, frame: probeFlow(source.address, to.address, id, bytes),
      kind: to === this.#bed.outsider ? 'external' : 'intra',
      sent: 0, unsent: 0, seen: 0, reorders: 0, repeats: 0, last: -1,
    };
    this.#flows.set(id, flow);
    return flow;
  }

  /** Reads a member's end too, and counts what its flows deliver. */
  listen(port: () => FramePort): void {
    this.#inside.push(port);
  }

  /** Hands every frame captured outside to `watch` as well. */
  watch(watch: (frame: Uint8Array, atUs: number) => void): void {
    this.#watch = watch;
  }

  run(): void {
    this.#timer ??= setInterval(() => this.tick(), 1);
  }

  /** Stops sending. What is under way is still read by `drain`. */
  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  tick(): void {
    for (const flow of this.#flows.values()) for (let i = 0; i < flow.perTick; i++) this.send(flow.id);
    this.drain();
  }

  send(id: number): void {
    const flow = this.#flows.get(id);
    if (flow === undefined) throw new Error(`no flow ${id}`);
    const seq = flow.sent++;
    const key = flowKey(id, seq);
    if (flow.kind === 'external') this.#oracle.sent(key, flow.from.name, nowUs());
    else this.#oracle.sentInside(key, flow.from.name, nowUs());
    if (flow.port().send(flow.frame(seq))) return;
    flow.unsent++;
    if (flow.kind === 'external') this.#oracle.notSent(key);
  }

  drain(): void {
    this.#outside.drain((frame, atUs) => {
      const probe = parseProbe(frame);
      if (probe !== undefined) {
        this.#seenOutside(probe.flow, probe.seq, atUs);
      }
      this.#watch?.(frame, atUs);
    });
    for (const port of this.#inside) {
      port().drain((frame) => {
        const probe = parseProbe(frame);
        if (probe !== undefined) this.#note(probe.flow, probe.seq, 'intra');
      });
    }
  }

  /** Frames the outside capture missed: with any, the oracle's word is worth nothing. */
  missed(): number {
    return this.#outside.missed();
  }

  flows(kind: Flow['kind']): Flow[] {
    return [...this.#flows.values()].filter((flow) => flow.kind === kind);
  }

  #seenOutside(id: number, seq: number, atUs: number): void {
    if (this.#flows.get(id)?.kind === 'intra') {
      this.#oracle.seenInside(flowKey(id, seq), atUs);
      return;
    }
    const underWayUs = this.#oracle.seen(flowKey(id, seq), atUs);
    if (underWayUs !== undefined) this.onUnderWay?.(underWayUs);
    this.#note(id, seq, 'external');
  }

  #note(id: number, seq: number, kind: Flow['kind']): void {
    const flow = this.#flows.get(id);
    if (flow === undefined || flow.kind !== kind) return;
    flow.seen++;
    if (seq > flow.last) flow.last = seq;
    else if (seq === flow.last) flow.repeats++;
    else flow.reorders++;
  }
}
