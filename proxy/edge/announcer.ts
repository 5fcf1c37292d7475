/**
 * Tells the network where a group lives now (takeover): one RARP for each nic, as a VM's own host
 * does after a migration.
 *
 *     packet socket on the bridge ─► bridge device's egress: marked `local` ─► every port's guard
 *                                                                lets it pass ─► switches learn
 *
 * It goes out as the host's own frame: from the member's port it would be external output, and
 * held. It carries the member's MAC as source and nothing of the member's execution, so that I1
 * does not concern it. A tagged nic's is tagged. It is sent once: the guests' own frames follow.
 */
import { EdgeError } from '../ports.ts';
import type { Announcer, NicPlace } from '../ports.ts';
import type { GroupSpec } from '../core/types.ts';
import { bind, close, errno, must, socket, SystemError } from './ffi/libc.ts';
import { send } from './ffi/sys.ts';

const AF_PACKET = 17;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const RARP = 0x8035;
const REQUEST_REVERSE = 3;
const FRAME_BYTES_MIN = 60;

/** Exported for its test. */
export function rarpFrame(mac: string, vlan: number): Uint8Array {
  const own = Buffer.from(mac.replaceAll(':', ''), 'hex');
  const tag = vlan === 0 ? [] : [0x81, 0x00, vlan >> 8, vlan & 0xff];
  const head = Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ...own, ...tag, RARP >> 8, RARP & 0xff]);
  const body = Buffer.from([0, 1, 8, 0, 6, 4, 0, REQUEST_REVERSE, ...own, 0, 0, 0, 0, ...own, 0, 0, 0, 0]);
  const frame = new Uint8Array(FRAME_BYTES_MIN + tag.length);
  frame.set(head);
  frame.set(body, head.length);
  return frame;
}

/** Only the part of netlink that is needed: which bridge each port is in. */
export interface Masters {
  links(): readonly { readonly ifindex: number; readonly master: number }[];
}

export class BridgeAnnouncer implements Announcer {
  readonly #masters: Masters;
  /** One socket a bridge, kept: to close one waits for the kernel's readers, tens of ms in a takeover. */
  readonly #sockets = new Map<number, number>();

  constructor(masters: Masters) {
    this.#masters = masters;
  }

  announce(_id: number, spec: GroupSpec, nics: readonly NicPlace[]): Promise<void> {
    try {
      const masters = new Map(this.#masters.links().map(({ ifindex, master }) => [ifindex, master]));
      this.#closeGone(masters);
      for (const { port, mac, vlan } of spec.members.flatMap((member) => member.nics)) {
        const bridge = masters.get(nics.find((place) => place.port === port)?.ifindex ?? 0) ?? 0;
        if (bridge !== 0) this.#send(bridge, rarpFrame(mac, vlan), port);
      }
      return Promise.resolve();
    } catch (error) {
      return Promise.reject(new EdgeError('plane_down', `the new place of group ${spec.group} could not be announced`, 'the guests\' own frames will do it; see that the bridge is up', error));
    }
  }

  /** Those of bridges that are gone: else one more with each bridge that is made again. */
  #closeGone(there: ReadonlyMap<number, number>): void {
    for (const [bridge, fd] of this.#sockets) {
      if (there.has(bridge)) continue;
      close(fd);
      this.#sockets.delete(bridge);
    }
  }

  #send(bridge: number, frame: Uint8Array, about: string): void {
    const kept = this.#sockets.get(bridge);
    if (kept !== undefined && send(kept, frame, frame.length, 0) >= 0) return;
    // A kept one does not outlive its device, even if the next has the same number.
    if (kept !== undefined) close(kept);
    this.#sockets.delete(bridge);
    const fd = socketOn(bridge);
    this.#sockets.set(bridge, fd);
    if (send(fd, frame, frame.length, 0) < 0) throw new SystemError('send', about, errno());
  }
}

function socketOn(bridge: number): number {
  const fd = must(socket(AF_PACKET, SOCK_RAW_CLOEXEC, 0), 'socket', 'packet');
  try {
    const address = new DataView(new ArrayBuffer(20));
    address.setUint16(0, AF_PACKET, true);
    address.setInt32(4, bridge, true);
    bind(fd, new Uint8Array(address.buffer), 'packet');
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}
