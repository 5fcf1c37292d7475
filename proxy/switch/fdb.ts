/**
 * Which MAC is behind which port, as a bridge learns it. Pure: time comes in.
 *
 *   source MAC of a frame ─► learned at its port, for AGE_MS since it was last heard
 *   static entry (a member) ─► stays where it was put; frames of it elsewhere move nothing
 *   destination unknown, or heard too long ago ─► undefined: the frame is flooded
 *
 * One table for all VLANs, as a bridge without VLAN filtering has it. Bound: ENTRIES_MAX learned
 * entries; when it is full the oldest half is forgotten, which costs flooding and no frame.
 */
export const AGE_MS = 300_000;
export const ENTRIES_MAX = 16_384;

interface Heard {
  port: number;
  atMs: number;
}

export class ForwardingTable {
  readonly #learned = new Map<number, Heard>();
  readonly #static = new Map<number, number>();

  /** A frame from `mac` came in at `port`. */
  heard(mac: number, port: number, nowMs: number): void {
    const entry = this.#learned.get(mac);
    if (entry === undefined) {
      if (this.#learned.size >= ENTRIES_MAX) this.#forgetHalf();
      this.#learned.set(mac, { port, atMs: nowMs });
      return;
    }
    entry.port = port;
    entry.atMs = nowMs;
  }

  find(mac: number, nowMs: number): number | undefined {
    const fixed = this.#static.get(mac);
    if (fixed !== undefined) return fixed;
    const entry = this.#learned.get(mac);
    return entry === undefined || nowMs - entry.atMs > AGE_MS ? undefined : entry.port;
  }

  fix(mac: number, port: number): void {
    this.#static.set(mac, port);
  }
  /** Only where it was fixed at that port. */
  unfix(mac: number, port: number): void {
    if (this.#static.get(mac) === port) this.#static.delete(mac);
  }
  /** The port is gone. */
  forgetPort(port: number): void {
    for (const [mac, entry] of this.#learned) if (entry.port === port) this.#learned.delete(mac);
  }

  #forgetHalf(): void {
    const times = [...this.#learned.values()].map(({ atMs }) => atMs).sort((a, b) => a - b);
    const middle = times[times.length >> 1] ?? 0;
    for (const [mac, { atMs }] of this.#learned) if (atMs <= middle) this.#learned.delete(mac);
  }
}
