/**
 * Tells the network where a group lives now (takeover), as a VM's own host does after a migration:
 * the frames are announcements.ts, their times rounds.ts.
 *
 *     packet socket on the bridge ─► bridge device's egress ─► every port's guard ─┬─ outside: goes, switches learn
 *                                                                                  └─ the group's own: dropped
 *
 * They go out as the host's own frames: from the member's port they would be external output, and
 * held. They carry nothing of the member's execution, so that I1 does not concern them. Marked as a
 * released multicast whose members have had their copies: a guest must not hear its own address
 * claimed by another (one that has just taken it would give it up), and its fellows need not.
 */
import { EdgeError } from '../ports.ts';
import type { Announcer, NicPlace } from '../ports.ts';
import type { GroupSpec } from '../core/types.ts';
import { addressFrame, rarpFrame } from './announcements.ts';
import { bind, close, errno, must, setOption, socket, SystemError } from './ffi/libc.ts';
import { send } from './ffi/sys.ts';
import { Rounds } from './rounds.ts';

const AF_PACKET = 17;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const SOL_SOCKET = 1;
const SO_MARK = 36;

/** Only the part of netlink that is needed: which bridge each port is in. */
export interface Masters {
  links(): readonly { readonly ifindex: number; readonly master: number }[];
}

/** A frame, and the port of the nic that it is about. */
export interface Announcement {
  readonly port: string;
  readonly frame: Uint8Array;
}

/** All that is to be said of a group: every nic's place first. */
export function announcementsOf(spec: GroupSpec): readonly Announcement[] {
  const nics = spec.members.flatMap((member) => member.nics);
  return [
    ...nics.map((nic) => ({ port: nic.port, frame: rarpFrame(nic) })),
    ...nics.flatMap((nic) => (nic.addresses ?? []).map((address) => ({ port: nic.port, frame: addressFrame(nic, address) }))),
  ];
}

export class BridgeAnnouncer implements Announcer {
  readonly #masters: Masters;
  readonly #mark: number;
  readonly #rounds = new Rounds();
  #closed = false;
  /** One socket a bridge, kept: to close one waits for the kernel's readers, tens of ms in a takeover. */
  readonly #sockets = new Map<number, number>();

  /** `mark`: of a released multicast that members have had. */
  constructor(masters: Masters, mark: number) {
    this.#masters = masters;
    this.#mark = mark;
  }

  announce(id: number, spec: GroupSpec, nics: readonly NicPlace[], isStill: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      // The answer to the takeover goes first: it is what its VMs wait for.
      setImmediate(() => {
        try {
          if (!this.#closed && isStill()) this.#begin(id, spec, nics, isStill);
          resolve();
        } catch (error) {
          reject(new EdgeError('plane_down', `the new place of group ${spec.group} could not be announced`, 'the guests\' own frames will do it; see that the bridge is up', error));
        }
      });
    });
  }

  close(): void {
    this.#closed = true;
    this.#rounds.close();
    for (const fd of this.#sockets.values()) close(fd);
    this.#sockets.clear();
  }

  #begin(id: number, spec: GroupSpec, nics: readonly NicPlace[], isStill: () => boolean): void {
    const all = announcementsOf(spec);
    this.#rounds.begin(id, isStill, () => this.#round(all, nics));
  }

  #round(all: readonly Announcement[], nics: readonly NicPlace[]): (() => void)[] {
    const masters = new Map(this.#masters.links().map(({ ifindex, master }) => [ifindex, master]));
    this.#closeGone(masters);
    return all.flatMap(({ port, frame }) => {
      const bridge = masters.get(nics.find((place) => place.port === port)?.ifindex ?? 0) ?? 0;
      return bridge === 0 ? [] : [() => this.#send(bridge, frame, port)];
    });
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
    const fd = this.#socketOn(bridge);
    this.#sockets.set(bridge, fd);
    if (send(fd, frame, frame.length, 0) < 0) throw new SystemError('send', about, errno());
  }

  #socketOn(bridge: number): number {
    const fd = must(socket(AF_PACKET, SOCK_RAW_CLOEXEC, 0), 'socket', 'packet');
    try {
      const address = new DataView(new ArrayBuffer(20));
      address.setUint16(0, AF_PACKET, true);
      address.setInt32(4, bridge, true);
      bind(fd, new Uint8Array(address.buffer), 'packet');
      setOption(fd, SOL_SOCKET, SO_MARK, [this.#mark], 'packet');
      return fd;
    } catch (error) {
      close(fd);
      throw error;
    }
  }
}
