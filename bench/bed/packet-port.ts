/**
 * A packet socket on a device: sends whole frames, and receives them with the kernel's wall-clock
 * time and the VLAN tag that the kernel has stripped put back.
 *
 *   recvmmsg, 64 slots:  [ mmsghdr | iovec | control 96 | frame FRAME_MAX ]   mapped once
 *
 * Received is what came in at the device, unless `outgoing` asks for what left through it. The
 * socket's buffer is the bound: what does not fit is dropped by the kernel and counted by
 * `missed()`. No ring: copies are cheap beside the judging of each frame.
 */
import type { FramePort } from './frame-port.ts';
import {
  EAGAIN, ENOBUFS, MSG_DONTWAIT, SystemError, bindSocket, close, errno, getOption, ifNametoindex, inNamespace,
  must, nativeMemory, recvmmsg, send, setOption, socket, type NativeMemory,
} from './libc.ts';

const AF_PACKET = 17;
const SOCK_RAW_CLOEXEC = 3 | 0x80000;
const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const SO_SNDBUFFORCE = 32;
const SO_TIMESTAMPNS = 35;
const SOL_PACKET = 263;
const PACKET_STATISTICS = 6;
const PACKET_AUXDATA = 8;
const PACKET_QDISC_BYPASS = 20;
const PACKET_IGNORE_OUTGOING = 23;
const PACKET_OUTGOING = 4;
const ETH_P_ALL_BE = 0x0300;
const TP_STATUS_VLAN_VALID = 0x10;
const TP_STATUS_VLAN_TPID_VALID = 0x40;

const SLOTS = 64;
const FRAME_MAX = 65536 + 256;
const CONTROL_BYTES = 96;
const NAME_BYTES = 32; // sockaddr_ll, 20 used
const HEADER_BYTES = 64; // mmsghdr
const SLOT_BYTES = HEADER_BYTES + 16 + NAME_BYTES + CONTROL_BYTES;
const RECEIVE_BYTES = 512 << 20;

export interface PacketPortOptions {
  /** Path of the network namespace the device is in. */
  readonly namespace: string;
  readonly device: string;
  /** Receive what leaves through the device instead of what comes in. */
  readonly outgoing?: boolean;
  /** Send past the device's queueing discipline. */
  readonly bypass?: boolean;
}

export class PacketPort implements FramePort {
  readonly name: string;
  readonly #fd: number;
  readonly #outgoing: boolean;
  readonly #memory: NativeMemory;
  readonly #frames: number; // offset of the frame buffers
  #missed = 0;
  #open = true;

  constructor(options: PacketPortOptions) {
    this.name = `${options.device}@${options.namespace.split('/').at(-1)}`;
    this.#outgoing = options.outgoing ?? false;
    this.#fd = inNamespace(options.namespace, () => openSocket(options));
    this.#frames = SLOTS * SLOT_BYTES;
    this.#memory = nativeMemory(this.#frames + SLOTS * FRAME_MAX);
    for (let i = 0; i < SLOTS; i++) this.#prepareSlot(i);
  }

  send(frame: Uint8Array): boolean {
    if (send(this.#fd, frame, frame.length, 0) >= 0) return true;
    const code = errno();
    if (code === EAGAIN || code === ENOBUFS) return false;
    throw new SystemError(`send on ${this.name}`, code);
  }

  drain(take: (frame: Uint8Array, atUs: number) => void, framesMax = Number.MAX_SAFE_INTEGER): number {
    let taken = 0;
    while (taken < framesMax) {
      const n = recvmmsg(this.#fd, this.#memory.address, SLOTS, MSG_DONTWAIT, null);
      if (n < 0) {
        const code = errno();
        if (code === EAGAIN || code === 100 /* ENETDOWN: reported once, the socket lives on */) return taken;
        throw new SystemError(`recvmmsg on ${this.name}`, code);
      }
      for (let i = 0; i < n; i++) taken += this.#handOver(i, take);
      if (n < SLOTS) return taken;
    }
    return taken;
  }

  missed(): number {
    if (this.#open) this.#missed += getOption(this.#fd, SOL_PACKET, PACKET_STATISTICS, 12).getUint32(4, true);
    return this.#missed;
  }

  close(): void {
    if (!this.#open) return;
    this.missed();
    this.#open = false;
    close(this.#fd);
  }

  #prepareSlot(i: number): void {
    const { view, address } = this.#memory;
    const header = i * HEADER_BYTES;
    const iovec = SLOTS * HEADER_BYTES + i * 16;
    const name = SLOTS * (HEADER_BYTES + 16) + i * NAME_BYTES;
    const control = SLOTS * (HEADER_BYTES + 16 + NAME_BYTES) + i * CONTROL_BYTES;
    view.setBigUint64(iovec, address + BigInt(this.#frames + i * FRAME_MAX + 4), true); // 4: room for a tag
    view.setBigUint64(iovec + 8, BigInt(FRAME_MAX - 4), true);
    view.setBigUint64(header, address + BigInt(name), true);
    view.setUint32(header + 8, NAME_BYTES, true);
    view.setBigUint64(header + 16, address + BigInt(iovec), true);
    view.setBigUint64(header + 24, 1n, true);
    view.setBigUint64(header + 32, address + BigInt(control), true);
    view.setBigUint64(header + 40, BigInt(CONTROL_BYTES), true);
  }

  #handOver(i: number, take: (frame: Uint8Array, atUs: number) => void): number {
    const { view, bytes } = this.#memory;
    const header = i * HEADER_BYTES;
    const name = SLOTS * (HEADER_BYTES + 16) + i * NAME_BYTES;
    const length = view.getUint32(header + 56, true);
    const controlBytes = Number(view.getBigUint64(header + 40, true));
    view.setUint32(header + 8, NAME_BYTES, true);
    view.setBigUint64(header + 40, BigInt(CONTROL_BYTES), true);
    if ((bytes[name + 10] === PACKET_OUTGOING) !== this.#outgoing) return 0;
    const meta = this.#control(i, controlBytes);
    let start = this.#frames + i * FRAME_MAX + 4;
    if (meta.tag !== 0) {
      bytes.copyWithin(start - 4, start, start + 12);
      start -= 4;
      view.setUint32(start + 12, meta.tag);
    }
    take(bytes.subarray(start, start + length + (meta.tag === 0 ? 0 : 4)), meta.atUs);
    return 1;
  }

  /** Time and VLAN tag (TPID and TCI, 0 = none) of slot `i`. */
  #control(i: number, controlBytes: number): { atUs: number; tag: number } {
    const { view } = this.#memory;
    let at = SLOTS * (HEADER_BYTES + 16 + NAME_BYTES) + i * CONTROL_BYTES;
    const end = at + controlBytes;
    let atUs = 0;
    let tag = 0;
    while (at + 16 <= end) {
      const bytes = Number(view.getBigUint64(at, true));
      const level = view.getInt32(at + 8, true);
      const type = view.getInt32(at + 12, true);
      if (level === SOL_SOCKET && type === SO_TIMESTAMPNS) {
        atUs = Number(view.getBigInt64(at + 16, true)) * 1e6 + Number(view.getBigInt64(at + 24, true)) / 1e3;
      } else if (level === SOL_PACKET && type === PACKET_AUXDATA) {
        const status = view.getUint32(at + 16, true);
        const tpid = (status & TP_STATUS_VLAN_TPID_VALID) !== 0 ? view.getUint16(at + 34, true) : 0x8100;
        if ((status & TP_STATUS_VLAN_VALID) !== 0) tag = ((tpid << 16) | view.getUint16(at + 32, true)) >>> 0;
      }
      at += (bytes + 7) & ~7;
    }
    if (atUs === 0) throw new Error(`${this.name}: a frame without its time: the oracle would be blind`);
    return { atUs, tag };
  }
}

/** A socket that only sends. */
export function openSender(options: PacketPortOptions): number {
  return inNamespace(options.namespace, () => openSocket(options, 0));
}

function openSocket(options: PacketPortOptions, protocol = ETH_P_ALL_BE): number {
  const index = ifNametoindex(options.device);
  if (index === 0) throw new Error(`no device ${options.device} in ${options.namespace}`);
  const fd = socket(AF_PACKET, SOCK_RAW_CLOEXEC, 0); // nothing is received before the bind
  setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BYTES);
  setOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, 16 << 20);
  setOption(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);
  setOption(fd, SOL_PACKET, PACKET_AUXDATA, 1);
  if (options.outgoing !== true) setOption(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
  if (options.bypass === true) setOption(fd, SOL_PACKET, PACKET_QDISC_BYPASS, 1);
  const address = new Uint8Array(20);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setUint16(2, protocol, true);
  view.setInt32(4, index, true);
  must('bind', bindSocket(fd, address));
  return fd;
}
