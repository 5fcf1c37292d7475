/**
 * A tap whose other end we are: a VM's NIC without the VM. What is written enters the bridge port
 * byte for byte; what is read is what the bridge delivered to the VM.
 *
 * With `vnetHeader` every frame in either direction has a virtio_net_hdr (10 bytes) before it, so
 * a super-frame or a partial checksum can be written as a guest would. Time of a received frame is
 * the time of the read, later than the delivery. The device disappears with `close()`.
 */
import type { FramePort } from './frame-port.ts';
import {
  EAGAIN, SystemError, close, errno, inNamespace, ioctl, ioctlValue, nativeMemory, nowUs, open, read, write,
  type NativeMemory,
} from './libc.ts';

const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const TUNSETVNETHDRSZ = 0x400454d8;
const TUNSETSNDBUF = 0x400454d4;
const IFF_TAP = 2;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const OFFLOADS = 1 | 2 | 4; // checksum, TSO4, TSO6
const O_RDWR_NONBLOCK_CLOEXEC = 2 | 0x800 | 0x80000;
const VNET_BYTES = 10;
const READ_BYTES = 65536 + 256;

export interface TapOptions {
  readonly namespace: string;
  readonly device: string;
  readonly vnetHeader?: boolean;
}

export class Tap implements FramePort {
  readonly name: string;
  readonly #fd: number;
  readonly #vnetHeader: boolean;
  readonly #memory: NativeMemory = nativeMemory(READ_BYTES);
  #open = true;

  constructor(options: TapOptions) {
    this.name = `${options.device}@${options.namespace.split('/').at(-1)}`;
    this.#vnetHeader = options.vnetHeader ?? false;
    this.#fd = inNamespace(options.namespace, () => openTap(options.device, this.#vnetHeader));
  }

  /** With `vnetHeader` a plain header (no offload) is put before the frame. */
  send(frame: Uint8Array): boolean {
    if (!this.#vnetHeader) return this.#write(frame);
    const withHeader = new Uint8Array(VNET_BYTES + frame.length);
    withHeader.set(frame, VNET_BYTES);
    return this.#write(withHeader);
  }

  /** A frame with its own virtio_net_hdr, as a guest with offloads writes it. */
  sendOffloaded(header: Uint8Array, frame: Uint8Array): boolean {
    if (!this.#vnetHeader || header.length !== VNET_BYTES) throw new Error(`${this.name}: no virtio_net_hdr here`);
    const whole = new Uint8Array(VNET_BYTES + frame.length);
    whole.set(header);
    whole.set(frame, VNET_BYTES);
    return this.#write(whole);
  }

  drain(take: (frame: Uint8Array, atUs: number) => void, framesMax = Number.MAX_SAFE_INTEGER): number {
    if (!this.#open) return 0;
    let taken = 0;
    const skip = this.#vnetHeader ? VNET_BYTES : 0;
    while (taken < framesMax) {
      const n = read(this.#fd, this.#memory.address, READ_BYTES);
      if (n < 0) {
        const code = errno();
        if (code === EAGAIN || code === 5 /* EIO: the device is down */) return taken;
        throw new SystemError(`read on ${this.name}`, code);
      }
      take(this.#memory.bytes.subarray(skip, n), nowUs());
      taken++;
    }
    return taken;
  }

  /** A tap's queue drops in the device's own counter, not here. */
  missed(): number {
    return 0;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    close(this.#fd);
  }

  #write(bytes: Uint8Array): boolean {
    if (!this.#open) return false;
    const n = write(this.#fd, bytes, bytes.length);
    if (n === bytes.length) return true;
    const code = errno();
    if (code === EAGAIN || code === 5) return false;
    throw new SystemError(`write on ${this.name}`, code);
  }
}

function openTap(device: string, vnetHeader: boolean): number {
  const fd = open('/dev/net/tun', O_RDWR_NONBLOCK_CLOEXEC);
  const request = new Uint8Array(40);
  request.set(new TextEncoder().encode(device).subarray(0, 15));
  new DataView(request.buffer).setUint16(16, IFF_TAP | IFF_NO_PI | (vnetHeader ? IFF_VNET_HDR : 0), true);
  try {
    ioctl(fd, TUNSETIFF, request);
    if (vnetHeader) {
      ioctl(fd, TUNSETVNETHDRSZ, new Uint8Array(Int32Array.of(VNET_BYTES).buffer));
      ioctlValue(fd, TUNSETOFFLOAD, OFFLOADS);
    }
    ioctl(fd, TUNSETSNDBUF, new Uint8Array(Int32Array.of(0x7fff_ffff).buffer));
  } catch (error) {
    close(fd);
    throw error;
  }
  return fd;
}
