/**
 * One port of the portable plane: a libpcap session of the `pcap` package, frames in and out.
 *
 *   wire ─► kernel's ring (slots of one frame) ─► read(): listener(frame) for each ─► until empty
 *   wire ◄─ inject(frame)
 *
 * What the package does, and what is done about it:
 *   - Its own polling stops for good at the first error of the device (a link flap), and its event
 *     loop is starved by a busy port. So nothing here waits for it: whoever owns the port waits for
 *     `fd` and calls `read`. The package does not hand its descriptor out; it is the packet socket
 *     that appears in /proc/self/fd while the session is opened (nobody else opens any: one thread).
 *   - `read` ends only when the ring is empty. A listener that has had enough looks away.
 *   - The frame's memory is the session's, and the next frame's: a listener copies what it keeps.
 *   - Closing breaks the loop of the next read, which then closes for real; after that, no call.
 *
 * Frames that we inject do not come back: the socket ignores outgoing ones (which a filter
 * `inbound` would do too, but libpcap then eats the first frame). The port is promiscuous. VLAN
 * tags are in the frame, where libpcap puts them back.
 *
 * Bounds: SLOTS frames wait in the ring, more are dropped and counted by the kernel (`drops`). A
 * frame longer than FRAME_BYTES_MAX arrives cut off: the listener sees it by `wireBytes`.
 * `open` must be called in the thread that reads. Not for a process that must live on after an
 * error in the package: it may end it.
 */
import { readdirSync, readlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import * as libc from './ffi/libc.ts';

const SOL_PACKET = 263;
const PACKET_IGNORE_OUTGOING = 23;
const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 33;
/** With the kernel's own header a slot is then just below 64 KiB, the ring's block. */
export const FRAME_BYTES_MAX = 65_408;
const SLOT_BYTES = 65_536;
export const SLOTS = 512;
/**
 * The socket does not block, and a NIC gives a frame's memory back only when it has sent it: with
 * the kernel's default (92 full frames) most of a released epoch would be refused.
 */
const SEND_BYTES = 16 << 20;
/** What a read or an inject meets after `close`. */
const CLOSED = -2;

interface PcapFrame {
  readonly buf: Buffer;
  /** tv_sec, tv_usec, captured length, length on the wire: four 32-bit numbers. */
  readonly header: Buffer;
}
interface PcapSession {
  readonly link_type: string;
  readonly buf: Buffer;
  readonly header: Buffer;
  readonly session: { dispatch(buffer: Buffer, header: Buffer): number; inject(frame: Uint8Array): void };
  on(event: 'packet', listener: (frame: PcapFrame) => void): void;
  close(): void;
  stats(): { readonly ps_drop: number };
}
interface PcapPackage {
  warningHandler: (text: string) => void;
  createSession(device: string, options: { filter: string; buffer_size: number; snap_length: number; buffer_timeout: number; promiscuous: boolean }): PcapSession;
}
let loaded: PcapPackage | undefined;

/** Loaded when the first port is: only the plane's child ever does. */
function pcap(): PcapPackage {
  if (loaded === undefined) {
    loaded = createRequire(import.meta.url)('pcap') as PcapPackage;
    loaded.warningHandler = () => undefined; // "no IPv4 address assigned": as it should be
  }
  return loaded;
}

const sockets = (): string[] => readdirSync('/proc/self/fd').filter((fd) => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:');
  } catch {
    return false; // the listing's own
  }
});

/** `bytes` is the session's memory; `wireBytes` more than that means the frame was cut off. */
export type OnFrame = (bytes: Buffer, wireBytes: number, arrivedMs: number) => void;

export class PcapPort {
  readonly ifindex: number;
  readonly name: string;
  /** Readable when frames wait. */
  readonly fd: number;
  readonly #session: PcapSession;
  #state: 'open' | 'reading' | 'closing' | 'closed' = 'open';
  #dropsSeen = 0;

  constructor(ifindex: number, name: string, onFrame: OnFrame) {
    this.ifindex = ifindex;
    this.name = name;
    const before = new Set(sockets());
    const options = { filter: '', buffer_size: SLOTS * SLOT_BYTES, snap_length: FRAME_BYTES_MAX, buffer_timeout: 0, promiscuous: true };
    this.#session = pcap().createSession(name, options);
    const fresh = sockets().filter((fd) => !before.has(fd));
    this.fd = Number(fresh[0] ?? -1);
    if (fresh.length !== 1) throw new Error(`the packet socket of ${name} is not to be found: ${fresh.length} appeared`);
    if (this.#session.link_type !== 'LINKTYPE_ETHERNET') throw new Error(`${name} is no Ethernet device: ${this.#session.link_type}`);
    libc.setOption(this.fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, [1], `PACKET_IGNORE_OUTGOING at ${name}`);
    libc.setOption(this.fd, SOL_SOCKET, SO_SNDBUFFORCE, [SEND_BYTES], `SO_SNDBUF at ${name}`);
    this.#session.on('packet', ({ buf, header }) => {
      if (this.#state === 'closing') return;
      const bytes = header.readUInt32LE(8);
      onFrame(buf.subarray(0, bytes), header.readUInt32LE(12), header.readUInt32LE(0) * 1000 + header.readUInt32LE(4) / 1000);
    });
  }

  get reading(): boolean {
    return this.#state === 'reading';
  }

  /** Every frame that is there, to the listener. Not from within the listener. An error of the device is no frame. */
  read(): void {
    if (this.#state !== 'open') return;
    this.#state = 'reading';
    const result = this.#session.session.dispatch(this.#session.buf, this.#session.header);
    if (result === CLOSED) this.#state = 'closed';
    else if (this.#wantsClose()) this.#finishClose();
    else this.#state = 'open';
  }

  /** False: the device would not take it (down, gone, too long, no room). */
  inject(frame: Uint8Array): boolean {
    if (this.#state === 'closed') return false;
    try {
      this.#session.session.inject(frame);
      return true;
    } catch {
      return false;
    }
  }

  /** Frames the kernel had no slot for since the last call. */
  drops(): number {
    if (this.#state === 'closed') return 0;
    const total = this.#session.stats().ps_drop >>> 0;
    const fresh = (total - this.#dropsSeen) >>> 0;
    this.#dropsSeen = total;
    return fresh;
  }

  /** From within the listener too: the read that runs ends first. */
  close(): void {
    if (this.#state === 'closed' || this.#state === 'closing') return;
    const reading = this.#state === 'reading';
    this.#state = 'closing';
    if (reading) this.#session.close(); // ends the read after this frame: a busy ring is never empty
    else this.#finishClose();
  }
  #wantsClose(): boolean {
    return this.#state === 'closing';
  }
  #finishClose(): void {
    this.#session.close();
    for (let tries = 0; tries < 8 && this.#state !== 'closed'; tries++) {
      if (this.#session.session.dispatch(this.#session.buf, this.#session.header) === CLOSED) this.#state = 'closed';
    }
    this.#state = 'closed'; // one that will not close is never touched again
  }
}
