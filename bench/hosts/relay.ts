/**
 * A hand on the wire between one host's uplink and the switch: what crosses may be doubled, held
 * back, overtaken or written anew.
 *
 *   [host: uplink] ══ p1 ─► relay ─► r1x ══ r1 ─ sw0        p1 leaves the switch, r1 stands in for it
 *                        ◄─ hand ◄─
 *
 * Frames are read every POLL_MS, so even what passes untouched is that much late. While the relay is put
 * in or taken out some frames are lost, as when a cable is moved. What is still held back when it
 * is taken out is sent before.
 */
import { ipBatch, namespacePath } from '../bed/commands.ts';
import type { HostsBed } from '../bed/hosts.ts';
import { PacketPort } from '../bed/packet-port.ts';

const POLL_MS = 1;
const HELD_MAX = 20_000;
const TAGS_AT = 12;

export interface Passed {
  readonly frame: Uint8Array;
  readonly delayMs: number;
}
/** What becomes of a frame: none, once, more often, later. `out`: from the host. */
export type Hand = (frame: Uint8Array, direction: 'out' | 'in') => readonly Passed[];
interface Held {
  readonly frame: Uint8Array;
  readonly to: PacketPort;
  readonly dueMs: number;
}

export class Relay {
  readonly #bed: HostsBed;
  readonly #host: number;
  readonly #hand: Hand;
  readonly #towards: { readonly out: PacketPort; readonly in: PacketPort };
  #held: Held[] = [];
  readonly #timer: NodeJS.Timeout;
  /** Tagged frames that it sent more than once, later, or otherwise than they came. */
  touched = 0;

  private constructor(bed: HostsBed, host: number, hand: Hand) {
    this.#bed = bed;
    this.#host = host;
    this.#hand = hand;
    const namespace = namespacePath(bed.switch);
    this.#towards = { out: new PacketPort({ namespace, device: `r${host + 1}x` }), in: new PacketPort({ namespace, device: `p${host + 1}` }) };
    this.#timer = setInterval(() => this.#breath(), POLL_MS);
  }

  static async insert(bed: HostsBed, host: number, hand: Hand): Promise<Relay> {
    const [port, stand] = [`p${host + 1}`, `r${host + 1}`];
    await ipBatch(bed.switch, [
      `link add ${stand} mtu 1512 type veth peer name ${stand}x mtu 1512`, `link set ${stand}x up`,
      `link set ${port} nomaster`, `link set ${stand} master sw0 up`,
    ]);
    return new Relay(bed, host, hand);
  }

  async remove(): Promise<void> {
    clearInterval(this.#timer);
    this.#breath();
    for (const { to, frame } of this.#held) to.send(frame);
    this.#towards.out.close();
    this.#towards.in.close();
    await ipBatch(this.#bed.switch, [`link del r${this.#host + 1}`, `link set p${this.#host + 1} master sw0`]);
  }

  #breath(): void {
    this.#take('out', this.#towards.in, this.#towards.out);
    this.#take('in', this.#towards.out, this.#towards.in);
    const now = performance.now();
    const due = this.#held.filter(({ dueMs }) => dueMs <= now);
    if (due.length === 0) return;
    this.#held = this.#held.filter(({ dueMs }) => dueMs > now);
    for (const { to, frame } of due) to.send(frame);
  }

  #take(direction: 'out' | 'in', from: PacketPort, to: PacketPort): void {
    from.drain((frame) => {
      const passed = this.#hand(frame, direction);
      if (passed.length !== 1 || passed[0]?.frame !== frame || passed[0].delayMs > 0) this.touched += 1;
      for (const one of passed) {
        if (one.delayMs <= 0) to.send(one.frame);
        else if (this.#held.length < HELD_MAX) this.#held.push({ frame: Uint8Array.from(one.frame), to, dueMs: performance.now() + one.delayMs });
      }
    });
  }
}

export const asItIs: Hand = (frame) => [{ frame, delayMs: 0 }];

/** What the two tags of a group's frame say; undefined where it has none. */
export function colourOf(frame: Uint8Array): { readonly generation: number; readonly epoch: number } | undefined {
  if (frame.length < TAGS_AT + 8) return undefined;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (view.getUint16(TAGS_AT) !== 0x88a8 || view.getUint16(TAGS_AT + 4) !== 0x8100) return undefined;
  const tag = view.getUint16(TAGS_AT + 6);
  return { generation: tag >> 12, epoch: tag & 0xfff };
}

/** The same frame under another colour: a copy. */
export function coloured(frame: Uint8Array, generation: number, epoch: number): Uint8Array {
  const copy = Uint8Array.from(frame);
  new DataView(copy.buffer).setUint16(TAGS_AT + 6, (generation & 0xf) << 12 | (epoch & 0xfff));
  return copy;
}
